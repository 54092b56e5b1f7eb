"""How much being bought often, and being bought of late, count by themselves: two numbers, picked on validation.

A student ranks by what years of training rows say together. What sells these weeks, and how safe a popular item is
where the history says little, its scores know only by the way. With f its scores, n_j how often item j was the target
of a training row, and r_j how often among the newest fiftieth of them::

    f'(h, j) = f(h, j) + a log(1 + n_j) + b log(1 + r_j)     (1)

The sum is a bias of each item beside its vector: the student costs what it cost before. Without timestamps r is 0.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recdistill.data import SequenceDataset
from recdistill.evaluate import Evaluation
from recdistill.evaluate.ranks import ask
from recdistill.export import PRIOR, REPEATS, Recommender
from recdistill.runs import write_json
from recdistill.train.records import ITEM_PRIOR
from recdistill.types import LEARNED, Split

Ints = npt.NDArray[np.int64]

#: Values of a and of b that are tried.
OFTEN: Final = (0.0, -0.4, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4, 0.6)
LATELY: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
_NEWEST: Final = 0.02
#: Items of each row, best first, that the target is compared with while the numbers are tried.
_CONTENDERS: Final = 1000
_BATCH: Final = 256


def pick_prior(
    recommender: Recommender, dataset: SequenceDataset, *, filter_seen: bool, metric: str = "ndcg@20"
) -> tuple[Recommender, list[dict[str, float]]]:
    """Return a recommender with the a and b of eq. 1 that validation likes best, and what was tried.

    They are 0 unless the best gains more than one standard error of the paired difference.

    Parameters
    ----------
    recommender
        Without a prior; it is given one under `PRIOR` in its spec.
    dataset
        Its training rows are counted, its validation rows pick.
    filter_seen
        Whether items of the history compete.
    metric
        ``ndcg@20``, ``hr@10``, ...

    Returns
    -------
    tuple
        The recommender, and the metric for each a and b, which takes the thousand best items of each row for all.
    """
    tried = list(product(OFTEN, LATELY if dataset.timestamps is not None else LATELY[:1]))
    features = torch.stack(_counts(dataset))  # (2, I)
    weights = torch.tensor(tried)  # (G, 2)
    rows = dataset.rows("valid")
    ranks = np.empty((len(tried), len(rows)), dtype=np.int64)
    for part, items, scores, missed in _contenders(recommender, dataset, rows, filter_seen):
        priors = torch.einsum("gf,fbc->gbc", weights, features[:, items])  # (G, B, C + 1)
        found = scores + priors
        rank = (found[..., 1:] >= found[..., :1]).sum(2)  # (G, B)
        rank[:, missed] = dataset.item_count - 1
        ranks[:, part] = rank.numpy()
    gains = np.stack(
        [
            Evaluation(
                "student", "valid", dataset.row_ids[rows], one, dataset.item_count, filter_seen
            ).per_row(metric)
            for one in ranks
        ]
    )  # (G, n)
    best = int(gains.mean(1).argmax())
    gained = gains[best] - gains[0]
    if gained.mean() <= gained.std() / max(1, len(gained)) ** 0.5:
        best = 0
    told = [
        {"often": often, "lately": lately, "value": float(one.mean())}
        for (often, lately), one in zip(tried, gains, strict=True)
    ]
    return with_prior(recommender, dataset, *tried[best]), told


def settle_prior(
    prior: Literal["pick"] | tuple[float, float],
    folder: Path,
    dataset: SequenceDataset,
    filter_seen: bool,
    metric: str,
) -> None:
    """Put a prior into the item biases, once: the one that was given, or what validation picks."""
    best = Recommender.load(folder / "best")
    if PRIOR in best.spec:
        return
    if prior != "pick":
        with_prior(best, dataset, *prior).save(folder / "best")
    elif len(dataset.rows("valid")):
        chosen, tried = pick_prior(best, dataset, filter_seen=filter_seen, metric=metric)
        value = chosen.evaluate(dataset, "valid", filter_seen=filter_seen).per_row(metric).mean()
        told = {"metric": metric, "chosen": chosen.spec[PRIOR], "value": float(value), "tried": tried}
        write_json(folder / ITEM_PRIOR, told)
        chosen.save(folder / "best")


def with_prior(
    recommender: Recommender, dataset: SequenceDataset, often: float, lately: float
) -> Recommender:
    """Return a copy with eq. 1 in its item biases, a = `often` and b = `lately`."""
    counted = _counts(dataset)
    model = copy.deepcopy(recommender.model)
    prior = often * counted[0] + lately * counted[1]
    before = model.item_bias
    model.item_bias = nn.Parameter(prior if before is None else before.detach() + prior)
    spec = {**recommender.spec, "bias": True, PRIOR: [often, lately]}
    return replace(recommender, model=model.eval(), spec=spec)


def recounted(recommender: Recommender, dataset: SequenceDataset, *learned: Split) -> Recommender:
    """Return a copy whose prior counts the rows of further splits as well; nothing else of it is changed.

    Parameters
    ----------
    recommender
        With a prior (`PRIOR` in its spec) that was counted on the training rows.
    dataset
        The one that it was trained on.
    *learned
        ``valid``, ``test`` or both. Nothing can be measured on them any more.
    """
    often, lately = recommender.spec[PRIOR]
    view = dataset.learning_from(*learned)
    bare = with_prior(recommender, dataset, -often, -lately)
    made = with_prior(bare, view, often, lately)
    return replace(made, spec={**made.spec, LEARNED: list(learned)}, popularity=view.popularity)


def _counts(dataset: SequenceDataset) -> tuple[Tensor, Tensor]:
    """Return ``(I,)`` log(1 + n) and log(1 + r)."""
    trained = dataset.row_events[dataset.rows("train")]
    newest = trained[:0]
    if dataset.timestamps is not None and len(trained):
        when = dataset.timestamps[trained]
        newest = trained[when >= np.quantile(when, 1 - _NEWEST)]
    counts = (np.bincount(dataset.events[some], minlength=dataset.item_count) for some in (trained, newest))
    often, lately = (torch.from_numpy(np.log1p(one)).float() for one in counts)
    return often, lately


@torch.no_grad()
def _contenders(
    recommender: Recommender, dataset: SequenceDataset, rows: Ints, filter_seen: bool
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """Yield, batch by batch, target and best other items, their scores, and whether the target cannot be named.

    ``(B, C + 1)`` items and scores, the target first; ``(B,)`` bool.
    """
    scorer = recommender.scorer()
    never = not recommender.spec.get(REPEATS, True)
    for start in range(0, len(rows), _BATCH):
        part = slice(start, start + _BATCH)
        batch = rows[part]
        scores = torch.as_tensor(ask(scorer, dataset, batch, recommender.length)).float().clone()  # (B, I)
        target = torch.from_numpy(dataset.targets(batch))[:, None]
        own, item = (torch.from_numpy(one) for one in dataset.seen(batch))
        at_target = scores.gather(1, target)
        if filter_seen or never:
            scores[own, item] = -torch.inf
        missed = torch.zeros(len(batch), dtype=torch.bool)
        if never:
            missed[own[item == target[own, 0]]] = True
        scores.scatter_(1, target, -torch.inf)
        best, items = scores.topk(min(_CONTENDERS, scores.shape[1]), 1)
        yield part, torch.cat([target, items], 1), torch.cat([at_target, best], 1), missed
