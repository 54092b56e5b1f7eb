from __future__ import annotations

import pytest
import torch

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.strategies import DE, HTD
from recdistill.strategies.htd import across_groups, inside_groups, unit
from recdistill.types import PAD, Task
from references import item_strategies as naive
from references.item_cases import batch_of, item_vectors, output_of, prepared

TEACHER = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 1.0]])
STUDENT = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
GROUPS = torch.tensor([0, 0, 1, 1])


def inside(student, teacher, groups, **options):
    options = {"positive_only": False, **options}
    return inside_groups(student, teacher, groups, **options).sum().item()


def across(student, teacher, groups, level, **options):
    options = {"fixed_centres": False, **options}
    return across_groups(student, teacher, groups, level, **options).sum().item()


def test_numbers_of_the_specification():
    entity = inside(STUDENT, TEACHER, GROUPS)
    assert entity == pytest.approx(1.0)
    assert inside(STUDENT, TEACHER, GROUPS, positive_only=True) == pytest.approx(1.0)
    assert entity + across(STUDENT, TEACHER, GROUPS, "prototype") == pytest.approx(2.8)
    assert across(STUDENT, TEACHER, GROUPS, "entity") == pytest.approx(3.0277627244835355, rel=1e-6)
    assert entity + across(STUDENT, TEACHER, GROUPS, "entity") == pytest.approx(4.0277627244835355, rel=1e-6)
    assert inside(STUDENT, TEACHER, torch.zeros(4, dtype=torch.int64)) == pytest.approx(6.171572875253808)


def test_a_pair_that_the_teacher_finds_unlike_is_dropped_by_the_official_variant():
    teacher, student = torch.tensor([[1.0, 0.0], [-1.0, 0.5]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    one = torch.zeros(2, dtype=torch.int64)
    assert inside(student, teacher, one) == pytest.approx(7.177708763999663)
    assert inside(student, teacher, one, positive_only=True) == pytest.approx(0, abs=1e-12)


def test_the_weighted_sum_of_the_specification(monkeypatch):
    made = prepared(HTD(variant="official", groups=2, alpha=0.5, standardise=False, rank=None), TEACHER, 2)
    monkeypatch.setattr(DE, "groups", lambda self, teacher: GROUPS)
    monkeypatch.setattr(DE, "rebuild", lambda self, student, teacher: torch.tensor(2.0))
    loss = made(output_of(STUDENT), batch_of([[0, 1, 2]], [3]))
    assert loss.item() == pytest.approx(3.0138813622417677, rel=1e-6)


@pytest.mark.parametrize("level", ["entity", "prototype"])
@pytest.mark.parametrize("variant", ["clean", "official"])
def test_topology_is_the_naive_formula(variant, level):
    generator = torch.Generator().manual_seed(3)
    student, teacher = (torch.randn(15, width, generator=generator) for width in (4, 6))
    groups = torch.tensor([0, 4, 4, 1, 0, 4, 1, 1, 1, 4, 0, 0, 4, 2, 0])  # group 3 is empty, 2 has one item
    made = HTD(variant=variant, level=level, groups=5)
    found = made.topology(student, teacher, groups).item()
    given = student.double().numpy(), teacher.double().numpy(), groups.tolist()
    near = naive.htd_inside(*given, positive_only=variant == "official")
    far = naive.htd_across(*given, level)
    if variant == "clean":
        pairs = sum(groups.tolist().count(g) ** 2 for g in (0, 1, 2, 4)) - 15
        near, far = near / pairs, far / (4 * (15 if level == "entity" else 4))
    assert found == pytest.approx(near + far, rel=1e-5)


def test_order_of_items_does_not_matter():
    generator = torch.Generator().manual_seed(4)
    student, teacher = (torch.randn(12, 4, generator=generator) for _ in range(2))
    groups = torch.randint(3, (12,), generator=generator)
    order = torch.randperm(12, generator=generator)
    made = HTD(groups=3)
    torch.testing.assert_close(
        made.topology(student, teacher, groups), made.topology(student[order], teacher[order], groups[order])
    )


def test_rescaling_a_student_vector_changes_nothing_inside_groups():
    scaled = STUDENT * torch.tensor([[3.0], [0.2], [1.0], [50.0]])
    assert inside(scaled, TEACHER, GROUPS) == pytest.approx(inside(STUDENT, TEACHER, GROUPS))


@pytest.mark.parametrize(("fixed", "moves"), [(False, True), (True, False)])
def test_only_centres_with_a_gradient_teach_at_the_level_of_prototypes(fixed, moves):
    student = STUDENT.clone().requires_grad_()
    loss = across_groups(student, TEACHER, GROUPS, "prototype", fixed_centres=fixed).sum()
    assert loss.requires_grad is moves
    if moves:
        loss.backward()
        assert (student.grad.abs().sum(1) > 0).all()


def test_a_zero_vector_has_cosine_zero_and_no_gradient():
    student = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 0.5]], requires_grad=True)
    loss = inside_groups(student, TEACHER[:3], torch.zeros(3, dtype=torch.int64), positive_only=False).sum()
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad[0].tolist() == [0.0, 0.0]
    assert unit(student)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"variant": "official"}, {"level": "prototype", "groups": 2}])
def test_the_gradient_reaches_the_student_and_the_assignment(options):
    teacher, table = item_vectors(20, 6), torch.randn(20, 4, requires_grad=True)
    made = prepared(HTD(**{"groups": 3, "rank": 4, **options}), teacher, 4)
    loss = made(output_of(table), batch_of([list(range(10))], [11]))
    loss.backward()
    assert loss.isfinite()
    used = [item for item in [*range(10), 11] if item != 3]
    assert (table.grad[used].abs().sum(1) > 0).all()
    assert table.grad[[3, 10, 12]].abs().max() == 0
    assert all(p.grad.isfinite().all() for p in made.parameters())
    assert not any("teacher" in name or "known" in name for name in made.state_dict())


def test_clean_does_not_depend_on_the_size_of_the_batch():
    """Items twice over, in the same groups: sums grow fourfold, means hardly move."""
    generator = torch.Generator().manual_seed(5)
    student, teacher = (torch.randn(60, 4, generator=generator) for _ in range(2))
    groups = torch.randint(3, (60,), generator=generator)
    twice = [torch.cat([part, part]) for part in (student, teacher, groups)]
    clean, official = HTD(groups=3), HTD(groups=3, variant="official")
    assert clean.topology(*twice).item() == pytest.approx(
        clean.topology(student, teacher, groups).item(), rel=0.05
    )
    assert official.topology(*twice) > 2 * official.topology(student, teacher, groups)


def test_student_takes_over_the_topology():
    torch.manual_seed(0)
    teacher = torch.randn(30, 6)
    table = torch.nn.Parameter(torch.randn(30, 8))
    made = prepared(HTD(groups=4, alpha=1.0, rank=6), teacher, 8)
    batch = batch_of([list(range(30))], [0])
    optimizer = torch.optim.Adam([table], lr=0.05)
    first = made(output_of(table), batch).item()
    for _ in range(150):
        loss = made(output_of(table), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first


def test_epochs_anneal_the_assignment():
    made = HTD(epochs=10, tau_floor=0.01)
    made.on_epoch(10)
    assert made.assignment.tau == 0.01


def test_a_batch_without_text_costs_nothing():
    made = prepared(HTD(groups=2, rank=3), item_vectors(12, 6), 4)
    assert made(output_of(torch.randn(12, 4)), batch_of([[3]], [3])).item() == 0


def test_refuses():
    with pytest.raises(KnowledgeError, match="item_embeddings"):
        HTD().prepare(Task(3, 2, 2, torch.ones(3)))
    for options in ({"alpha": 1.5}, {"variant": "paper"}, {"level": "second"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            HTD(**options)
    with pytest.raises(ConfigError, match="experts"):
        HTD(groups=0)


def test_the_limit_of_items_reaches_the_assignment_and_the_topology():
    torch.manual_seed(0)
    made = prepared(HTD(groups=2, rank=3, most_items=2), item_vectors(12, 6), 4)
    seen: list[int] = []
    made.topology = lambda student, *_: seen.append(len(student)) or student.sum() * 0
    made(output_of(torch.randn(12, 4)), batch_of([[0, 3, 5, PAD], [5, 7, 1, 9]], [2, 3]))
    assert seen == [2]
