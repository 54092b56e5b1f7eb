import json

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError, TrainingError
from recdistill.knowledge import load_knowledge
from recdistill.teachers import base
from recdistill.teachers.bi_encoder.loss import Step, step_loss
from recdistill.teachers.bi_encoder.model import BiEncoder, add_repeats
from recdistill.teachers.bi_encoder.options import BiEncoderOptions
from recdistill.teachers.bi_encoder.steps import Steps
from recdistill.teachers.bi_encoder.teacher import SAMPLE, BiEncoderTeacher
from recdistill.teachers.bi_encoder.training import BiEncoderTraining, scores_of
from recdistill.teachers.text.tower_loading import choose_trained
from recdistill.teachers.text_query import newest_first, newest_of
from recdistill.types import PAD
from references import bi_encoder as reference
from tiny_encoder import tiny_tower

QUICK = BiEncoderOptions(
    last_items=4,
    size=12,
    layers=1,
    sample=0,
    titles_per_step=8,
    rows_per_step=64,
    epochs=2,
    patience=9,
    learning_rate=0.01,
    tower_learning_rate=0.002,
)


def options(**changes):
    return BiEncoderOptions(**{**vars(QUICK), **changes})


def build(walks, tune="layers", **changes):
    chosen = options(tune=tune, **changes)
    tower = tiny_tower()
    choose_trained(tower, tune, layers=chosen.layers)
    return BiEncoder(tower, walks.catalogue.titles, chosen)


@pytest.fixture(scope="module")
def stirred(walks):
    """A model in which every head parameter matters."""
    model = build(walks)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.head_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def naive_table(stirred):
    known = stirred.has_text[:, 0]
    rows = zip(stirred.vectors.numpy(), known.tolist(), strict=True)
    return np.stack([reference.item(stirred, vector, text) for vector, text in rows])


def test_items_and_pooled_queries_follow_their_equations(stirred, naive_table):
    table = stirred.table().detach()
    np.testing.assert_allclose(table.numpy(), naive_table, atol=1e-5)
    assert not table[23].any()  # it has no title
    history = np.array([[3, 7, 3, 11], [5, 23, PAD, PAD], [9, PAD, PAD, PAD]])
    found = stirred.queries(history, table).detach().numpy()
    for row, line in zip(found, history.tolist(), strict=True):
        known = [i for i in line if i != PAD]
        np.testing.assert_allclose(row, reference.pooled_query(stirred, naive_table, known), atol=1e-4)


def test_untrained_scores_are_cosines_of_whitened_vectors(walks):
    model = build(walks)
    history = np.array([[3, PAD, PAD, PAD]])
    scores = model.queries(history, model.table()) @ model.table().T * QUICK.temperature
    from recdistill.teachers.text.item_text import whiten

    known = np.array([bool(t) for t in walks.catalogue.titles])
    white = torch.from_numpy(whiten(model.vectors.numpy(), known, 12))
    expected = torch.nn.functional.cosine_similarity(white[3:4], white)
    torch.testing.assert_close(scores[0], expected, atol=1e-4, rtol=1e-4)


def test_text_queries_read_the_titles_newest_first(walks):
    model = build(walks, query="text")
    torch.manual_seed(0)
    with torch.no_grad():
        model.maps[0].normal_()
        model.bias.normal_()
    titles = walks.catalogue.titles
    found = model.read(np.array([[2, 23, 9, PAD]]))  # 23 has no title
    lists = model.tower.tokenised([f"{titles[2]}, {titles[9]}"])
    z = reference.item(model, model.tower(lists, np.array([0]))[0].detach().numpy())
    expected = (z + model.bias.detach().numpy() + z @ model.maps[0].detach().numpy()) / QUICK.temperature
    np.testing.assert_allclose(found[0].detach().numpy(), expected, atol=1e-3)


def test_repeats_count_once():
    history = torch.tensor([[2, 0, 2], [1, PAD, PAD]])
    scores = add_repeats(torch.zeros(2, 4), history, torch.tensor([-1.0, 5.0]))
    assert scores.tolist() == [[-1, 0, -1, 0], [0, 5, 0, 0]]
    assert add_repeats(torch.zeros(2, 4), history, -2.0).tolist() == [[-2, 0, -2, 0], [0, -2, 0, 0]]
    assert newest_of(np.array([[7, 8, 9, PAD], [5, PAD, PAD, PAD]]), 2).tolist() == [[9, 8], [5, PAD]]


@pytest.mark.parametrize("titles", [[], [4, 20, 1]])
def test_the_loss_follows_its_equation(stirred, naive_table, titles):
    history = np.array([[3, 7, 3, 11], [5, 23, PAD, PAD], [9, 2, 1, 0], [6, PAD, PAD, PAD]])
    targets = np.array([7, 4, 20, 13])  # the first was there before
    weights = np.array([0.4, 0.1, 0.3, 0.2], dtype=np.float32)
    rivals = np.array([4, 20, 1, 9, 15, 23, 11])
    expected = np.array([0.1, 0.9, 0.4, 0.3, 1.0, 0.2, 0.7], dtype=np.float32)
    step = Step(history, targets, weights, np.array(titles, dtype=np.int64), rivals, expected)
    drawn = Step(history, targets, weights, step.titles, rivals, expected[:0], 20)
    wanted = wanted_drawn = 0.0
    for line, y, weight in zip(history.tolist(), targets.tolist(), weights, strict=True):
        h = [i for i in line if i != PAD]
        wanted += weight * reference.loss(stirred, naive_table, h, y, rivals, expected)
        even = np.full(7, (7 - (y in rivals)) / 19)
        wanted_drawn += weight * reference.loss(stirred, naive_table, h, y, rivals, even)
    assert step_loss(stirred, step).item() == pytest.approx(wanted, abs=1e-4)
    assert step_loss(stirred, drawn).item() == pytest.approx(wanted_drawn, abs=1e-4)


def test_a_step_trains_the_titles_it_encodes_and_refreshes_them(walks):
    model = build(walks)
    model.vectors[4] += 1.0  # stale
    stale = model.vectors.clone()
    step = Step(
        np.array([[3, 7, PAD, PAD]]),
        np.array([4]),
        np.ones(1, np.float32),
        np.array([4, 9]),
        np.arange(23),
        np.empty(0, np.float32),
        23,
    )
    step_loss(model, step).backward()
    fresh = model.encode(np.array([4, 9])).detach()
    torch.testing.assert_close(model.vectors[[4, 9]], fresh)
    others = [i for i in range(24) if i not in (4, 9)]
    torch.testing.assert_close(model.vectors[others], stale[others], rtol=0, atol=0)
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.tower.parameters() if p.requires_grad
    )
    head = {
        name for name, p in model.named_parameters() if not name.startswith("tower.") and p.grad is not None
    }
    assert head == {"item_map", "recency", "key", "near", "maps", "bias", "log_tau", "repeat"}


def steps_of(walks, **changes):
    rows = walks.rows("train", prefixes=True)
    known = np.array([bool(t) for t in walks.catalogue.titles])
    history = newest_first(walks, rows, 4)
    return Steps(history, walks.targets(rows), known, options(**changes), (0,)), len(rows)


def test_a_pass_encodes_every_title_once(walks):
    steps, _ = steps_of(walks)
    seen = np.concatenate(steps.of_pass(0, head=False))
    named = set(steps.targets) | set(steps.newest)
    assert sorted(seen.tolist()) == sorted(named - {23})
    assert np.concatenate(steps.of_pass(1, head=False)).tolist() != seen.tolist()
    assert np.concatenate(steps.of_pass(0, head=False)).tolist() == seen.tolist()
    rows = np.concatenate(steps.of_pass(0, head=True))
    assert sorted(rows.tolist()) == list(range(len(steps.targets)))


def test_the_strata_stand_for_all_rows(walks):
    """However the rows are drawn, each counts 1/N in expectation, those that name an encoded title and those that do
    not; and all of the former are asked while they fit."""
    steps, count = steps_of(walks, rows_per_step=80)
    steps.targets = steps.targets.copy()
    titles = np.array([4, 9, 17])
    near = np.isin(steps.targets, titles) | np.isin(steps.newest, titles)
    total = np.zeros(count)
    draws = 400
    for seed in range(draws):
        rows, weights = steps._strata(titles, np.random.default_rng(seed))
        assert len(np.unique(rows)) == len(rows)
        np.add.at(total, rows, weights)
        assert weights.sum() == pytest.approx(1, abs=1e-5)
    assert 0 < near.sum() != count
    assert total[near].mean() / draws == pytest.approx(1 / count, rel=1e-3)
    assert np.abs(total / draws * count - 1).max() < 0.5


def test_rivals_are_drawn_from_what_can_be_an_answer(walks):
    steps, _ = steps_of(walks, sample=10)
    answers = set(np.unique(steps.targets).tolist())
    titles = np.array([0, 3, 5])
    found = np.zeros(24)
    for seed in range(200):
        rivals = steps._rivals(titles, np.random.default_rng(seed))
        assert len(rivals) == 10 == len(set(rivals.tolist()))
        assert set(titles.tolist()) & answers <= set(rivals.tolist()) <= answers
        found[rivals] += 1
    rest = [i for i in answers if i not in titles]
    assert found[rest].min() > 0.6 * found[rest].mean()


def test_a_sample_estimates_the_whole_catalogue(stirred, walks):
    """e^{-L} is not linear in the sample, but its sum of rivals is: the mean of e^L is that of the whole."""
    history, target = np.array([[3, 7, PAD, PAD]]), np.array([4])
    one, none = np.ones(1, np.float32), np.empty(0, np.int64)
    pool = np.arange(23)

    def ratio(rivals):
        step = Step(history, target, one, none, rivals, np.empty(0, np.float32), len(pool))
        return np.exp(step_loss(stirred, step).item())  # Z / e^s

    generator = np.random.default_rng(0)
    draws = [ratio(generator.choice(pool, 8, replace=False)) for _ in range(400)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - ratio(pool)) < 4 * error + 1e-6


def test_batch_rivals_are_expected_as_often_as_they_come(walks):
    steps, count = steps_of(walks, negatives="batch", titles_per_step=24)
    generator = np.random.default_rng(0)
    seen = np.zeros(24)
    draws = 3000
    for _ in range(draws):
        rows = generator.choice(count, 12, replace=False)
        seen[np.unique(steps.targets[rows[1:]])] += 1  # among the rows that are not the first
    step = steps.step(np.arange(12), 0, 0, head=False)
    np.testing.assert_allclose(step.expected, seen[step.rivals] / draws, atol=0.05)
    assert set(step.titles.tolist()) == (set(step.rivals) | set(steps.newest[:12])) - {23}
    assert step.drawn is None


def train(walks, folder, tune="layers", **changes):
    model = build(walks, tune, **changes)
    rows = walks.rows("train", prefixes=True)
    training = BiEncoderTraining(model, walks, rows, folder)
    return model, training.fit()


@pytest.mark.parametrize(
    "changes",
    [
        {"tune": "full", "epochs": 5},
        {"tune": "full", "negatives": "batch", "titles_per_step": 48, "epochs": 3},
        {"tune": "full", "query": "text", "negatives": "batch", "titles_per_step": 48, "epochs": 2},
        {"tune": "none", "epochs": 8},
    ],
)
def test_training_beats_the_untrained_model(walks, tmp_path, changes):
    _, result = train(walks, tmp_path, **changes)
    first, best = result["history"][0], result["best"]
    assert first["round"] == "untrained"
    assert best["ndcg@20"] > first["ndcg@20"] + 0.02
    assert result["history"][-1]["loss"] < result["history"][1]["loss"]


def test_the_best_round_is_kept(walks, tmp_path, monkeypatch):
    """Where training makes it worse, the untrained model stays, and patience ends the training."""
    found = iter([0.5, 0.4, 0.3, 0.2, 0.6])
    record = lambda *_: {"hr@20": 0.0, "ndcg@20": next(found)}  # noqa: E731
    monkeypatch.setattr("recdistill.teachers.bi_encoder.training.quality", record)
    model, result = train(walks, tmp_path, epochs=5, patience=2)
    assert [r["round"] for r in result["history"]] == ["untrained", "head", "encoder", "encoder"]
    assert result["best"]["round"] == "untrained"
    fresh, history = build(walks), np.array([[3, 7, 3, 11]])
    torch.testing.assert_close(
        scores_of(model, history, model.table()), scores_of(fresh, history, fresh.table())
    )


def test_frozen_parameters_stay(walks, tmp_path):
    model, result = train(walks, tmp_path, epochs=3)
    fresh = dict(build(walks).tower.named_parameters())
    moved = {name for name, p in model.tower.named_parameters() if not torch.equal(p, fresh[name])}
    assert all("layer.2." in name for name in moved)
    assert result["best"]["round"] == "encoder"
    assert moved


def test_a_loss_that_is_not_finite_stops(walks, tmp_path):
    model = build(walks)
    with torch.no_grad():
        model.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="smaller --learning-rate"):
        BiEncoderTraining(model, walks, walks.rows("train"), tmp_path).fit()


def teacher(**changes):
    return BiEncoderTeacher(tiny_tower(), options(**changes), seed=2)


@pytest.fixture(scope="module")
def taught(walks, tmp_path_factory):
    out = tmp_path_factory.mktemp("bi") / "k"
    asked = base.rows_to_teach(walks)
    return out, teacher().teach(walks, asked, out=out, top_k=6), asked


def test_answers_are_the_product_and_the_repeats(walks, taught):
    out, known, rows = taught
    known.check(walks.targets(rows))
    assert known.row_ids.tolist() == walks.row_ids[rows].tolist()
    manifest = known.manifest
    scores = known.query_embeddings.astype(np.float32) @ known.item_embeddings.T
    history = torch.from_numpy(newest_first(walks, rows, 4))
    share = np.full((len(rows), 2), 0.5)
    train = np.isin(rows, walks.rows("train", prefixes=True))
    folds = teacher().folds(walks)[rows]
    share[train] = np.eye(2)[folds[train]]
    repeats = []
    for fold in range(2):
        from safetensors.torch import load_file

        repeats.append(load_file(out / "models" / f"fold-{fold}" / "best.safetensors")["repeat"].item())
    repeat = torch.from_numpy(share @ np.array(repeats) / manifest["models"]["temperature"]).float()
    whole = add_repeats(torch.from_numpy(scores), history, repeat)
    loss = -whole.log_softmax(1).numpy()
    targets = walks.targets(rows)
    np.testing.assert_allclose(known.target_distance, loss[np.arange(len(rows)), targets], atol=1e-3)
    np.testing.assert_allclose(known.ranking_distance, np.sort(loss, axis=1)[:, :6], atol=1e-3)
    assert manifest["metric"] == "dot"
    assert manifest["distance"] == "negative_log_probability"
    assert manifest["options"]["folds"] == 2
    assert 0 < manifest["order_sensitivity"]["rows"] <= len(walks.rows("valid"))


def test_no_row_is_answered_by_a_model_that_saw_its_sequence(walks, taught, tmp_path):
    _, known, _ = taught
    asker = teacher()
    shares, folds = asker.shares(walks), asker.folds(walks)
    train = set(walks.rows("train", prefixes=True).tolist())
    answered = np.zeros(len(walks.row_ids))
    for share in shares:
        learned = set(walks.row_sequences[share.train].tolist())
        assert set(share.train.tolist()) <= train
        for row in np.flatnonzero(share.weight).tolist():
            assert row not in train or walks.row_sequences[row] not in learned
        answered += share.weight
    np.testing.assert_allclose(answered, 1)
    # the answer of a training row is that of one model, alone
    row = int(np.flatnonzero((folds == 1) & np.isin(np.arange(len(folds)), list(train)))[0])
    model = build(walks)
    BiEncoderTraining(model, walks, shares[1].train, tmp_path, seed=(2, 1)).fit()
    history = newest_first(walks, np.array([row]), 4)
    with torch.no_grad():
        scores = scores_of(model, history, model.table()) / known.manifest["models"]["temperature"]
    own = known.rows_for([walks.row_ids[row]])
    expected = -scores.log_softmax(1)[0]
    torch.testing.assert_close(own.ranking_distance[0], expected[own.ranking[0]], atol=5e-3, rtol=1e-3)


def test_one_fold_answers_only_what_it_did_not_learn(walks, tmp_path):
    rows = base.rows_to_teach(walks)
    known = teacher(folds=1, train_share=0.4, epochs=1).teach(walks, rows, out=tmp_path / "k", top_k=5)
    sample = pl.read_parquet(tmp_path / "k" / SAMPLE)["row_id"].to_numpy()
    train = walks.row_ids[walks.rows("train", prefixes=True)]
    assert 0 < len(sample) < len(train)
    assert not np.isin(sample, known.row_ids).any()
    assert np.isin(np.setdiff1d(walks.row_ids, sample), known.row_ids).all()
    sequences = walks.row_sequences[walks.positions_of(sample)]
    assert len(np.unique(sequences)) == round(0.4 * 40)
    with pytest.raises(ConfigError, match="--answer-trained"):
        teacher(folds=1, train_share=1.0).teach(walks, walks.rows("train"), out=tmp_path / "n")
    every = teacher(folds=1, train_share=1.0, answer_trained=True, epochs=1)
    assert len(every.teach(walks, rows, out=tmp_path / "all", top_k=5)) == len(rows)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [1, 4, 9])
def test_killed_and_started_again_it_writes_the_same_file(walks, taught, tmp_path, after):
    out, known, rows = taught
    heard = []

    def die(*what):
        heard.append(what)
        if len(heard) > after:
            raise KilledError

    with pytest.raises(KilledError):
        teacher().teach(walks, rows, out=tmp_path / "k", top_k=6, on_step=die)
    again = teacher().teach(
        walks, rows, out=tmp_path / "k", top_k=6, on_step=lambda *what: heard.append(what)
    )
    first = (out / "knowledge.safetensors").read_bytes()
    assert (tmp_path / "k" / "knowledge.safetensors").read_bytes() == first
    assert again.manifest["models"] == known.manifest["models"]
    assert json.loads((tmp_path / "k" / "manifest.json").read_text())["rows"] == len(rows)


def test_killed_while_answering(walks, taught, tmp_path, monkeypatch):
    out, _, rows = taught
    monkeypatch.setattr("recdistill.teachers.bi_encoder.teacher._SHARD_ROWS", 100)

    def die(count):
        raise KilledError

    with pytest.raises(KilledError):
        teacher().teach(walks, rows, out=tmp_path / "k", top_k=6, progress=die)
    assert len(list((tmp_path / "k" / "shards").glob("0*.safetensors"))) == 1
    done = []
    teacher().teach(walks, rows, out=tmp_path / "k", top_k=6, progress=done.append)
    assert sum(done) == len(rows)
    assert (tmp_path / "k" / "knowledge.safetensors").read_bytes() == (
        out / "knowledge.safetensors"
    ).read_bytes()
    with pytest.raises(KnowledgeError, match="other settings"):
        teacher(epochs=5).teach(walks, rows, out=tmp_path / "k", top_k=6)
    assert load_knowledge(tmp_path / "k", walks, check=True).row_ids.tolist() == walks.row_ids[rows].tolist()


def test_the_scorer_gives_the_answers_of_held_out_rows(walks, taught):
    out, known, _ = taught
    rows = walks.rows("test")
    scores = teacher().scorer(walks, out)(walks.histories(rows, 30))
    own = known.rows_for(walks.row_ids[rows])
    expected = -scores.log_softmax(1).gather(1, own.ranking)
    torch.testing.assert_close(own.ranking_distance, expected, atol=5e-3, rtol=1e-3)


def test_titles_are_needed(make_dataset, tmp_path):
    dataset = make_dataset([[0, 1, 2, 3], [3, 2, 1, 0]], ["", " ", "", ""])
    with pytest.raises(ConfigError, match="none of the 4 items has a title"):
        teacher().teach(dataset, base.rows_to_teach(dataset), out=tmp_path / "k")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"folds": 0}, "Allowed: from 1"),
        ({"train_share": 1.5}, "at most 1"),
        ({"query": "pool"}, "Did you mean 'pooled'"),
        ({"negatives": "batches"}, "Did you mean 'batch'"),
        ({"tune": "head"}, "unknown tune"),
        ({"titles_per_step": 1}, "from 2"),
        ({"temperature": 0}, "Allowed"),
    ],
)
def test_options_out_of_range_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        options(**wrong)
