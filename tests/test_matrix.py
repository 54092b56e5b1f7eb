"""Every student with every loss, strategy and item encoder, one step each on a ring of items."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recdistill.config import build_model, resolve
from recdistill.config.build import student_spec
from recdistill.data import SequenceDataset
from recdistill.export import Recommender, fold
from recdistill.item_encoders import ITEM_ENCODERS
from recdistill.knowledge import Knowledge
from recdistill.losses import LOSSES
from recdistill.strategies import STRATEGIES, Strategy
from recdistill.students import STUDENTS, SequenceModel
from recdistill.train import BatchLoader, Objective
from recdistill.train.checkpoints import load_checkpoint, save_checkpoint
from recdistill.train.distill import describe_task
from recdistill.types import Batch
from shop import ITEMS, ring_dataset

SIZE, LENGTH, LISTED = 8, 6, 10
#: An item that counts as never seen in training, so no row of a batch has it for an answer.
COLD = 3
#: Options that a strategy needs on a shop of this size; everything else is as a user gets it.
OPTIONS: dict[str, dict[str, Any]] = {
    "de": {"experts": 3, "rank": 4},
    "htd": {"groups": 3, "rank": 4},
    "freqd": {"rank": 4},
    "hetcomp": {"k": LISTED, "depth": LISTED},
    "pckd": {"pool": 20, "rows": 16},
}

every_student = pytest.mark.parametrize("student", sorted(STUDENTS))
every_encoder = pytest.mark.parametrize("encoder", sorted(ITEM_ENCODERS))
every_loss = pytest.mark.parametrize("loss", sorted(LOSSES))
every_strategy = pytest.mark.parametrize("strategy", sorted(STRATEGIES))


@cache
def dataset() -> SequenceDataset:
    return ring_dataset(30)


@cache
def knowledge() -> Knowledge:
    """A teacher with every field: exact scores from embeddings, distances that are -log p; one row unasked."""
    data, rng = dataset(), np.random.default_rng(0)
    rows = data.rows("train", prefixes=True)[1:]
    items = rng.normal(size=(ITEMS, 12)).astype(np.float32)
    items[7] = 0  # an item without text
    queries = rng.normal(size=(len(rows), 12)).astype(np.float32)
    scores = queries @ items.T
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    order = np.argsort(-log_p, axis=1)[:, :LISTED]
    return Knowledge(
        row_ids=data.row_ids[rows],
        item_count=ITEMS,
        ranking=order.astype(np.int32),
        ranking_distance=-np.take_along_axis(log_p, order, 1),
        target_distance=-log_p[np.arange(len(rows)), data.targets(rows)],
        query_embeddings=queries,
        item_embeddings=items,
        manifest={
            "metric": "dot",
            "distance": "negative_log_probability",
            "dataset_fingerprint": data.fingerprint,
        },
    )


@cache
def batch(negatives: int, supervision: str) -> Batch:
    data = dataset()
    rows = data.rows("train", prefixes=supervision == "all")
    loader = BatchLoader(
        data,
        supervision,
        LENGTH,
        16,
        negatives=negatives,
        knowledge=knowledge(),  # type: ignore[arg-type]
        row_ids=data.row_ids[rows[data.targets(rows) != COLD]],
    )
    return next(loader.epoch(0))


@cache
def config_of(student: str, encoder: str, *, tied: bool = True) -> Any:
    tied = tied and STUDENTS[student](embedding_size=SIZE, max_length=LENGTH).hidden_size == SIZE
    words = [
        f"student.name={student}",
        f"student.embedding_size={SIZE}",
        f"student.length={LENGTH}",
        f"student.tied={str(tied).lower()}",
        f"item_encoder.name={encoder}",
    ]
    return resolve({"dataset": "d", "knowledge": "k"}, strategy=None, file=None, words=words)


def model_of(
    student: str, encoder: str, *, tied: bool = True, cold: tuple[int, ...] = (COLD,)
) -> SequenceModel:
    unseen = np.isin(np.arange(ITEMS), cold)
    return build_model(config_of(student, encoder, tied=tied), ITEMS, knowledge(), unseen)


def strategy_of(name: str) -> Strategy:
    return STRATEGIES[name](**OPTIONS.get(name, {}))


def objective_of(model: SequenceModel, loss: str, strategy: str | None = None) -> tuple[Objective, Batch]:
    torch.manual_seed(0)
    terms = [] if strategy is None else [(0.5, strategy_of(strategy))]
    made = Objective(model, LOSSES[loss](), terms, describe_task(dataset(), model, knowledge()))
    made.on_epoch(0)
    supervision = "all" if model.student.causal else "last"
    return made, batch(2 if LOSSES[loss]().needs_negatives else 0, supervision)


def size_of_gradient(module: torch.nn.Module) -> float:
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    return float(sum(gradient.abs().sum() for gradient in gradients))


@every_student
@every_encoder
@every_loss
def test_one_step_of_every_combination(student: str, encoder: str, loss: str) -> None:
    for strategy in STRATEGIES:
        model = model_of(student, encoder)
        objective, given = objective_of(model, loss, strategy)
        total, terms = objective(given)
        assert total.isfinite(), strategy
        assert terms[1] > 0, strategy
        total.backward()
        assert size_of_gradient(model.student) > 0, strategy
        assert size_of_gradient(model.item_encoder) > 0, strategy


@every_student
@every_encoder
@every_strategy
def test_a_strategy_alone_reaches_the_student(student: str, encoder: str, strategy: str) -> None:
    """What it teaches arrives in the item vectors, and through scores in the network as well."""
    model = model_of(student, encoder)
    objective, given = objective_of(model, "ce", strategy)
    objective(given)[1][1].backward()
    assert size_of_gradient(model.item_encoder) > 0
    if "item_embeddings" not in STRATEGIES[strategy].requires:
        assert size_of_gradient(model.student) > 0


@every_student
@every_encoder
@pytest.mark.parametrize("tied", [True, False])
def test_folding_and_saving_change_no_score(student: str, encoder: str, tied: bool, tmp_path: Path) -> None:
    config = config_of(student, encoder, tied=tied)
    model = model_of(student, encoder, tied=tied, cold=()).eval()
    for parameter in model.parameters():  # anything but the small numbers of the start
        torch.nn.init.normal_(parameter, std=0.3)
    histories = dataset().histories(dataset().rows("test")[:10], LENGTH)
    expected = model.score(torch.from_numpy(histories))
    torch.testing.assert_close(fold(model).score(torch.from_numpy(histories)), expected, atol=1e-5, rtol=1e-5)
    Recommender.from_model(model, dataset(), student_spec(config), LENGTH).save(tmp_path / "r")
    loaded = Recommender.load(tmp_path / "r")
    torch.testing.assert_close(loaded.scorer()(histories), expected, atol=1e-5, rtol=1e-5)


@every_strategy
@every_encoder
def test_a_checkpoint_goes_on_where_it_was(strategy: str, encoder: str, tmp_path: Path) -> None:
    """One step, saved; a fresh objective that loads it takes the same next step."""
    losses = []
    for made_anew in (False, True):
        objective, given = objective_of(model_of("sasrec", encoder), "ce", strategy)
        optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
        if made_anew:
            torch.manual_seed(99)
            load_checkpoint(tmp_path / "c.safetensors", objective, optimizer)
        else:
            objective(given)[0].backward()
            optimizer.step()
            save_checkpoint(tmp_path / "c.safetensors", objective, optimizer, {})
        optimizer.zero_grad()
        total, _ = objective(given)
        losses.append(total.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@every_student
def test_all_strategies_together(student: str) -> None:
    model = model_of(student, "collaborative")
    terms = [(0.1, strategy_of(name)) for name in STRATEGIES]
    objective = Objective(model, LOSSES["ce"](), terms, describe_task(dataset(), model, knowledge()))
    given = batch(0, "all" if model.student.causal else "last")
    total, parts = objective(given)
    expected = parts[0] + 0.1 * sum(parts[1:])
    torch.testing.assert_close(total, expected)
    total.backward()
    assert size_of_gradient(model) > 0


def test_the_matrix_is_whole() -> None:
    """All names of all tables are here: a part that is added is in the matrix without another line."""
    cells = list(product(STUDENTS, LOSSES, STRATEGIES, ITEM_ENCODERS))
    assert len(cells) >= 4 * 6 * 7 * 5
    assert set(OPTIONS) <= set(STRATEGIES)
