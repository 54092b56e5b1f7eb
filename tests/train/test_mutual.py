"""Mutual teaching on tiny Llamas and a ring of items: formulas against naive versions, phases, resuming."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from recdistill.errors import ConfigError, RunError
from recdistill.export import Recommender, fold
from recdistill.item_encoders import ITEM_ENCODERS, Ids
from recdistill.knowledge import load_knowledge
from recdistill.losses import CE
from recdistill.runs import file_checksum
from recdistill.students import STUDENTS, SequenceModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.partner import ItemHeadPartner
from recdistill.teachers.training_state import trainable
from recdistill.train import TrainOptions
from recdistill.train.mutual import (
    MutualOptions,
    Partner,
    Quiet,
    RankWeights,
    StudentSide,
    mutual,
    rank_gap_weights,
    round_folders,
)
from recdistill.train.mutual.held_out import held_out_ranks, last_rows
from recdistill.train.mutual.student import answers_of
from recdistill.train.mutual.term import term_of
from recdistill.train.mutual.weights import ranks_now
from recdistill.types import Batch, KnowledgeRows, StudentOutput, Task
from shop import ITEMS, ring_dataset

SPEC = {
    "student": "sasrec",
    "options": {"embedding_size": 16, "variant": "modern", "max_length": 8, "dropout": 0.1, "blocks": 1},
}
TEACHER = ItemHeadOptions(
    epochs=2, patience=2, batch_tokens=64, head_size=8, dropout=0.1, learning_rate=0.02, lm_learning_rate=0.01,
    max_items=8,
)  # fmt: skip
QUICK = MutualOptions(rounds=2, top_m=10)


def llama(seed=0):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    return SimpleNamespace(
        name="tiny", fingerprint=f"tiny {seed}", model=model, encode=lambda text, bos=True: [1] * bos
    )


@pytest.fixture(scope="module")
def ring():
    return ring_dataset(users=40, length=10, noise=0.05)


def student_side(epochs=2, rate=5e-3):
    def make():
        torch.manual_seed(0)
        table = Ids(ITEMS, 16)
        return SequenceModel(STUDENTS["sasrec"](**SPEC["options"]), table, table, bias=False)

    options = TrainOptions(epochs=epochs, patience=epochs, learning_rate=rate, metric="ndcg@10")
    return StudentSide(make, CE, SPEC, options, supervision="all", length=8, batch_size=16)


def teach(ring, out, options=QUICK, *, listener=None, side=None, seen=None):
    """Carry out the rounds; the language model's side goes into the list `seen`."""

    def make_teacher(vectors):
        partner = ItemHeadPartner(llama(), vectors, None, TEACHER)
        if seen is not None:
            seen.append(partner)
        return partner

    return mutual(
        ring, side or student_side(), make_teacher, out=out, options=options, facts={}, listener=listener
    )


@pytest.fixture(scope="module")
def whole(ring, tmp_path_factory):
    out = tmp_path_factory.mktemp("mutual") / "r"
    return out, teach(ring, out, replace(QUICK, keep_answers=True))


# --- weights ----------------------------------------------------------------------------------------------


def naive_weight(own, other):
    gap = 1 + (own - other) / max(other, 1) if own > other else 1 - (other - own) / max(own, 1)
    return min(2.0, max(0.0, gap))


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (1, 1, 1), (1, 2, 0), (2, 1, 2), (10, 12, 0.8), (12, 10, 1.2), (100, 150, 0.5), (150, 100, 1.5),
        (5, 100, 0), (100, 5, 2),
    ],
)  # fmt: skip
def test_weights_of_the_table(own, other, expected):
    found = rank_gap_weights(torch.tensor([own]), torch.tensor([other]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_both_weights_add_up_to_two_and_stay_between_zero_and_two():
    own, other = (torch.randint(1, 500, (4000,), generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    first, second = rank_gap_weights(own, other), rank_gap_weights(other, own)
    torch.testing.assert_close(first + second, torch.full_like(first, 2.0))
    assert first.min() == 0
    assert first.max() == 2
    expected = [naive_weight(a, b) for a, b in zip(own.tolist(), other.tolist(), strict=True)]
    torch.testing.assert_close(first, torch.tensor(expected))


def output_of(scores):
    """Return a student's answer whose scores are the ``(S, I)`` given, as an inner product with the identity."""
    return StudentOutput(scores, torch.eye(scores.shape[1]), None, lambda items: items)


def test_a_step_ranks_as_counting_does():
    scores = torch.randint(0, 6, (7, 9)).float()  # ties
    targets = torch.tensor([0, 1, 2, 3, 4, 5, 8])
    expected = [sum(v >= row[t] for v in row) for row, t in zip(scores.tolist(), targets, strict=True)]
    assert ranks_now(output_of(scores), targets).tolist() == expected


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_live_ranks_are_counted_where_all_items_are_scored(monkeypatch, temperature):
    torch.manual_seed(0)
    scores, ids = torch.randn(6, 20), np.arange(6)
    logs = torch.randn(6, 20).log_softmax(1)
    best, items = logs.topk(5, dim=1)
    known = KnowledgeRows(torch.ones(6, dtype=torch.bool), items, -best)
    batch = Batch(
        torch.zeros((6, 0)), torch.zeros(6), None, torch.arange(6), torch.arange(6), knowledge=known
    )
    other = np.array([1, 3, 5, 9, 2, 20])
    found = Partner(temperature=temperature, k=5, weights=RankWeights(ids, other)).per_row(
        output_of(scores), batch
    )
    plain = Partner(temperature=temperature, k=5).per_row(output_of(scores), batch)
    own = ranks_now(output_of(scores), batch.targets)
    torch.testing.assert_close(found, plain * rank_gap_weights(own, torch.from_numpy(other)))
    monkeypatch.setattr("recdistill.train.mutual.weights._counted", None)  # nobody counts a second time
    Partner(temperature=temperature, k=5, weights=RankWeights(ids, other)).per_row(output_of(scores), batch)


def test_weights_are_joined_by_row_id():
    weights = RankWeights(np.array([3, 5, 9]), np.array([1, 2, 4]), np.array([2, 2, 2]))
    ids = torch.tensor([9, 3, 7, 5])  # 7 is not known
    bare = torch.zeros((4, 0), dtype=torch.int64)
    batch = Batch(bare, bare.sum(1), None, torch.tensor([0, 1, 2, 0]), ids)
    scores = torch.tensor([[3.0, 2.0, 1.0]]).repeat(4, 1)
    assert weights(output_of(scores), batch).tolist() == [0.0, 2.0, 1.0, 1.0]
    live = RankWeights(np.array([3, 5, 9]), np.array([1, 2, 4]))  # own ranks: 1, 2, 3, 1
    expected = [naive_weight(1, 4), naive_weight(2, 1), 1.0, naive_weight(1, 2)]
    torch.testing.assert_close(live(output_of(scores), batch), torch.tensor(expected))


# --- divergence -------------------------------------------------------------------------------------------


def told(partner_scores, temperature, k):
    """Return what a partner with these scores says, as knowledge holds it."""
    logs = (partner_scores / temperature).log_softmax(1)
    best = logs.topk(k, dim=1)
    covered = torch.ones(len(logs), dtype=torch.bool)
    return KnowledgeRows(covered, best.indices, -best.values, query_embeddings=partner_scores)


def batch_of(known, rows):
    bare = torch.zeros((rows, 0), dtype=torch.int64)
    return Batch(
        bare, bare.sum(1), None, torch.zeros(rows, dtype=torch.int64), torch.arange(rows), knowledge=known
    )


def exact_partner(temperature, items):
    partner = Partner(temperature=temperature, exact=True)
    partner.prepare(Task(items, 4, 4, torch.ones(items), torch.eye(items) / temperature))
    return partner


def naive_divergence(partner_scores, scores, temperature):
    values = []
    for p, y in zip(partner_scores.double().tolist(), scores.double().tolist(), strict=True):
        a, b = ([math.exp(v / temperature) for v in row] for row in (p, y))
        a, b = [v / sum(a) for v in a], [v / sum(b) for v in b]
        values.append(temperature**2 * sum(u * math.log(u / v) for u, v in zip(a, b, strict=True)))
    return torch.tensor(values)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
def test_the_divergence_of_lists_is_below_the_exact_one_and_reaches_it(temperature):
    torch.manual_seed(3)
    scores, partner_scores = 2 * torch.randn(6, 30), 2 * torch.randn(6, 30)
    expected = naive_divergence(partner_scores, scores, temperature)
    exact = exact_partner(temperature, 30)
    found = exact.per_row(output_of(scores), batch_of(told(partner_scores, temperature, 5), 6))
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-4)
    last = torch.zeros(6)
    for k in (1, 3, 10, 29, 30):
        lists = Partner(temperature=temperature, k=k)
        some = lists.per_row(output_of(scores), batch_of(told(partner_scores, temperature, k), 6))
        assert (some <= found + 1e-4).all()
        assert (some >= last - 1e-4).all()  # splitting a bucket never lowers it
        last = some
    torch.testing.assert_close(last, found, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("exact", [True, False])
def test_equal_scores_leave_nothing_to_learn(temperature, exact):
    torch.manual_seed(5)
    scores = torch.randn(4, 20, requires_grad=True)
    partner = exact_partner(temperature, 20) if exact else Partner(temperature=temperature, k=6)
    known = told(scores.detach(), temperature, 6)
    values = partner.per_row(output_of(scores), batch_of(known, 4))
    values.sum().backward()
    assert values.abs().max() < 1e-5
    assert scores.grad.abs().max() < 1e-5
    shifted = partner.per_row(output_of(scores.detach().roll(1, 1)), batch_of(known, 4))
    assert shifted.min() > 1e-3  # the test can fail


def test_weights_and_factor_scale_the_gradient():
    torch.manual_seed(7)
    scores, known = torch.randn(3, 12), told(torch.randn(3, 12), 2.0, 4)
    gradients = []
    for weights in (None, RankWeights(np.arange(3), np.array([1, 4, 9]), np.array([9, 4, 1]))):
        given = scores.clone().requires_grad_()
        Partner(temperature=2.0, k=4, weights=weights)(output_of(given), batch_of(known, 3)).backward()
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[1], gradients[0] * torch.tensor([[2.0], [1.0], [0.0]]))


# --- phases -----------------------------------------------------------------------------------------------


class Watch(Quiet):
    """Keeps what the partner is while the other model learns."""

    def __init__(self, out, partners):
        self.out, self.partners, self.kept = out, partners, []

    def on_phase(self, text):
        if "language model learns" in text:
            number = int(text.split()[1].rstrip(":")) - 1
            self.kept.append(file_checksum(self.out / f"rounds/{number}/student/best/model.safetensors"))
        elif "student learns" in text:
            self.kept[-1] = (self.kept[-1], self.copy())

    def copy(self):
        model = self.partners[0].parts._built[0]
        return {
            name: value.detach().clone()
            for name, value in [*model.named_parameters(), *model.named_buffers()]
        }


def test_the_partner_of_a_phase_stays_bit_by_bit(ring, tmp_path):
    partners, out = [], tmp_path / "r"

    class Ends(Watch):
        def on_round(self, record):
            if record["round"]:
                after = self.copy()  # the student's phase has just ended
                for name, value in self.kept[-1][1].items():
                    assert torch.equal(value, after[name]), name

    watch = Ends(out, partners)
    teach(ring, out, replace(QUICK, rounds=2), listener=watch, seen=partners)
    assert len(watch.kept) == 2
    for number, (before, _) in enumerate(watch.kept):
        assert file_checksum(out / f"rounds/{number}/student/best/model.safetensors") == before
    assert watch.kept[0][0] != watch.kept[1][0]


def test_soft_tokens_follow_the_students_table_and_nothing_else(ring):
    table = torch.randn(ITEMS, 16)
    partner = ItemHeadPartner(llama(), table, None, TEACHER)
    items = torch.arange(ITEMS)
    model = partner.begin(ring, table).eval()
    first = model.items(items).detach().clone()
    assert torch.equal(partner.begin(ring, table.clone()).items(items), first)
    other = table.clone()
    other[3] *= 1.5
    changed = (partner.begin(ring, other).items(items) != first).any(1)
    assert changed.nonzero().flatten().tolist() == [3]
    assert not torch.equal(
        partner.begin(ring, 2 * table).items(items), first
    )  # a longer table is another one
    assert "input_free" not in trainable(model)


def test_a_phase_trains_the_model_and_leaves_the_given_vectors(ring, tmp_path):
    table = torch.randn(ITEMS, 16)
    partner = ItemHeadPartner(llama(), table, None, TEACHER)
    rows = ring.rows("train", prefixes=True)
    before = {name: value.detach().clone() for name, value in trainable(partner.begin(ring, table)).items()}
    model, _ = partner.learn(ring, rows, tmp_path / "m", table, phase=(1,))
    torch.testing.assert_close(model.input_free, partner.scale * table)
    assert partner.scale * table.square().mean().sqrt() == pytest.approx(1)
    moved = [name for name, value in trainable(model).items() if not torch.equal(value, before[name])]
    assert {"input_map.weight", "head_free", "query_map.weight"} <= set(moved)


def test_what_the_student_says_reaches_the_language_model(ring, tmp_path):
    side, rows = student_side(), ring.rows("train", prefixes=True)
    student = side.learn(ring, tmp_path / "s")
    said = answers_of(student, ring, rows, tmp_path / "k", temperature=2.0, top_k=10)
    scores = student.scorer()(ring.histories(rows[:5], 8)).double() / 2
    logs = scores.log_softmax(1)
    for place in range(5):
        listed = torch.from_numpy(said.ranking[place].astype(np.int64))
        expected = -logs[place, listed]
        torch.testing.assert_close(
            torch.from_numpy(np.array(said.ranking_distance[place])), expected.float(), atol=1e-4, rtol=1e-4
        )
    partner = ItemHeadPartner(llama(), student.model.item_encoder(None), None, TEACHER)
    term = term_of(Partner(temperature=2.0, k=10), 0.7, said, ring)
    with_it, _ = partner.learn(ring, rows, tmp_path / "a", student.model.item_encoder(None), term=term)
    learned = with_it.table().detach().clone()
    alone, _ = partner.learn(ring, rows, tmp_path / "b", student.model.item_encoder(None))
    assert not torch.equal(alone.table(), learned)
    query = torch.cat([torch.randn(5, 8), torch.ones(5, 1)], 1).requires_grad_()
    value = term(rows[:5], query, learned)
    value.backward()
    assert query.grad.abs().sum() > 0
    expected = naive_bucket_term(said, ring, rows[:5], query.detach() @ learned.T, 2.0, 10)
    assert value.item() == pytest.approx(0.7 * expected, rel=1e-3)


def naive_bucket_term(said, ring, rows, scores, temperature, k):
    """Return eq. (1) over M + 1 buckets, a row at a time."""
    total, at = 0.0, np.searchsorted(said.row_ids, ring.row_ids[rows])
    for place, row in zip(at, scores.double(), strict=True):
        own = (row / temperature).softmax(0)
        listed = said.ranking[place, :k].astype(int)
        p = [math.exp(-float(d)) for d in said.ranking_distance[place, :k]]
        p, q = [*p, 1 - sum(p)], [*own[listed].tolist(), 1 - float(own[listed].sum())]
        total += temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(rows)


class Zero(RankWeights):
    """Weights that are all 0."""

    def __call__(self, output, batch):
        return 0 * super().__call__(output, batch)


def test_a_weight_of_zero_is_training_without_a_partner(ring, tmp_path):
    side, rows = student_side(), ring.rows("train", prefixes=True)
    first = side.learn(ring, tmp_path / "0")
    vectors = first.model.item_encoder(None)
    ids, ones = ring.row_ids[rows], np.ones(len(rows), dtype=np.int64)
    said = answers_of(first, ring, rows, tmp_path / "k", temperature=2.0, top_k=10)
    partner = ItemHeadPartner(llama(), vectors, None, TEACHER)
    term = term_of(Partner(temperature=2.0, k=10, weights=Zero(ids, ones)), 1.0, said, ring)
    found = []
    for name, given in (("with", term), ("without", None)):
        model, _ = partner.learn(ring, rows, tmp_path / name, vectors, term=given, phase=(1,))
        found.append({key: value.detach().clone() for key, value in trainable(model).items()})
    assert all(torch.equal(found[0][key], value) for key, value in found[1].items())
    strategy = Partner(temperature=2.0, k=10, weights=Zero(ids, ones))
    with_it = side.learn(
        ring, tmp_path / "s1", start=tmp_path / "0", phase=1, terms=[(1.0, strategy)], knowledge=said
    )
    without = side.learn(ring, tmp_path / "s2", start=tmp_path / "0", phase=1)
    for key, value in without.model.state_dict().items():
        assert torch.equal(value, with_it.model.state_dict()[key]), key


def formed_side():
    """Return a student whose item vectors are formed from text and free vectors."""
    side, text = student_side(), torch.randn(ITEMS, 6, generator=torch.Generator().manual_seed(3))

    def make():
        torch.manual_seed(0)
        table = ITEM_ENCODERS["collaborative"](ITEMS, 16, text)
        return SequenceModel(STUDENTS["sasrec"](**SPEC["options"]), table, table, bias=False)

    return replace(side, make=make)


def test_a_student_that_forms_its_item_vectors_goes_on_forming_them(ring, tmp_path):
    side = formed_side()
    first = side.learn(ring, tmp_path / "0")
    begun, forms = side._begin(tmp_path / "0")
    assert forms
    assert type(begun.item_encoder) is type(side.make().item_encoder)
    before = {name: value.clone() for name, value in begun.named_parameters()}
    torch.testing.assert_close(fold(begun).item_encoder(None), first.model.item_encoder(None))
    start = dict(side.make().named_parameters())
    assert any(not torch.equal(value, start[name]) for name, value in before.items())
    side.learn(ring, tmp_path / "1", start=tmp_path / "0", phase=1)
    after, _ = side._begin(tmp_path / "1")
    assert all(not torch.equal(value, before[name]) for name, value in after.named_parameters())
    assert not student_side()._begin(None)[1]


def test_killed_it_ends_with_the_same_models_and_the_language_model_reads_the_formed_table(ring, tmp_path):
    whole, partners = tmp_path / "whole", []
    options = replace(QUICK, rounds=1, weights="none")
    teach(ring, whole, options, side=formed_side(), seen=partners)
    saved = Recommender.load(whole / "rounds/0/student").model.item_encoder(None)
    torch.testing.assert_close(partners[0].parts.given / partners[0].scale, saved, atol=1e-5, rtol=1e-5)
    for where, number in (("teacher", 1), ("student", 1)):
        plug = Plug(where, number, 3, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            teach(ring, tmp_path / "r", options, side=formed_side(), listener=plug)
    teach(ring, tmp_path / "r", options, side=formed_side())
    assert weights_of(tmp_path / "r") == weights_of(whole)


# --- whole runs -------------------------------------------------------------------------------------------


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_of(out):
    """Return the checksums of every round's models and of the kept student."""
    files = [
        *out.glob("rounds/*/student/best/model.safetensors"),
        *out.glob("rounds/*/teacher/models/best.safetensors"),
    ]
    files += [out / "best" / "model.safetensors"]
    return {str(path.relative_to(out)): file_checksum(path) for path in files}


def test_a_run_keeps_the_best_student_and_every_round(ring, whole):
    out, kept = whole
    records = lines(out)
    assert [record["round"] for record in records] == [0, 1, 2]
    scores = [record["student"]["ndcg@10"] for record in records]
    assert [record["best"] for record in records] == [k == int(np.argmax(scores)) for k in range(3)]
    found = kept.evaluate(ring, "valid", filter_seen=False).metrics((10,))["ndcg@10"]
    assert found == pytest.approx(max(scores), abs=1e-9)
    assert [path.name for path in round_folders(out)] == ["0", "1", "2"]
    for record in records[1:]:
        teacher = load_knowledge(out / "rounds" / str(record["round"]) / "teacher", ring, check=True)
        for split in ("valid", "test"):
            assert teacher.coverage(ring.row_ids[ring.rows(split)]) == 1
        valid = np.isin(teacher.row_ids, ring.row_ids[ring.rows("valid")])
        hits = float((teacher.target_rank[valid] < 20).mean())
        assert record["teacher"]["hr@20"] == pytest.approx(hits, abs=1e-6)
    assert len(weights_of(out)) == 6


def test_what_passes_between_phases_is_what_the_models_think(ring, whole):
    out, _ = whole
    rows = ring.rows("train", prefixes=True)
    heard = load_knowledge(out / "rounds/2/teacher-answers", ring, check=True)
    assert heard.ranking.shape[1] == QUICK.top_m
    assert heard.manifest["temperature"] == 2.0
    assert heard.coverage(ring.row_ids[rows]) == 1
    assert not heard.covers(ring.row_ids[ring.rows("test")]).any()  # test rows are not touched before the end
    scores = torch.from_numpy(heard.query_embeddings.astype(np.float32)) @ heard.item_table.T
    logs = scores.log_softmax(1)
    listed = torch.from_numpy(heard.ranking.astype(np.int64))
    torch.testing.assert_close(
        -logs.gather(1, listed), torch.from_numpy(np.array(heard.ranking_distance)), atol=1e-4, rtol=1e-4
    )
    said = load_knowledge(out / "rounds/2/student-answers", ring)
    student = Recommender.load(out / "rounds/1/student")
    again = (student.scorer()(ring.histories(rows, 8)) / 2).log_softmax(1)
    expected = -again.gather(1, torch.from_numpy(said.ranking.astype(np.int64)))
    torch.testing.assert_close(
        torch.from_numpy(np.array(said.ranking_distance)), expected, atol=1e-4, rtol=1e-4
    )


class Plug(Quiet):
    """Pulls the plug at the n-th call of one kind in one round."""

    def __init__(self, where, round_number, calls, error):
        self.where, self.round_number, self.calls, self.error = where, round_number, calls, error
        self.now = "0"

    def on_phase(self, text):
        self.now = text.split()[1].rstrip(":")

    def pull(self, where):
        if (where, self.now) == (self.where, str(self.round_number)):
            self.calls -= 1
            if not self.calls:
                raise self.error

    def on_step(self, epoch, step, steps, loss):
        self.pull("student")

    def on_teacher_step(self, epoch, done, total, loss):
        self.pull("teacher")

    def progress(self, text, total):
        def hear(done):
            self.pull(f"{text.split()[2]} {text.split()[3]} answers" if "model answers" in text else text)

        return hear


@pytest.mark.parametrize(
    ("where", "number", "calls", "error"),
    [
        ("student", 0, 3, RuntimeError),
        ("teacher", 1, 2, KeyboardInterrupt),
        ("teacher", 2, 6, RuntimeError),
        ("the language answers", 1, 1, RuntimeError),
        ("student", 1, 2, KeyboardInterrupt),
        ("student", 2, 4, RuntimeError),
    ],
)
def test_killed_inside_a_round_and_started_again_gives_the_same_models(
    ring, whole, tmp_path, where, number, calls, error
):
    out = tmp_path / "r"
    with pytest.raises(error):
        teach(
            ring, out, replace(QUICK, keep_answers=True), listener=Plug(where, number, calls, error("plug"))
        )
    assert not (out / "best").exists()
    teach(ring, out, replace(QUICK, keep_answers=True))
    assert weights_of(out) == weights_of(whole[0])
    assert lines(out) == lines(whole[0])


def test_a_finished_run_is_not_trained_again_and_another_make_is_refused(ring, whole):
    out, _ = whole
    before = weights_of(out)
    teach(
        ring, out, replace(QUICK, keep_answers=True), listener=Plug("student", 0, 1, RuntimeError("trained"))
    )
    assert weights_of(out) == before
    with pytest.raises(RunError, match="other settings"):
        teach(ring, out, replace(QUICK, lambda_student=0.5, keep_answers=True))


def test_ablations_change_what_is_learned(ring, whole, tmp_path):
    base = weights_of(whole[0])
    first, later = "rounds/1/student/best/model.safetensors", "rounds/2/teacher/models/best.safetensors"
    changed = {"no-weights": {"weights": "none"}, "no-refresh": {"refresh": False}, "exact": {"exact": True}}
    for name, change in changed.items():
        teach(ring, tmp_path / name, replace(QUICK, **change))
        found = weights_of(tmp_path / name)
        assert (
            found["rounds/0/student/best/model.safetensors"]
            == base["rounds/0/student/best/model.safetensors"]
        )
        assert found[later] != base[later], name
        assert (found[first] == base[first]) == (name == "no-refresh"), name
        assert not list((tmp_path / name).glob("rounds/*/*-answers"))


def test_lambdas_of_zero_are_two_models_apart(ring, tmp_path):
    teach(ring, tmp_path / "r", replace(QUICK, rounds=1, lambda_teacher=0.0, lambda_student=0.0))
    side = student_side()
    side.learn(ring, tmp_path / "0")
    alone = side.learn(ring, tmp_path / "1", start=tmp_path / "0", phase=1)
    found = Recommender.load(tmp_path / "r/rounds/1/student")
    for key, value in alone.model.state_dict().items():
        assert torch.equal(value, found.model.state_dict()[key]), key


# --- honest ranks -----------------------------------------------------------------------------------------


def test_last_rows_are_the_newest_of_their_sequences(ring):
    rows = ring.rows("train", prefixes=True)
    last, owner = last_rows(ring, rows)
    newest = {}
    for row in rows.tolist():
        sequence = int(ring.row_sequences[row])
        newest[sequence] = max(newest.get(sequence, row), row, key=lambda r: ring.row_events[r])
    assert last.tolist() == sorted(newest.values())
    assert [int(last[k]) for k in owner] == [newest[int(ring.row_sequences[row])] for row in rows]


@pytest.mark.parametrize("how", ["folds", "positions"])
def test_held_out_ranks_are_of_rows_that_were_not_learned_from(ring, tmp_path, how):
    rows, asked_of = ring.rows("train", prefixes=True), []

    def pair(number, learned, asked):
        assert not set(learned) & set(asked)
        if how == "folds":
            assert not set(ring.row_sequences[learned]) & set(ring.row_sequences[asked])
        else:  # nothing that is learned from comes after what is asked, in any sequence
            newest = {
                int(s): e for s, e in zip(ring.row_sequences[asked], ring.row_events[asked], strict=True)
            }
            assert all(ring.row_events[r] < newest[int(ring.row_sequences[r])] for r in learned)
        asked_of.append(asked)
        return asked + 1, 2 * asked + 1

    student, teacher = held_out_ranks(ring, rows, tmp_path / "r.parquet", pair, how=how, folds=3, seed=0)
    if how == "folds":
        assert sorted(np.concatenate(asked_of)) == rows.tolist()
        assert student.tolist() == (rows + 1).tolist()
    else:
        last, owner = last_rows(ring, rows)
        assert student.tolist() == (last[owner] + 1).tolist()
    assert ((teacher - 1) == 2 * (student - 1)).all()

    def never(*_):
        raise AssertionError("measured twice")

    again = held_out_ranks(ring, rows[::2], tmp_path / "r.parquet", never, how=how, folds=3, seed=0)
    assert again[0].tolist() == student[::2].tolist()


@pytest.mark.parametrize("ranks", ["answers", "folds", "positions"])
def test_ranks_come_from_where_the_option_says(ring, whole, tmp_path, ranks):
    options, out = replace(QUICK, rounds=1, ranks=ranks), tmp_path / "r"
    if ranks == "folds":
        plug = Plug("teacher", 1, 3, KeyboardInterrupt())
        plug.on_phase = lambda text: setattr(
            plug, "now", text.split()[2].rstrip(":")
        )  # inside the second pair
        with pytest.raises(KeyboardInterrupt):
            teach(ring, out, options, listener=plug)
    teach(ring, out, options)
    base, found = weights_of(whole[0]), weights_of(out)
    key = "rounds/1/teacher/models/best.safetensors"
    assert found[key] != base[key]
    assert found["rounds/0/student/best/model.safetensors"] == base["rounds/0/student/best/model.safetensors"]
    assert (out / "ranks" / "ranks.parquet").is_file() == (ranks != "answers")
    if ranks == "folds":
        frame = pl.read_parquet(out / "ranks" / "ranks.parquet")
        assert frame["row_id"].to_list() == ring.row_ids[ring.rows("train", prefixes=True)].tolist()
        assert frame["teacher"].min() >= 1
        assert frame["teacher"].max() <= ITEMS
        teach(ring, tmp_path / "again", options)
        assert weights_of(tmp_path / "again") == found  # the kill in between changed nothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "adaptve"}, "Did you mean 'adaptive'"),
        ({"ranks": "fold"}, "Did you mean 'folds'"),
        ({"rounds": 0}, "Allowed: 1 or more"),
        ({"temperature_student": 0.0}, "Allowed: above 0"),
        ({"lambda_teacher": -1.0}, "Allowed: 0 or more"),
    ],
)
def test_mistakes_are_explained(change, message):
    with pytest.raises(ConfigError, match=message):
        MutualOptions(**change)


def test_a_language_model_that_reads_no_soft_tokens_is_refused():
    with pytest.raises(ConfigError, match="history=both"):
        ItemHeadPartner(llama(), torch.randn(ITEMS, 4), None, ItemHeadOptions(history="titles"))
