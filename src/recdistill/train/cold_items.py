"""How long the vectors of items that training never saw should be: one number, picked on validation.

The vector of a cold item is its text's share alone. Training never compares it with the others, so its length is
arbitrary, and the length decides how often the item is recommended at all. The saved table is tried with several
lengths, and validation, where some targets may be cold too, picks.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recdistill.data import SequenceDataset
from recdistill.export import Recommender
from recdistill.runs import write_json
from recdistill.students import SequenceModel
from recdistill.train.records import COLD_ITEMS

#: Multiples of the length in the saved table; the first, which leaves it, wins ties.
FACTORS: Final = (1.0, 0.25, 0.5, 0.8, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5)
#: Where a recommender's spec keeps the chosen one.
STRETCH: Final = "cold_stretch"


def pick_cold_length(
    recommender: Recommender, dataset: SequenceDataset, *, filter_seen: bool, metric: str = "ndcg@20"
) -> tuple[Recommender, list[dict[str, float]]]:
    """Return a recommender whose cold items' vectors have the length that validation picks, and what was tried.

    Of all lengths that cost the validation rows no more than one standard error of the paired difference to the best
    one (Breiman et al., *Classification and Regression Trees*, 1984), it is the one that serves rows with a cold target
    best. Where no row has one, it is the best one.

    Parameters
    ----------
    recommender
        Its table is plain; its spec is given the chosen factor under `STRETCH`.
    dataset
        Its validation rows pick.
    filter_seen
        Whether items of the history compete.
    metric
        ``ndcg@20``, ``hr@10``, ...

    Returns
    -------
    tuple
        The recommender, and for each factor the metric of all rows and of those with a cold target.
    """
    cold = dataset.cold_items[dataset.targets(dataset.rows("valid"))]  # (n,)
    gains = np.stack(
        [
            stretched(recommender, factor).evaluate(dataset, "valid", filter_seen=filter_seen).per_row(metric)
            for factor in FACTORS
        ]
    )  # (F, n)
    served = gains[:, cold].mean(1) if cold.any() else np.zeros(len(FACTORS))
    lost = gains[gains.mean(1).argmax()] - gains  # (F, n)
    good = lost.mean(1) <= (lost.std(1) / len(cold) ** 0.5 if cold.any() else 0)
    chosen = int(np.where(good, served, -1.0).argmax())
    tried = [
        {"factor": factor, "all": float(part.mean()), "cold": float(one)}
        for factor, part, one in zip(FACTORS, gains, served, strict=True)
    ]
    return stretched(recommender, FACTORS[chosen]), tried


def settle_cold_items(
    model: SequenceModel, folder: Path, dataset: SequenceDataset, filter_seen: bool, metric: str
) -> None:
    """Let validation pick the length of cold items' vectors, once, where nobody chose it and text forms them."""
    if not length_is_open(model) or not len(dataset.rows("valid")):
        return
    best = Recommender.load(folder / "best")
    if STRETCH in best.spec:
        return
    chosen, tried = pick_cold_length(best, dataset, filter_seen=filter_seen, metric=metric)
    write_json(folder / COLD_ITEMS, {"metric": metric, "chosen": chosen.spec[STRETCH], "tried": tried})
    chosen.save(folder / "best")


def stretched(recommender: Recommender, factor: float) -> Recommender:
    """Return a copy whose cold items' vectors are `factor` times as long; so are those of items to come."""
    model = copy.deepcopy(recommender.model)
    stretch(model, torch.from_numpy(recommender.cold), factor)
    text = None if recommender.text is None else recommender.text.stretched(factor)
    return replace(recommender, model=model, text=text, spec={**recommender.spec, STRETCH: factor})


@torch.no_grad()
def stretch(model: SequenceModel, cold: Tensor, factor: float) -> None:
    """Multiply the vectors of the ``(I,)`` bool cold items of a folded model, in place."""
    for table in {id(part): part for part in (model.item_encoder, model.output_encoder)}.values():
        table.weight[cold] *= factor  # type: ignore[operator, index]


def length_is_open(model: SequenceModel) -> bool:
    """Return whether text forms the vectors of cold items on both sides, and nobody chose how long they are."""
    sides = (model.item_encoder, model.output_encoder)
    return not any(side.warm is None or side.cold_length_given for side in sides)
