from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.data.catalogue import Catalogue
from recdistill.errors import ConfigError, DataError
from recdistill.teachers import base
from recdistill.teachers.blend.linear import LinearModel
from recdistill.teachers.blend.signals import SignalOptions, Signals, centred, field_vectors
from recdistill.teachers.blend.teacher import BlendScorer, BlendTeacher, scorer_from
from recdistill.teachers.blend.weights import Candidates, best_of, fit, learn_weights
from references.blend_teacher import naive_evidence, naive_linear, naive_signals, naive_weights
from references.graph_teacher import naive_matrix


@pytest.fixture(scope="module")
def shop(walks):
    """The ring, with a colour and a shelf beside each title, and a number that no two items share."""
    frame = walks.catalogue.frame.with_columns(
        pl.Series("colour", [("red", "blue", "")[i % 3] for i in range(walks.item_count)]),
        pl.Series("shelf", [f"all > shelf {i // 8}" for i in range(walks.item_count)]),
        pl.Series("serial", [f"n{i}" for i in range(walks.item_count)]),
    )
    return replace(walks, catalogue=Catalogue(frame))


@pytest.fixture(scope="module")
def text(walks):
    vectors = np.random.default_rng(3).normal(size=(walks.item_count, 6)).astype(np.float32)
    vectors[-1] = 0  # an item without text
    return vectors


def history_of(dataset, row):
    return dataset.events[dataset.offsets[dataset.row_sequences[row]] : dataset.row_events[row]]


@pytest.mark.parametrize("options", [SignalOptions(), SignalOptions(2, 0.9, 1.0, 3, 0.5)])
def test_signals_are_those_of_loops_without_a_training_rows_own_event(shop, text, options):
    signals = Signals(shop, {"t": text}, options)
    rows = np.concatenate([base.rows_to_teach(shop, ["train"])[::7], shop.rows("test")[::9]])
    history = shop.histories(rows, 12)
    found = {name: scores.numpy() for name, scores in signals(history, rows)}
    assert list(found) == signals.names
    texts, fields = {"t": centred(text)}, field_vectors(shop.catalogue).toarray()
    for n, row in enumerate(rows):
        own = shop.row_events[row] if shop.row_splits[row] in (0, 3) else None
        expected = naive_signals(shop, history_of(shop, row), texts, fields, options, without=own)
        assert list(expected) == signals.names
        for name, scores in expected.items():
            np.testing.assert_allclose(found[name][n], scores, atol=1e-4, err_msg=name)


def test_histories_from_elsewhere_see_the_whole_graph(shop, text):
    signals = Signals(shop, {"t": text})
    rows = shop.rows("valid")
    history = shop.histories(rows, 12)
    for (name, known), (_, foreign) in zip(signals(history, rows), signals(history), strict=True):
        torch.testing.assert_close(known, foreign, msg=name)


def test_a_large_catalogue_goes_without_the_regression(shop, monkeypatch):
    monkeypatch.setattr("recdistill.teachers.blend.signals.MOST_ITEMS", shop.item_count - 1)
    assert "linear" not in Signals(shop).names
    with pytest.raises(ConfigError, match="linear"):
        Signals(shop, without=["linear"])


def test_the_regression_is_not_fitted_where_nobody_hears_it(shop):
    signals = Signals(shop, without=["linear"])
    list(signals(shop.histories(shop.rows("valid"), 5)))
    assert "_linear" not in vars(signals)
    assert "_linear" not in vars(Signals(shop))


def test_the_regression_is_the_same_in_parts(shop, monkeypatch):
    whole = LinearModel(shop)
    monkeypatch.setattr("recdistill.teachers.blend.linear._ROWS", 7)
    monkeypatch.setattr("recdistill.teachers.blend.linear._CHUNK", 5)
    parts = LinearModel(shop)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-6)
    rows = base.rows_to_teach(shop, ["train"])
    history = shop.histories(rows, 12)
    torch.testing.assert_close(parts(history, rows), whole(history, rows))


def test_the_regression_of_a_training_row_is_that_of_a_fit_without_it(shop):
    """Far from the clamp and the root of the signal: scores as they are, with little and with much shrinkage."""
    for shrinkage, decay in ((0.05, 0.7), (5.0, 1.0)):
        options = SignalOptions(linear_decay=decay, shrinkage=shrinkage, sequence_items=4)
        model = LinearModel(shop, items=4, decay=decay, shrinkage=shrinkage)
        rows = base.rows_to_teach(shop, ["train", "test"])[::9]
        scores = model(shop.histories(rows, 12), rows)
        for n, row in enumerate(rows):
            own = None if shop.row_splits[row] == 2 else shop.row_events[row]
            expected = naive_linear(shop, history_of(shop, row), options, without=own)
            np.testing.assert_allclose(scores[n], expected, atol=1e-4)


def test_a_row_does_not_betray_its_target(make_dataset):
    # Nobody but the row's own user ever went 0 -> 9; without the row it must look like the never-seen 10.
    dataset = make_dataset([[0, 9, 1, 2], *[[0, 1, 2, 3, 4]] * 5, [5, 6, 7, 8, 5, 6]], item_count=11)
    row = dataset.rows("train")[:1]
    assert dataset.targets(row)[0] == 9
    for name, scores in Signals(dataset)(dataset.histories(row, 5), row):
        assert scores[0, 9] == scores[0, 10], name
    assert naive_matrix(dataset, 3, 0.35)[0, 9] > 0


def test_fields_are_what_items_share():
    frame = pl.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["A", "B", "C", "D"],
            "categories": ["toys > games", "toys > dolls", "", "toys > games"],
            "asin": ["1", "2", "3", "4"],
        }
    )
    vectors = field_vectors(Catalogue(frame)).toarray()
    assert vectors.shape == (4, 2)  # toys and games; dolls and the numbers name one item each
    likeness = vectors @ vectors.T
    np.testing.assert_allclose(likeness[0, 3], 1)
    assert 0 < likeness[0, 1] < 1
    assert not vectors[2].any()
    assert field_vectors(Catalogue(frame.select("item_id", "title"))) is None
    assert field_vectors(Catalogue(frame.select("item_id", "title", "asin"))) is None


def test_weights_are_the_likeliest():
    rng = np.random.default_rng(1)
    sizes = rng.integers(4, 9, size=60)
    scale = np.array([0.1, 1.0, 30.0])
    rows = [(rng.normal(size=(size, 3)) * scale, int(rng.integers(size))) for size in sizes]
    first = np.cumsum([0, *sizes[:-1]])
    found = fit(
        Candidates(
            torch.from_numpy(np.repeat(np.arange(60), sizes)),
            torch.from_numpy(np.concatenate([values for values, _ in rows])).float(),
            torch.from_numpy(first + np.array([truth for _, truth in rows])),
        )
    )
    np.testing.assert_allclose(found.numpy() * scale, naive_weights(rows, 1e-3) * scale, atol=2e-3)


def test_only_the_best_candidates_are_kept_and_rows_that_still_hold_the_truth():
    values = torch.tensor([[1.0], [5.0], [3.0], [2.0], [9.0], [8.0], [7.0], [4.0]])
    owner = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    every = Candidates(owner, values, torch.tensor([2, 3, 6]))  # places 1, 2 and 0 of their rows
    kept = best_of(every, torch.tensor([1.0]), 2)
    assert kept.owner.tolist() == [0, 0, 1, 1]
    assert kept.values[:, 0].tolist() == [5.0, 3.0, 7.0, 4.0]
    assert kept.truth.tolist() == [1, 2]
    turned = best_of(every, torch.tensor([-1.0]), 1)
    assert (turned.owner.tolist(), turned.values[:, 0].tolist(), turned.truth.tolist()) == ([0], [2.0], [0])
    nobody = Candidates(owner[:3], values[:3], torch.tensor([0]))
    assert best_of(nobody, torch.tensor([1.0]), 1) is nobody


def test_what_tells_the_truth_is_trusted(walks):
    rng = np.random.default_rng(0)
    table = torch.from_numpy(rng.normal(size=(walks.item_count, walks.item_count))).float()
    ring = torch.eye(walks.item_count).roll(1, 1) + torch.eye(walks.item_count).roll(
        2, 1
    )  # how the users walk

    def newest(history):
        return history[np.arange(len(history)), (history >= 0).sum(1) - 1]

    scorers = {
        "truth": lambda history: 5 * ring[newest(history)],
        "noise": lambda history: table[newest(history)],
    }
    low, more = learn_weights(Signals(walks, scorers=scorers))["truth"]
    assert min(low, low + more) > 0.3
    plain = learn_weights(Signals(walks, scorers=scorers, without=["evidence"]))
    assert plain["truth"][0] > 0.3
    assert abs(plain["noise"][0]) < 0.3
    assert {added for _, added in plain.values()} == {0.0}


def test_a_signal_is_trusted_where_it_is_right(walks):
    """A scorer that names the true item where much is known, and anything else where little is."""
    signals = Signals(walks, scorers={"late": lambda history: torch.zeros(len(history), walks.item_count)})
    told = {}

    def late(history):
        found = torch.randn(len(history), walks.item_count, generator=torch.Generator().manual_seed(0))
        for n, e in enumerate(signals.evidence(history)):
            item = told.get(tuple(history[n].tolist()))
            if item is not None and e > 0.5:
                found[n, item] += 6
        return found

    rows = walks.rows("valid")
    told |= {
        tuple(h): t
        for h, t in zip(walks.histories(rows, 50).tolist(), walks.targets(rows).tolist(), strict=True)
    }
    signals.scorers["late"] = late
    assert 0 < (signals.evidence(walks.histories(rows, 50)) > 0.5).float().mean() < 1
    low, more = learn_weights(signals)["late"]
    assert more > 0.5
    assert low + more > 2 * abs(low)


@pytest.mark.parametrize("options", [SignalOptions(), SignalOptions(backward=1.0)])
def test_evidence_is_what_is_known_without_the_row(shop, options):
    signals = Signals(shop, options=options)
    rows = np.concatenate([base.rows_to_teach(shop, ["train"])[::5], shop.rows("test")[::5]])
    history = shop.histories(rows, 12)
    found = signals.evidence(history, rows)
    for n, row in enumerate(rows):
        event = shop.row_events[row]
        expected = naive_evidence(
            shop,
            shop.events[event - 1],
            options,
            event if shop.is_train(rows[n : n + 1]) or shop.row_splits[row] == 3 else None,
        )
        assert found[n] == pytest.approx(expected), row
    whole = signals.evidence(history)
    assert (whole >= found).all()
    assert (whole > found).any()
    assert found.min() >= 0
    assert found.max() <= 1


def test_the_teacher_writes_checked_knowledge_and_beats_its_parts(shop, text):
    teacher = BlendTeacher({"random": text}, item_embeddings=text, encoder="random")
    rows, done = base.rows_to_teach(shop), []
    known = teacher.teach(shop, rows, top_k=10, progress=done.append)
    known.check(shop.targets(rows))
    assert sum(done) == len(rows) == len(known.row_ids)
    assert known.manifest["teacher"] == "blend"
    assert known.manifest["weights"] == {name: list(pair) for name, pair in teacher.weights.items()}
    scorer = BlendScorer(Signals(shop, {"random": text}), teacher.weights)
    history = shop.histories(rows, 50)
    scores = scorer.score_rows(rows, history) / teacher.temperature
    expected = -scores.log_softmax(1)[np.arange(len(rows)), shop.targets(rows)]
    np.testing.assert_allclose(known.target_distance, expected, atol=1e-4)
    valid = shop.rows("valid")
    evidence = scorer.signals.evidence(shop.histories(valid, 50), valid)[:, None]
    trust = {name: low + more * evidence for name, (low, more) in teacher.weights.items()}  # (B, 1)
    by_hand = sum(trust[name] * values for name, values in scorer.signals(shop.histories(valid, 50), valid))
    torch.testing.assert_close(scorer(shop.histories(valid, 50)), by_hand)

    def surprise(values):
        return float(-values.log_softmax(1)[np.arange(len(valid)), shop.targets(valid)].mean())

    whole = surprise(by_hand)
    for name, values in scorer.signals(shop.histories(valid, 50), valid):
        assert whole < surprise(trust[name] * values), name


def test_a_blend_is_built_again_from_its_manifest(shop, text):
    teacher = BlendTeacher({"hub/encoder": text}, SignalOptions(decay=0.5), without=["step 2", "fields"])
    first = teacher.scorer(shop)
    assert "encoder" in teacher.weights
    known = teacher.teach(shop, shop.rows("valid"), top_k=5, scorer=first)
    again = scorer_from(known.manifest, shop, {"hub/encoder": text})
    history = shop.histories(shop.rows("test"), 9)
    torch.testing.assert_close(again(history), first(history))
    weights = {**known.manifest["weights"], "student 1": [1.0, 0.0]}
    with pytest.raises(ConfigError, match="student 1"):
        scorer_from({**known.manifest, "weights": weights}, shop, {"hub/encoder": text})


def test_encoders_of_one_name_are_told_apart(walks, text):
    names = Signals(walks, {"a/model": text, "b/model": text, "c/other": text}).names
    assert {"a/model", "b/model", "other"} < set(names)


def test_items_of_the_history_come_last_where_nobody_buys_twice(walks, text):
    scorer = BlendTeacher({"t": text}).scorer(walks)
    history = walks.histories(walks.rows("valid"), 12)
    kept = BlendScorer(scorer.signals, scorer.weights)(history)
    dropped = BlendScorer(scorer.signals, scorer.weights, repeats=False)(history)
    assert not torch.equal(kept, dropped)
    for n, one in enumerate(history):
        items = torch.from_numpy(one[one >= 0])
        assert (dropped[n, items] == dropped[n].min()).all()
        others = torch.ones(walks.item_count, dtype=torch.bool).index_fill(0, items, value=False)
        torch.testing.assert_close(dropped[n, others], kept[n, others])


def test_a_blend_needs_validation_rows(make_dataset):
    with pytest.raises(DataError, match="teach graph --no-tune"):
        BlendTeacher().teach(make_dataset([[0, 1]]), np.array([0]))


@pytest.mark.parametrize("wrong", [{"decay": 0.0}, {"last_items": 0}, {"backward": -1.0}, {"decay": 1.5}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="teach blend"):
        SignalOptions(**wrong)
