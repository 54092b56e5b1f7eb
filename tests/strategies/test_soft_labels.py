from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import kl_div, log_softmax

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies import SoftLabels
from recdistill.strategies.catalogue import catalogue_divergence, catalogue_list, catalogue_log_sum_exp
from recdistill.strategies.listwise import NOTHING
from recdistill.types import PAD, StudentOutput, Task
from references.ranking_strategies import divergence, log_sum_exp


def probable(case, seed: int, width: int):
    """The case with a teacher that has a distribution over all items; its (S, I) log-probabilities."""
    logs = torch.randn(case.logits.shape, generator=torch.Generator().manual_seed(seed)).mul(2).log_softmax(1)
    best = logs.topk(width, dim=1)
    known = replace(
        case.batch.knowledge,
        ranking=best.indices,
        ranking_distance=-best.values,
        covered=torch.ones(len(logs), dtype=torch.bool),
    )
    return replace(case.batch, knowledge=known), logs


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("support", ["catalogue", "list"])
def test_equals_the_naive_formula(make_random, support, temperature):
    case = make_random(0)
    batch, logs = probable(case, 1, 7)
    ranking = batch.knowledge.ranking.masked_fill(torch.arange(7) >= torch.arange(1, 7).unsqueeze(1), PAD)
    batch = replace(batch, knowledge=replace(batch.knowledge, ranking=ranking))
    strategy = SoftLabels(support=support, temperature=temperature)
    for s, value in enumerate(strategy.per_row(case.output(computed=False), batch).tolist()):
        top, logits = [i for i in ranking[s].tolist() if i != PAD], case.logits[s].tolist()
        teacher, student = [logs[s, i].item() for i in top], [logits[i] for i in top]
        if support == "catalogue":
            teacher.append(log_sum_exp([logs[s, i].item() for i in range(40) if i not in top]))
            student.append(log_sum_exp([logits[i] for i in range(40) if i not in top]))
        expected = temperature**2 * divergence(teacher, student, temperature)
        assert value == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_at_most_the_divergence_over_all_and_equal_in_the_end(make_random):
    case = make_random(1, short=False)
    values = []
    for width in (3, 10, 25, 40):
        batch, logs = probable(case, 2, width)
        values.append(SoftLabels(temperature=1.0)(case.output(), batch).item())
    exact = kl_div(log_softmax(case.logits, 1), logs, log_target=True, reduction="batchmean").item()
    assert values == sorted(values)
    assert values[0] < 0.9 * exact
    assert values[-1] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_agreement_is_zero_with_zero_gradient(make_random, temperature):
    case = make_random(2, short=False)
    batch, logs = probable(case, 3, 6)
    case.logits.data = logs + 2.5
    loss = SoftLabels(temperature=temperature)(case.output(), batch)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-5)
    assert case.logits.grad.abs().max() < 1e-5


@pytest.mark.parametrize("metric", ["dot", "cosine", "l2", "squared_l2"])
def test_vectors_give_the_divergence_over_all_items(make_random, metric):
    case = make_random(3, short=False)
    generator = torch.Generator().manual_seed(0)
    queries, vectors = (1 + torch.randn(n, 5, generator=generator) for n in (6, 40))
    covered = torch.tensor([True, True, False, True, True, True])
    known = replace(case.batch.knowledge, query_embeddings=queries, covered=covered)
    strategy = SoftLabels(teacher=metric, temperature=2.0, scale=0.5)
    strategy.prepare(Task(40, 4, 4, torch.ones(40), item_embeddings=vectors))
    assert strategy.requires == {"query_embeddings", "item_embeddings"}
    scores = {
        "dot": queries @ vectors.T,
        "cosine": torch.nn.functional.cosine_similarity(queries[:, None], vectors[None], dim=2),
        "l2": -torch.cdist(queries, vectors),
        "squared_l2": -torch.cdist(queries, vectors).square(),
    }[metric]
    rows = strategy.per_row(case.output(computed=False), replace(case.batch, knowledge=known))
    for s, value in enumerate(rows.tolist()):
        expected = (
            4 * divergence((scores[s] / 0.5).tolist(), case.logits[s].tolist(), 2.0) if covered[s] else 0.0
        )
        assert value == pytest.approx(expected, rel=1e-3, abs=1e-5)
    rows.sum().backward()
    goal, guess = (scores / 0.5 / 2.0).softmax(1), (case.logits / 2.0).softmax(1)
    expected = 2.0 * (guess - goal) * covered.unsqueeze(1)
    torch.testing.assert_close(case.logits.grad, expected.detach(), atol=1e-4, rtol=1e-3)


def test_distances_over_the_list(make_random):
    case = make_random(4)
    strategy = SoftLabels(teacher="distances", support="list", temperature=1.5)
    strategy.prepare(Task(40, 4, 4, torch.ones(40), scales={"ranking_distance": 2.0}))
    known = case.batch.knowledge
    for s, value in enumerate(strategy.per_row(case.output(), case.batch).tolist()):
        top = [i for i in known.ranking[s].tolist() if i != PAD] if bool(known.covered[s]) else []
        teacher = [-d / 2.0 for d in known.ranking_distance[s, : len(top)].tolist()]
        expected = 1.5**2 * divergence(teacher, [case.logits[s, i].item() for i in top], 1.5) if top else 0.0
        assert value == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_distances_that_are_no_log_probabilities_are_refused(make_random):
    case = make_random(5, short=False)
    strategy = SoftLabels()
    with pytest.raises(KnowledgeError, match="add up to"):
        strategy(
            case.output(),
            replace(
                case.batch, knowledge=replace(case.batch.knowledge, ranking_distance=torch.full((6, 8), 0.1))
            ),
        )
    with pytest.raises(ConfigError, match="support=list"):
        SoftLabels(teacher="distances")
    with pytest.raises(KnowledgeError, match="ranking_distance"):
        strategy(
            case.output(), replace(case.batch, knowledge=replace(case.batch.knowledge, ranking_distance=None))
        )


def test_missing_vectors_are_named(make_random):
    with pytest.raises(KnowledgeError, match="item_embeddings"):
        SoftLabels(teacher="dot").prepare(Task(40, 4, 4, torch.ones(40)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 10**9])
def test_log_sum_exp_and_its_gradients_are_those_of_torch(monkeypatch, bias, chunk):
    monkeypatch.setattr("recdistill.strategies.catalogue.CHUNK_BYTES", {"cpu": chunk, "cuda": chunk})
    torch.manual_seed(0)
    parts = [torch.randn(shape, requires_grad=True) for shape in ((7, 4), (30, 4), (30,))]
    left_out = torch.randint(30, (7, 5)).masked_fill(torch.rand(7, 5) < 0.3, PAD)
    weights = torch.randn(7)

    def gradients(value: torch.Tensor) -> list[torch.Tensor | None]:
        return list(torch.autograd.grad((value * weights).sum(), parts, allow_unused=True))

    output = StudentOutput(parts[0], parts[1], parts[2] if bias else None, lambda x: x)
    found = catalogue_log_sum_exp(output, left_out)
    naive = parts[0] @ parts[1].T + (parts[2] if bias else 0)
    for s in range(7):
        for item in left_out[s].tolist():
            if item != PAD:
                naive = naive.index_put((torch.tensor(s), torch.tensor(item)), torch.tensor(-torch.inf))
    expected = naive.logsumexp(1)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradients(found), gradients(expected), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("weights", [torch.full((7,), 0.3), torch.randn(7)], ids=["alike", "each its own"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 10**9])
def test_divergence_over_the_catalogue_and_its_gradients_are_those_of_torch(
    monkeypatch, weights, bias, chunk
):
    monkeypatch.setattr("recdistill.strategies.catalogue.CHUNK_BYTES", {"cpu": chunk, "cuda": chunk})
    torch.manual_seed(0)
    parts = [torch.randn(shape, requires_grad=True) for shape in ((7, 4), (30, 4), (30,))]
    scores = torch.randn(7, 30)

    def gradients(value: torch.Tensor) -> list[torch.Tensor | None]:
        return list(torch.autograd.grad((value * weights).sum(), parts, allow_unused=True))

    output = StudentOutput(parts[0], parts[1], parts[2] if bias else None, lambda x: x)
    found = catalogue_divergence(output, lambda rows: scores[rows], 1.7)
    naive = parts[0] @ parts[1].T + (parts[2] if bias else 0)
    expected = kl_div(
        log_softmax(naive / 1.7, 1), log_softmax(scores / 1.7, 1), log_target=True, reduction="none"
    ).sum(1)
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(gradients(found), gradients(expected), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, 10**9])
def test_a_list_and_the_rest_are_read_off_all_scores(monkeypatch, bias, chunk):
    monkeypatch.setattr("recdistill.strategies.catalogue.CHUNK_BYTES", {"cpu": chunk, "cuda": chunk})
    torch.manual_seed(0)
    parts = [torch.randn(shape, requires_grad=True) for shape in ((8, 4), (30, 4), (30,))]
    items = torch.stack([torch.randperm(30) for _ in range(8)])  # the whole catalogue in the last row
    items[0, 5:], items[1] = PAD, PAD  # a short list, and none
    items[2:7, 6:], items[2:4, 1] = PAD, PAD  # and holes
    targets, weights = torch.randint(30, (8,)), torch.randn(8)
    of_listed = torch.randn(8, 30).masked_fill(items == PAD, 0.0)
    output = StudentOutput(parts[0], parts[1], parts[2] if bias else None, lambda x: x)
    listed, rest, ranks = catalogue_list(output, items, targets)
    naive = parts[0] @ parts[1].T + (parts[2] if bias else 0)
    own, others = naive.gather(1, items.clamp_min(0)), []
    for s in range(8):
        kept = [i for i in range(30) if i not in set(items[s].tolist())]
        others.append(naive[s, kept].logsumexp(0) if kept else naive.new_tensor(NOTHING))
        assert ranks[s] == sum(value >= naive[s, targets[s]] for value in naive[s])
    torch.testing.assert_close(listed[items != PAD], own[items != PAD])
    torch.testing.assert_close(rest, torch.stack(others))
    used = parts if bias else parts[:2]
    found = torch.autograd.grad((listed * of_listed).sum() + (rest * weights).sum(), used)
    naive_sum = (own * of_listed).sum() + (torch.stack(others) * weights).sum()
    for mine, theirs in zip(found, torch.autograd.grad(naive_sum, used), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("option", "value"),
    [("temperature", 0.0), ("k", 0), ("teacher", "logits"), ("support", "some"), ("scale", 0.0)],
)
def test_refuses_values(option, value):
    with pytest.raises(ConfigError, match=option):
        SoftLabels(**{option: value})
