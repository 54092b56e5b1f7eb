"""How long the vectors of items that training never saw should be: one number, picked on validation.

The vector of a cold item is its text's share alone. Training never compares it with the others, so its length is
arbitrary, and the length decides how often the item is recommended at all. The saved table is tried with several
lengths, and validation, where some targets are cold too, picks.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Final

import torch

from recdistill.data import SequenceDataset
from recdistill.export import Recommender

#: Multiples of the length in the saved table; the first, which leaves it, wins ties.
FACTORS: Final = (1.0, 0.8, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5)
#: Where a recommender's spec keeps the chosen one.
STRETCH: Final = "cold_stretch"


def pick_cold_length(
    recommender: Recommender, dataset: SequenceDataset, *, filter_seen: bool, metric: str = "ndcg@20"
) -> tuple[Recommender, dict[float, float]]:
    """Return a recommender whose cold items' vectors have the length that validation likes best, and what was tried.

    Parameters
    ----------
    recommender
        Its table is plain; its spec is given the chosen factor under `STRETCH`.
    dataset
        Its validation rows pick.
    filter_seen
        Whether items of the history compete.
    metric
        ``ndcg@20``, ``hr@10``, ... of all validation rows, cold targets and others.

    Returns
    -------
    tuple
        The recommender, and the metric by factor.
    """
    k = int(metric.partition("@")[2])
    tried: dict[float, float] = {}
    best = recommender
    for factor in FACTORS:
        candidate = stretched(recommender, factor)
        found = candidate.evaluate(dataset, "valid", filter_seen=filter_seen).metrics((k,))[metric]
        if found > max(tried.values(), default=-1.0):
            best = candidate
        tried[factor] = found
    return best, tried


def stretched(recommender: Recommender, factor: float) -> Recommender:
    """Return a copy whose cold items' vectors are `factor` times as long; so are those of items to come."""
    model = copy.deepcopy(recommender.model)
    cold = torch.from_numpy(recommender.cold)
    with torch.no_grad():
        for table in {id(part): part for part in (model.item_encoder, model.output_encoder)}.values():
            table.weight[cold] *= factor  # type: ignore[operator, index]
    text = None if recommender.text is None else recommender.text.stretched(factor)
    return replace(recommender, model=model, text=text, spec={**recommender.spec, STRETCH: factor})
