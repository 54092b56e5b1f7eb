"""What an item-head model answers to the rows of a plan, and how good that is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.teachers import base
from recdistill.teachers.item_head.model import ItemHeadModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.plan import Plan

Ints = npt.NDArray[np.int64]

#: Training sharpens scores beyond what held-out rows bear out; one of these undoes it.
TEMPERATURES: Final[tuple[float, ...]] = (
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
    1.1,
    1.25,
    1.4,
    1.6,
    1.8,
    2.0,
    2.5,
    3.0,
)


def autocast(device: torch.device, options: ItemHeadOptions) -> torch.autocast:
    """Return the context of the wanted precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16")


@torch.no_grad()
def queries_of(
    model: ItemHeadModel, plan: Plan, pieces: Ints, options: ItemHeadOptions
) -> tuple[Ints, Tensor]:
    """Return the rows ``(S,)`` that the pieces answer and their queries ``(S, d + 1)`` float32."""
    model.eval()
    device, batch = model.head_free.device, plan.batch(pieces)
    with autocast(device, options):
        query = model(torch.from_numpy(batch.tokens).to(device), torch.from_numpy(batch.ends).to(device))
    return batch.rows, query.float()


@torch.no_grad()
def _valid_scores(
    model: ItemHeadModel, plan: Plan, options: ItemHeadOptions
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield scores ``(c, I)`` over the whole catalogue, and those of the targets ``(c, 1)``, of all rows of a plan."""
    model.eval()
    table = model.table().float()
    for pieces in plan.in_order(options.batch_tokens):
        rows, queries = queries_of(model, plan, pieces, options)
        for part in np.array_split(np.arange(len(rows)), max(1, len(rows) // 512)):
            scores = queries[part] @ table.T
            targets = torch.from_numpy(plan.dataset.targets(rows[part])).to(scores.device)
            yield scores, scores.gather(1, targets[:, None])


def quality(model: ItemHeadModel, plan: Plan, options: ItemHeadOptions) -> dict[str, float]:
    """Return ``hr@20`` and ``ndcg@20`` over the whole catalogue, seen items kept; zeros without rows."""
    ranks = [
        ((scores >= own).sum(1) - 1).cpu().numpy() for scores, own in _valid_scores(model, plan, options)
    ]
    found = np.concatenate([np.zeros(0, dtype=np.int64), *ranks])
    hits = float((found < 20).mean()) if len(found) else 0.0
    return {"hr@20": hits, "ndcg@20": base.ndcg(found)}


def temperature(model: ItemHeadModel, plan: Plan, options: ItemHeadOptions) -> float:
    """Return the τ of `TEMPERATURES` under which the rows' true items are likeliest; 1 without rows."""
    if not len(plan.rows):
        return 1.0
    loss = np.zeros(len(TEMPERATURES))
    for scores, own in _valid_scores(model, plan, options):
        loss += [float(((scores / tau).logsumexp(1) - own[:, 0] / tau).sum()) for tau in TEMPERATURES]
    return TEMPERATURES[int(loss.argmin())]
