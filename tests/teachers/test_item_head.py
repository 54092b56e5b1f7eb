"""The item-head teacher on tiny Llamas; formulas against naive versions, behaviour on a ring of items."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, KnowledgeError, RunError, TrainingError
from recdistill.knowledge import load_knowledge
from recdistill.teachers import base
from recdistill.teachers.item_head import training as item_head_training
from recdistill.teachers.item_head.judging import TEMPERATURES, queries_of, temperature
from recdistill.teachers.item_head.model import (
    ItemHeadModel,
    choose_tuning,
    decoder_of,
    tuned_decoder,
)
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.plan import Plan, item_tokens, segments
from recdistill.teachers.item_head.space import joint_space, listed_mass
from recdistill.teachers.item_head.teacher import ItemHeadTeacher
from recdistill.teachers.item_head.training import ItemHeadTraining, know
from recdistill.teachers.order import ORDER
from recdistill.teachers.text.item_text import encode_text
from recdistill.types import PAD
from shop import ITEMS, ring_dataset

WORDS = 64
QUICK = ItemHeadOptions(
    folds=2, epochs=3, patience=3, batch_tokens=120, id_size=8, head_size=8, dropout=0.1, learning_rate=0.03,
    lm_learning_rate=0.01, max_items=8,
)  # fmt: skip


def words(text, *, bos=True):
    """A tokenizer of the tests: one token a word."""
    return [1] * bos + [2 + sum(map(ord, word)) % (WORDS - 2) for word in text.split()]


def tiny_lm(seed=0):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    return SimpleNamespace(name="tiny", fingerprint=f"tiny {seed}", model=model, encode=words)


@pytest.fixture(scope="module")
def ring():
    return ring_dataset(users=50, length=12, noise=0.05)


@pytest.fixture(scope="module")
def text(ring):
    return encode_text(ring.catalogue.titles, size=16).whitened(12)


def make_model(text=None, tune="full", *, items=ITEMS, **options):
    decoder = tuned_decoder(decoder_of(tiny_lm().model), tune, rank=2)
    given = None if text is None else torch.from_numpy(text)
    return ItemHeadModel(decoder, given, items, id_size=8, head_size=8, **options)


def plan_of(dataset, rows, length=8, *, texts=None, soft=True, prefix=()):
    return Plan.of(
        dataset, segments(texts, dataset.item_count, WORDS, soft=soft, prefix=prefix), rows, length
    )


# --- rows to passes ---------------------------------------------------------------------------------------


def naive_pieces(dataset, rows, length):
    """Row -> (first event, last known event) by eq. 1, one row at a time."""
    stride, found = max(1, length // 2), {}
    for row in rows.tolist():
        start = int(dataset.offsets[dataset.row_sequences[row]])
        last = int(dataset.row_events[row]) - 1 - start
        piece = 0
        while last > piece * stride + length - 1:
            piece += 1
        found[row] = (start + piece * stride, start + last)
    return found


@pytest.mark.parametrize("length", [1, 2, 3, 5, 50])
def test_every_row_is_answered_once_after_its_last_known_item(ring, length):
    rows = base.rows_to_teach(ring)
    texts = [[7] * (i % 3) for i in range(ITEMS)]
    plan = plan_of(ring, rows, length, texts=texts, prefix=[1, 5])
    naive = naive_pieces(ring, rows, length)
    found = []
    for pieces in plan.in_order(40):
        batch = plan.batch(pieces)
        assert batch.tokens.size <= 40 or len(pieces) == 1
        width = batch.tokens.shape[1]
        for end, row in zip(batch.ends, batch.rows, strict=True):
            first, last = naive[row]
            expected = [1, 5]
            for item in ring.events[first : last + 1]:
                expected += [*texts[item], WORDS + item]
            line, column = divmod(end, width)
            assert batch.tokens[line, : column + 1].tolist() == expected
            found.append(row)
    assert sorted(found) == rows.tolist()


def test_a_row_sees_half_the_window_at_least_whoever_is_asked_with_it(ring):
    rows = base.rows_to_teach(ring)
    together, alone = naive_pieces(ring, rows, 6), plan_of(ring, rows[-1:], 6)
    for row, (first, last) in together.items():
        known = int(ring.history_lengths(np.array([row]))[0])
        assert last - first + 1 >= min(known, 4)
    assert alone.starts[0] == together[int(rows[-1])][0]


def test_shuffled_batches_hold_every_piece_once(ring):
    plan = plan_of(ring, ring.rows("train"), 4)
    batches = plan.shuffled(30, np.random.default_rng(0))
    assert sorted(np.concatenate(batches)) == list(range(len(plan.starts)))
    assert max(len(b) * plan.widths[b].max() for b in batches if len(b) > 1) <= 30
    assert any(
        a.tolist() != b.tolist()
        for a, b in zip(batches, plan.shuffled(30, np.random.default_rng(1)), strict=False)
    )


def test_no_validation_or_test_answer_is_read_in_training(ring):
    train = ring.rows("train", prefixes=True)
    plan = plan_of(ring, train)
    last = np.zeros(len(ring.offsets) - 1, dtype=np.int64)
    np.maximum.at(last, ring.row_sequences[train], ring.row_events[train])
    ends = plan.starts + plan.counts  # first event that is not read
    owner = np.searchsorted(ring.offsets, plan.starts, side="right") - 1
    assert (ends <= last[owner]).all()


def test_titles_become_tokens_and_an_item_without_title_its_soft_token():
    lists = item_tokens(["a b c", ""], lambda t: words(t, bos=False), '"{title}", ', 2)
    assert [len(line) for line in lists] == [2, 0]
    tokens = segments(lists, 2, WORDS, soft=False)
    assert tokens.lengths.tolist() == [2, 1]
    assert tokens.tokens[-1] == WORDS + 1


# --- the model --------------------------------------------------------------------------------------------


def test_soft_tokens_and_head_follow_their_equations(text):
    model = make_model(text).eval()
    with torch.no_grad():
        model.head_free.normal_()
    read, answered = torch.arange(ITEMS) % 2 == 0, torch.arange(ITEMS) % 3 == 0
    model.know(read, answered)
    z = torch.from_numpy(text) / np.sqrt((text[text.any(1)] ** 2).mean())
    for item in range(4):
        token = model.input_text.weight @ z[item]
        output = model.head_text.weight @ z[item]
        if read[item]:
            token = token + model.input_map.weight @ model.input_free[item]
        if answered[item]:
            output = output + model.head_free[item]
        torch.testing.assert_close(model.items(torch.tensor([item]))[0], token)
        torch.testing.assert_close(model.table()[item], output)
        torch.testing.assert_close(model.table(torch.tensor([item]))[0], output)
    tokens = torch.tensor([[3, WORDS + 4, WORDS + 5, PAD]])
    given = torch.cat([model.decoder.embed_tokens.weight[[3]], model.items(torch.tensor([4, 5]))])
    hidden = model.decoder(inputs_embeds=given[None]).last_hidden_state[0, -1]
    query = model(tokens, torch.tensor([2]))[0]
    torch.testing.assert_close(query[:-1], model.query_map(hidden))
    assert query[-1] == 1


def test_later_items_and_padding_never_change_an_answer(ring, text):
    model = make_model(text)
    rows = ring.rows("train")
    plan = plan_of(ring, rows, 50)
    apart = {}
    for piece in range(len(plan.starts)):
        for row, query in zip(*queries_of(model, plan, np.array([piece]), QUICK), strict=True):
            apart[row] = query
    for pieces in plan.in_order(10**6):  # all of them in one batch
        for row, query in zip(*queries_of(model, plan, pieces, QUICK), strict=True):
            torch.testing.assert_close(query, apart[row], atol=1e-5, rtol=1e-4)
    for row in rows[:6]:  # each row by itself: nothing later is there at all
        alone = plan_of(ring, np.array([row]), 50)
        torch.testing.assert_close(
            queries_of(model, alone, np.array([0]), QUICK)[1][0], apart[row], atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("tune", ["full", "lora", "frozen"])
@pytest.mark.parametrize("history", ["items", "both"])
def test_gradient_reaches_what_is_trained_and_nothing_else_moves(ring, text, tune, history):
    if tune == "lora":
        pytest.importorskip("peft")
    model = make_model(text, tune, dropout=0.0, id_dropout=0.0)
    if tune == "lora":  # B starts at 0, and A has a gradient only where B is not
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
    texts = None if history == "items" else [words(t, bos=False) for t in ring.catalogue.titles]
    plan = plan_of(ring, ring.rows("train"), texts=texts)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    training = ItemHeadTraining(model, plan, plan_of(ring, ring.rows("valid")), QUICK, folder=None)
    training._step(np.arange(12))
    with torch.no_grad():
        model.head_free += 0.1 * torch.randn_like(model.head_free)
    training._step(np.arange(12))
    unread = {"decoder.embed_tokens.weight"} if history == "items" else set()
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == (parameter.requires_grad and name not in unread), name
    own = [p for name, p in model.named_parameters() if name.startswith("decoder.")]
    assert any(p.requires_grad for p in own) == (tune != "frozen")


def test_lora_trains_little_and_names_wrong_targets():
    pytest.importorskip("peft")
    decoder = tuned_decoder(decoder_of(tiny_lm().model), "lora", rank=2, targets="q_proj, v_proj")
    trained = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2 * 2
    assert all("lora" in name and ("q_proj" in name or "v_proj" in name) for name in trained)
    with pytest.raises(ConfigError, match="--lora-targets"):
        tuned_decoder(decoder_of(tiny_lm().model), "lora", targets="no_such_module")


def test_small_models_are_trained_whole_by_default():
    decoder = decoder_of(tiny_lm().model)
    assert choose_tuning("auto", decoder) == "full"
    big = torch.nn.Linear(1, 50_000_001, bias=False, device="meta")
    assert choose_tuning("auto", big) == "lora"
    with pytest.raises(ConfigError, match="Did you mean"):
        choose_tuning("loras", decoder)
    with pytest.raises(ConfigError, match="lm train"):
        decoder_of(torch.nn.Linear(2, 2))


# --- the loss ---------------------------------------------------------------------------------------------


def naive_loss(model, query, targets, answers):
    scores = torch.stack([query @ model.table()[i] for i in answers], 1)
    own = torch.stack([query[s] @ model.table()[t] for s, t in enumerate(targets)])
    return (scores.exp().sum(1).log() - own).mean()


def test_the_loss_is_the_softmax_over_items_that_are_answers(ring, text):
    model = make_model(text, dropout=0.0, id_dropout=0.0)
    plan = plan_of(ring, ring.rows("train")[:30])
    answers, place = know(model, plan)
    targets = ring.targets(plan.rows)
    assert answers.tolist() == sorted(set(targets))
    assert (answers[place[torch.from_numpy(targets)]].numpy() == targets).all()
    assert model.answered[:, 0].nonzero()[:, 0].tolist() == answers.tolist()
    read = {item for row in plan.rows for item in ring.histories(np.array([row]), 8)[0] if item != PAD}
    assert set(model.read[:, 0].nonzero()[:, 0].tolist()) == read
    training = ItemHeadTraining(model, plan, plan_of(ring, ring.rows("valid")), QUICK, folder=None)
    query = torch.cat([torch.randn(30, 8), torch.ones(30, 1)], 1)
    whole = naive_loss(model, query, targets, answers)
    where = place[torch.from_numpy(targets)]
    torch.testing.assert_close(training._loss(query, where), whole, atol=1e-5, rtol=1e-4)
    training.options = ItemHeadOptions(negatives=7)
    torch.manual_seed(0)
    drawn = training._loss(query, where)
    torch.manual_seed(0)
    sample = answers[torch.randint(len(answers), (7,))].tolist()
    losses = []
    for vector, target in zip(query, targets, strict=True):
        score = [(vector @ model.table()[i]).item() for i in (target, *sample)]
        others = (
            (len(answers) - 1)
            / 7
            * sum(np.exp(s) for i, s in zip(sample, score[1:], strict=True) if i != target)
        )
        losses.append(np.log(np.exp(score[0]) + others) - score[0])
    assert drawn.item() == pytest.approx(np.mean(losses), abs=1e-4)


def test_id_dropout_leaves_text_alone(text):
    model = make_model(text, id_dropout=1.0)
    with torch.no_grad():
        model.head_free.normal_()
    torch.testing.assert_close(model.train().table(), model.head_text(model.text))
    assert not torch.allclose(model.eval().table(), model.head_text(model.text))


def test_a_loss_that_is_not_finite_says_what_to_try(ring, text, tmp_path):
    model = make_model(text)
    with torch.no_grad():
        model.query_map.weight.fill_(torch.inf)
    plan = plan_of(ring, ring.rows("train"))
    with pytest.raises(TrainingError, match="--learning-rate"):
        ItemHeadTraining(model, plan, plan, QUICK, tmp_path).fit()


# --- one space --------------------------------------------------------------------------------------------


def test_the_joint_space_keeps_every_score():
    torch.manual_seed(0)
    heads = [torch.randn(30, 4), torch.randn(30, 4), torch.randn(30, 4)]
    axes, items = joint_space(heads)
    assert items.shape == (30, 12)
    for head, own in zip(heads, axes, strict=True):
        query = torch.randn(5, 4)
        torch.testing.assert_close((query @ own) @ items.T, query @ head.T, atol=1e-4, rtol=1e-4)
    spread = items.square().sum(0)
    assert (spread[:-1] >= spread[1:] - 1e-3).all()


def test_heads_that_give_the_same_scores_give_the_same_query():
    torch.manual_seed(0)
    head, turn = torch.randn(30, 4), torch.linalg.qr(torch.randn(4, 4))[0]
    (first, second), items = joint_space([head, head @ turn])
    query = torch.randn(6, 4)
    one, other = query @ first, (query @ turn) @ second
    torch.testing.assert_close(one @ items.T, other @ items.T, atol=1e-4, rtol=1e-4)
    strong = items.square().sum(0) > 1e-6  # four directions carry all scores
    assert int(strong.sum()) == 4
    torch.testing.assert_close(one[:, strong], other[:, strong], atol=1e-3, rtol=1e-3)


# --- the teacher ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(ring, text, tmp_path_factory):
    """A teacher that has answered the ring, its folder and its knowledge."""
    out = tmp_path_factory.mktemp("item-head") / "k"
    teacher = ItemHeadTeacher(tiny_lm(), text, QUICK, encoder="tfidf", instruction="next item")
    done = []
    rows = base.rows_to_teach(ring)
    known = teacher.teach(ring, rows, out=out, top_k=15, progress=done.append)
    assert sum(done) == len(rows)
    return teacher, out, known


def test_the_ring_is_learned(ring, taught):
    known = taught[2]
    valid = np.isin(known.row_ids, ring.row_ids[ring.rows("valid")])
    assert (known.target_rank[valid] < 3).mean() > 0.5  # 3 of 40 by chance: .075
    assert known.manifest[ORDER]["drop"] > 0.1  # where a walk stands is told by its last item
    train = np.isin(known.row_ids, ring.row_ids[ring.rows("train", prefixes=True)])
    assert (known.target_rank[train] < 3).mean() > 0.5  # of models that never saw the sequence


def test_the_answers_are_those_of_the_embeddings(ring, taught):
    known = load_knowledge(taught[1], ring, check=True)
    assert known.metric == "dot"
    assert known.manifest["model"] == "tiny"
    assert known.manifest["options"]["tune"] == "full"
    assert set(known.manifest["models"]) == {"full", "fold-0", "fold-1"}
    assert any(
        best["temperature"] != 1 for best in known.manifest["models"].values()
    )  # else it proves nothing
    scores = known.query_embeddings.astype(np.float32) @ known.item_embeddings.T
    loss = -torch.from_numpy(scores).log_softmax(1).numpy()
    targets = ring.targets(ring.positions_of(known.row_ids))
    own = loss[np.arange(len(loss)), targets]
    np.testing.assert_allclose(known.target_distance, own, atol=1e-4)
    np.testing.assert_allclose(known.ranking_distance, np.sort(loss, axis=1)[:, :15], atol=1e-4)
    assert np.abs(known.target_rank - (loss <= own[:, None]).sum(1) + 1).max() <= 1  # rounding may turn a tie
    mass = listed_mass(known)
    np.testing.assert_allclose(mass, np.exp(-np.sort(loss, axis=1)[:, :15]).sum(1), atol=1e-4)
    assert (mass <= 1 + 1e-6).all()


def test_each_row_is_answered_by_the_model_that_may(ring, taught):
    teacher, out, known = taught
    shares = teacher.shares(ring)
    answered = np.stack([answers for _, answers in shares.values()])
    assert (answered.sum(0) == 1).all()
    for name, share in shares.items():
        train, answers = share
        assert not answers[train].any()
        if name != "full":
            owners = set(ring.row_sequences[train])
            assert not owners & set(ring.row_sequences[np.flatnonzero(answers)])
            assert (ring.row_splits[answers] != 1).all()
            assert (ring.row_splits[answers] != 2).all()
        model, result = teacher._trained(ring, name, share, out, None)
        rows = np.flatnonzero(answers)
        held = base.some_rows(ring.rows("valid") if name == "full" else rows, 2048)
        assert result["temperature"] == temperature(
            model, Plan.of(ring, teacher.parts.segments(ring), held, 8), QUICK
        )
        plan = Plan.of(ring, teacher.parts.segments(ring), rows, QUICK.max_items)
        order, queries = queries_of(model, plan, np.arange(len(plan.starts)), QUICK)
        scores = (queries @ model.table().T / result["temperature"]).detach()[
            torch.from_numpy(np.argsort(order))
        ]
        torch.testing.assert_close(
            known.score(ring.row_ids[rows]), scores, atol=0.03, rtol=0.01
        )  # float16 queries


def test_the_temperature_makes_validation_rows_likeliest(ring, text):
    model = make_model(text).eval()
    with torch.no_grad():
        model.head_free.normal_(std=3)
    plan = plan_of(ring, ring.rows("valid"))
    rows, queries = queries_of(model, plan, np.arange(len(plan.starts)), QUICK)
    scores, targets = queries @ model.table().T, torch.from_numpy(ring.targets(rows))
    losses = [torch.nn.functional.cross_entropy(scores / tau, targets).item() for tau in TEMPERATURES]
    assert temperature(model, plan, QUICK) == TEMPERATURES[int(np.argmin(losses))] > 1
    assert temperature(model, plan_of(ring, ring.rows("valid")[:0]), QUICK) == 1


def test_a_fold_starts_anew_whatever_was_trained_before(ring, text, taught, tmp_path):
    teacher = ItemHeadTeacher(tiny_lm(), text, QUICK, encoder="tfidf", instruction="next item")
    teacher._trained(ring, "fold-1", teacher.shares(ring)["fold-1"], tmp_path, None)
    first, later = (folder / "models" / "fold-1" / "best.safetensors" for folder in (tmp_path, taught[1]))
    assert first.read_bytes() == later.read_bytes()


def test_the_rate_rises_then_falls_over_all_epochs(ring, text, tmp_path):
    plan, rates = plan_of(ring, ring.rows("train")), []
    options = ItemHeadOptions(**{**vars(QUICK), "warmup": 0.3, "batch_tokens": 30})
    training = ItemHeadTraining(make_model(text), plan, plan_of(ring, ring.rows("valid")), options, tmp_path)
    training.on_step = lambda *_: rates.append([group["lr"] for group in training.optimiser.param_groups])
    training.fit()
    found = np.array(rates)  # (steps, groups)
    peak = int(found[:, 0].argmax())
    assert (peak + 1) / len(found) == pytest.approx(0.3, abs=0.1)
    assert (np.diff(found[:peak], axis=0) > 0).all()
    assert (np.diff(found[peak:], axis=0) < 0).all()
    assert set(found.max(0).round(3)) == {0.01, 0.03}
    left = 0.1 + 0.9 / (0.7 * len(found))  # one step before the end
    assert found[-1] == pytest.approx(found.max(0) * left, rel=0.1)


def test_histories_are_scored_as_their_rows_are(ring, taught):
    teacher, out, known = taught
    rows = ring.rows("valid")
    scores = teacher.scorer(ring, out)(ring.histories(rows, 50))
    torch.testing.assert_close(scores, known.score(ring.row_ids[rows]), atol=0.03, rtol=0.01)


def test_a_cold_item_is_found_by_its_text(ring, text, tmp_path):
    """Item 20 stands where 20 did on the ring, but its events are taken out of training."""
    cold = 20
    train = ring.rows("train", prefixes=True)
    shown = (ring.histories(train, 50) == cold).any(1) | (ring.targets(train) == cold)
    touched = np.unique(ring.row_sequences[train[shown]])
    kept = ~np.isin(ring.row_sequences, touched) | np.isin(ring.row_splits, (1, 2))
    fewer = SequenceDataset(
        ring.catalogue, ring.events, ring.offsets, ring.row_ids[kept], ring.row_events[kept],
        ring.row_sequences[kept], ring.row_splits[kept], ring.provenance,
    )  # fmt: skip
    angles = 2 * np.pi * np.arange(ITEMS)[:, None] / ITEMS * np.arange(1, 4)
    place = np.concatenate([np.cos(angles), np.sin(angles)], 1).astype(np.float32)  # neighbours read alike
    options = ItemHeadOptions(**{**vars(QUICK), "epochs": 8, "patience": 8, "folds": 1, "id_dropout": 0.8})
    teacher = ItemHeadTeacher(tiny_lm(), place, options)
    known = teacher.teach(fewer, base.rows_to_teach(fewer), out=tmp_path / "k", top_k=5)
    model, _ = teacher._trained(fewer, "full", teacher.shares(fewer)["full"], tmp_path / "k", None)
    assert model.answered[cold] == 0
    assert known.manifest["items_without_training_events"] >= 1
    scores = teacher.scorer(fewer, tmp_path / "k")(np.array([[16, 17, 18, 19], [3, 4, 5, 6]]))
    ranks = (scores > scores[:, [cold]]).sum(1)
    assert ranks[0] < 8 < ranks[1]


@pytest.mark.parametrize("history", ["titles", "both"])
def test_titles_can_be_read_as_words(ring, text, tmp_path, history):
    options = ItemHeadOptions(
        **{**vars(QUICK), "epochs": 2, "folds": 1, "history": history, "batch_tokens": 400}
    )
    teacher = ItemHeadTeacher(tiny_lm(), text, options)
    tokens = teacher.parts.segments(ring).tokens
    assert (tokens >= WORDS).any() == (history == "both")
    rows = ring.rows("valid")
    known = teacher.teach(ring, rows, out=tmp_path / "k", top_k=5)
    assert (known.target_rank < 5).mean() > 2 * 5 / ITEMS


class Killed(BaseException):
    """Stands for a signal: no handler of the code under test catches it."""


def stop_after(count):
    left = [count]

    def hear(*_):
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return hear


def test_killed_anywhere_and_restarted_gives_the_same_file(ring, text, taught, tmp_path, monkeypatch):
    monkeypatch.setattr(item_head_training, "_CHECKPOINT_SECONDS", 0.0)  # a state after every step
    monkeypatch.setattr("recdistill.teachers.item_head.answers._SHARD_ROWS", 64)
    rows, kills = base.rows_to_teach(ring), 0
    for training, answering in [(5, 99), (14, 99), (99, 0), (99, 2), (99, 3), (99, 3), (99, 99)]:
        teacher = ItemHeadTeacher(tiny_lm(), text, QUICK, encoder="tfidf", instruction="next item")
        torch.manual_seed(training + answering)  # another process has another global state
        try:
            teacher.teach(
                ring, rows, out=tmp_path / "k", top_k=15,
                on_step=stop_after(training), progress=stop_after(answering),
            )  # fmt: skip
        except Killed:
            kills += 1
    assert kills == 6
    found, whole = ((folder / "knowledge.safetensors").read_bytes() for folder in (tmp_path / "k", taught[1]))
    assert found == whole


def test_a_folder_of_other_settings_is_refused(ring, text, taught):
    other = ItemHeadTeacher(tiny_lm(), text, QUICK, seed=1, encoder="tfidf", instruction="next item")
    with pytest.raises(KnowledgeError, match="other settings"):
        other.teach(ring, ring.rows("valid"), out=taught[1], top_k=15)


def test_a_damaged_state_is_named(ring, text, tmp_path):
    folder = tmp_path / "k" / "models" / "full"
    folder.mkdir(parents=True)
    (folder / "last.safetensors").write_bytes(b"cut")
    teacher = ItemHeadTeacher(tiny_lm(), text, QUICK)
    with pytest.raises(RunError, match="run the same command again"):
        teacher.teach(ring, ring.rows("valid"), out=tmp_path / "k")


def test_small_data_gets_small_steps(ring, text, make_dataset):
    teacher = ItemHeadTeacher(tiny_lm(), text, ItemHeadOptions())
    teacher.parts.choose_batch(ring, ring.rows("train", prefixes=True))
    assert teacher.options.batch_tokens == 256
    long = make_dataset([list(range(40))] * 600)
    teacher = ItemHeadTeacher(tiny_lm(), text, ItemHeadOptions())
    teacher.parts.choose_batch(long, long.rows("train", prefixes=True))
    # the last two of 40 are held out, 37 precede the last training answer, and each history has a begin token
    assert teacher.options.batch_tokens == 600 * (37 + 1) // 64


def test_histories_longer_than_the_model_reads_are_refused(ring, text, tmp_path):
    lm = tiny_lm()
    lm.model.config.max_position_embeddings = 6
    with pytest.raises(ConfigError, match="--max-items"):
        ItemHeadTeacher(lm, text, QUICK).teach(ring, ring.rows("valid"), out=tmp_path / "k")


def test_without_training_rows_there_is_no_teacher(ring, text, tmp_path):
    kept = ring.row_splits != 0
    bare = SequenceDataset(
        ring.catalogue, ring.events, ring.offsets, ring.row_ids[kept], ring.row_events[kept],
        ring.row_sequences[kept], ring.row_splits[kept], ring.provenance,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="no training row"):
        ItemHeadTeacher(tiny_lm(), text, QUICK).teach(bare, bare.rows("valid"), out=tmp_path / "k")


@pytest.mark.parametrize(
    "wrong", [{"folds": 0}, {"history": "item"}, {"dropout": 1.0}, {"precision": "fp8"}, {"negatives": -1}]
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match="Allowed"):
        ItemHeadOptions(**wrong)


def test_mass_needs_log_probabilities(ring):
    known = base.knowledge_from_scorer(
        lambda rows, history: torch.zeros(len(rows), ITEMS), ring, ring.rows("valid"), length=1, top_k=3
    )
    with pytest.raises(ConfigError, match="item-head"):
        listed_mass(known)
