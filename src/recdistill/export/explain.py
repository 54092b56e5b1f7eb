"""Why an item is recommended: what its score loses without each item of the history, on the student that answers.

    effect of item j on the score of item i = score(i | history) - score(i | history without its j-th item)

Nothing is estimated: the student answers every shortened history. What is known of the user beside the history is left
out in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recdistill.errors import DataError

if TYPE_CHECKING:
    from recdistill.export.recommender import Recommender

Ints = npt.NDArray[np.int64]

_SCHEMA: dict[str, Any] = {
    "item_id": pl.String,
    "because": pl.String,
    "because_title": pl.String,
    "effect": pl.Float32,
}


def explain(
    recommender: Recommender,
    history: Sequence[str],
    items: Sequence[str],
    *,
    user: str | None = None,
    most: int = 3,
) -> pl.DataFrame:
    """Return what moved the scores of some items most.

    Parameters
    ----------
    recommender
        Who recommends.
    history
        Raw ids or titles, oldest first.
    items
        Raw ids or titles, such as those that were recommended.
    user
        As in `Recommender.recommend`.
    most
        Effects an item, at most; the largest in size.

    Returns
    -------
    pl.DataFrame
        Columns ``item_id``, ``because`` (raw id of a history item; empty for what is known of the user), its
        ``because_title``, and ``effect``. No row for a history of one item that nothing else is known of: without it
        there is nothing to compare with.

    Raises
    ------
    DataError
        The history is empty, or an item is not in the catalogue.
    """
    catalogue = recommender.catalogue
    known, wanted = catalogue.index_of(list(history)), catalogue.index_of(list(items))
    if not len(known):
        raise DataError("the history is empty. A history needs at least one item: --history TITLE.")
    row = recommender.rows_of([user], 1)
    without = [np.delete(known, place) for place in range(len(known))] if len(known) > 1 else []
    scores = _scores(recommender, [known, *without], row)[:, wanted]  # (1 + n, m)
    causes = [(catalogue.raw_ids[item], catalogue.titles[item]) for item in known] if without else []
    effects = scores[:1] - scores[1:]  # (n, m)
    if row is not None and row[0] >= 0:
        alone = _scores(recommender, [known], None)[:, wanted]
        effects = np.concatenate([effects, scores[:1] - alone])
        causes.append(("", "what is known of the user"))
    found: list[dict[str, Any]] = []
    for place, item in enumerate(wanted):
        order = np.argsort(-np.abs(effects[:, place]), kind="stable")[:most]
        found += [
            {
                "item_id": catalogue.raw_ids[item],
                "because": causes[cause][0],
                "because_title": causes[cause][1],
                "effect": float(effects[cause, place]),
            }
            for cause in order
        ]
    return pl.DataFrame(found, schema=_SCHEMA)


def _scores(recommender: Recommender, histories: list[Ints], row: Ints | None) -> npt.NDArray[np.float32]:
    """Return ``(n, I)`` scores; `row` is the one row that something is known of."""
    from recdistill.export.best_items import pad_histories

    rows = None if row is None else np.repeat(row, len(histories))
    with torch.no_grad():
        scores = recommender.scorer()(pad_histories(histories, recommender.length), rows)
    found: npt.NDArray[np.float32] = scores.float().cpu().numpy()
    return found
