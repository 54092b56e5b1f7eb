"""What must hold for every ranking strategy (section 7 of the specification)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from recdistill.config.build import construct
from recdistill.errors import ConfigError
from recdistill.item_encoders import Ids
from recdistill.losses import CE
from recdistill.recipes import RECIPES
from recdistill.strategies import CD, DCD, RCE, RRD, STRATEGIES, HetComp, ListStrategy, SoftLabels, UnKD
from recdistill.students import SASRec, SequenceModel
from recdistill.train import Objective
from recdistill.types import PAD, Batch, Task

TASK = Task(40, 8, 8, torch.arange(1.0, 41.0), scales={"target_distance": 1.5, "ranking_distance": 2.0})
#: What leaves nothing to chance: the whole of a list is drawn, or the whole catalogue counts.
EXACT: dict[str, Callable[[], ListStrategy]] = {
    "rrd-full": lambda: RRD(k=5, negatives="full"),
    "dcd": lambda: DCD(k=40, pool=8, ranks="exact"),
    "dcd-list": lambda: DCD(k=40, pool=8, ranks="exact", over="list"),
    "rce": lambda: RCE(k=4, samples=6, pool=6),
    "hetcomp": lambda: HetComp(k=8),
    "soft": lambda: SoftLabels(teacher="distances", support="list"),
    "soft-rest": lambda: SoftLabels(),
}
RANDOM: dict[str, Callable[[], ListStrategy]] = {
    "cd": lambda: CD(samples=6),
    "cd-student": lambda: CD(guide="student", samples=6, kernel="exponential"),
    "rrd": lambda: RRD(k=5, samples=7),
    "rrd-sampled": lambda: RRD(k=5, interesting="sampled"),
    "dcd-sampled": lambda: DCD(k=3),
    "dcd-items": lambda: DCD(k=40, item_weight=0.5),
    "unkd": lambda: UnKD(pairs=8),
    "rce-sampled": lambda: RCE(k=4, samples=3, pool=9),
}


def made(make: Callable[[], ListStrategy]) -> ListStrategy:
    strategy = make()
    strategy.prepare(TASK)
    return strategy


@pytest.fixture(params=EXACT)
def exact(request) -> ListStrategy:
    return made(EXACT[request.param])


@pytest.fixture(params={**EXACT, **RANDOM})
def strategy(request) -> ListStrategy:
    return made({**EXACT, **RANDOM}[request.param])


@pytest.fixture
def make(make_random):
    """Random cases whose distances are log-probabilities of lists that leave something over."""

    def case_of(seed: int, **options):
        case = make_random(seed, **options)
        known = case.batch.knowledge
        distance = known.ranking_distance + 2.5
        return replace(case, batch=replace(case.batch, knowledge=replace(known, ranking_distance=distance)))

    return case_of


def rows_of(strategy: ListStrategy, case, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return strategy.per_row(case.output(), case.batch)


def chosen(batch: Batch, order: Tensor) -> Batch:
    """The batch with the rows of `order`."""

    def pick(part):
        values = {f.name: getattr(part, f.name) for f in fields(part)}
        return {name: v[order] if isinstance(v, Tensor) else v for name, v in values.items()}

    return Batch(**{**pick(batch), "knowledge": type(batch.knowledge)(**pick(batch.knowledge))})


def test_permuted_rows_permute_the_losses(exact, make):
    case = make(1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = replace(case.output(), hidden=case.logits[order], _memo={})
    torch.testing.assert_close(
        exact.per_row(permuted, chosen(case.batch, order)), rows_of(exact, case)[order]
    )


def test_padding_changes_neither_value_nor_gradient(exact, make):
    case = make(2, width=5)
    loss = exact(case.output(), case.batch)
    loss.backward()
    gradient, case.logits.grad = case.logits.grad, None
    known = case.batch.knowledge
    padded = replace(
        known,
        ranking=torch.nn.functional.pad(known.ranking, (0, 4), value=PAD),
        ranking_distance=torch.nn.functional.pad(known.ranking_distance, (0, 4), value=float("nan")),
    )
    again = exact(case.output(), replace(case.batch, knowledge=padded))
    again.backward()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(case.logits.grad, gradient)


def test_one_row_hears_of_its_own_teacher_only(exact, make):
    case = make(3, short=False)
    known = case.batch.knowledge
    ranking, distance = known.ranking.clone(), known.ranking_distance.clone()
    ranking[2], distance[2] = ranking[2].flip(0), distance[2] * torch.linspace(1, 2, 8)
    other = replace(case.batch, knowledge=replace(known, ranking=ranking, ranking_distance=distance))
    changed = exact.per_row(case.output(), other) != rows_of(exact, case)
    assert changed.tolist() == [False, False, True, False, False, False]


def test_computed_logits_or_not_is_the_same(exact, make):
    case = make(4)
    torch.testing.assert_close(
        exact.per_row(case.output(computed=False), case.batch), rows_of(exact, case), atol=1e-5, rtol=1e-4
    )


def test_rows_without_knowledge_count_zero(strategy, make):
    case = make(5)
    rows = rows_of(strategy, case)
    assert rows[~case.batch.knowledge.covered].tolist() == [0.0]
    assert rows[case.batch.knowledge.covered].count_nonzero() > 0
    nothing = replace(case.batch.knowledge, covered=torch.zeros(6, dtype=torch.bool))
    loss = strategy(case.output(), replace(case.batch, knowledge=nothing))
    assert loss == 0
    if loss.requires_grad:
        loss.backward()
        assert case.logits.grad is None or case.logits.grad.abs().max() == 0


def test_a_row_with_an_empty_list_counts_zero(strategy, make):
    case = make(6)
    known = case.batch.knowledge
    ranking = known.ranking.clone()
    ranking[0] = PAD
    distance = known.ranking_distance.masked_fill(ranking == PAD, torch.nan)
    batch = replace(case.batch, knowledge=replace(known, ranking=ranking, ranking_distance=distance))
    rows = strategy.per_row(case.output(), batch)
    rows.sum().backward()
    assert rows[0] == 0
    assert torch.isfinite(case.logits.grad).all()
    if not (isinstance(strategy, DCD) and strategy.item_weight):  # its item side compares with all rows
        assert case.logits.grad[0].abs().max() == 0


def test_gradient_is_that_of_finite_differences(exact, make):
    case = make(7, rows=3)
    if isinstance(exact, DCD | RCE):  # a step changes ranks, and with them which items are drawn
        pytest.skip("its draw depends on the logits")
    exact(case.output(), case.batch).backward()
    case.logits.requires_grad_(False)
    for s, item in ((0, int(case.batch.knowledge.ranking[0, 0])), (2, 11), (2, 30)):
        values = []
        for step in (1e-2, -1e-2):
            case.logits[s, item] += step
            values.append(exact(case.output(), case.batch).item())
            case.logits[s, item] -= step
        assert case.logits.grad[s, item].item() == pytest.approx((values[0] - values[1]) / 2e-2, abs=2e-3)


@pytest.mark.parametrize("size", [50.0, 200.0])
def test_finite_at_extreme_logits(strategy, make, size):
    case = make(8)
    case.logits.data = size * case.logits.data.sign()
    loss = strategy(case.output(), case.batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(case.logits.grad).all()


def test_bf16_gives_a_float32_loss(strategy, make):
    case = make(9)
    output = replace(case.output(computed=False), hidden=case.logits.bfloat16(), _memo={})
    output = replace(output, table=output.item_table.bfloat16())
    torch.manual_seed(0)
    loss = strategy(output, case.batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(rows_of(strategy, case).mean().item(), rel=0.15)
    loss.backward()
    assert torch.isfinite(case.logits.grad).all()


def test_whole_sequences_and_histories(strategy, make):
    """Rows are positions of sequences; histories leave the lists up to the position only."""
    case = make(10)
    positions = torch.tensor([0, 4, 7, 8, 12, 13])
    batch = replace(
        case.batch, history=case.batch.history[:3], lengths=torch.full((3,), 5), positions=positions
    )
    if hasattr(strategy, "exclude_history"):
        strategy.exclude_history = True
    loss = strategy(case.output(), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert loss > 0
    if hasattr(strategy, "exclude_history") and not isinstance(strategy, HetComp):
        seen = int(batch.history[0, 0])  # of row 0, whose position is 0
        assert case.logits.grad[0, seen] == 0


def test_reaches_the_student_beside_others(strategy, make):
    """All parameters of a student learn, with two other strategies in the same step."""
    torch.manual_seed(0)
    case = make(11, rows=4)
    batch = replace(case.batch, history=case.batch.history, lengths=torch.full((4,), 5))
    student = SASRec(embedding_size=8, variant="modern", blocks=1, heads=1, max_length=5)
    table = Ids(40, 8, std=0.5)
    model = SequenceModel(student, table, table, bias=False)
    others = [(0.3, made(EXACT["rrd-full"])), (0.2, made(RANDOM["unkd"]))]
    objective = Objective(model, CE(), [(0.5, strategy), *others], TASK)
    total, terms = objective(batch)
    expected = terms[0] + 0.5 * terms[1] + 0.3 * terms[2] + 0.2 * terms[3]
    torch.testing.assert_close(total, expected)
    assert terms[1] > 0
    (terms[1]).backward()
    reached = [p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters()]
    assert all(reached)


NAMES = ["cd", "rrd", "dcd", "unkd", "rce", "hetcomp", "soft_labels"]


@pytest.mark.parametrize("name", NAMES)
def test_is_made_by_name_and_refuses_unknown_options(name):
    assert isinstance(construct("strategy", STRATEGIES, name, {}), ListStrategy)
    with pytest.raises(ConfigError, match="kk"):
        construct("strategy", STRATEGIES, name, {"kk": 3})


@pytest.mark.parametrize("name", NAMES)
def test_has_a_recipe(name):
    assert [part for _, part, _ in RECIPES[name].strategies] == [name]
