"""The item side of a ranking strategy within a batch: which rows an item suits best."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.strategies.teacher_lists import TeacherList
from recdistill.types import StudentOutput


def item_side_loss(output: StudentOutput, listed: TeacherList, most: int) -> Tensor:
    """Return ``(S,)`` float32: the RRD loss over the rows of a batch, summed over items, each row its own terms.

    For an item j that two or more rows list at the places r_sj, and f the student's scores,

        L_j = sum_{s lists j} log( sum_{u: r_uj >= r_sj or u does not list j} exp f_uj ) - f_sj

    so that rows that list it higher come first, and rows that do not list it last. Rows with the same place tie.

    Parameters
    ----------
    output
        The student's answer.
    listed
        The teacher's lists of the rows.
    most
        Items to take, at random, where more are listed twice.
    """
    places, items = _places_of_items(listed, most)  # (j, S), (j,)
    total = output.hidden.new_zeros(len(listed.items), dtype=torch.float32)
    if not len(items):
        return total
    scores = (output.vectors(items) @ output.hidden.T).float()  # (j, S); an item's bias cancels
    ordered, rows = places.sort(dim=1, stable=True)  # rows that do not list it come last
    scores = scores.gather(1, rows)
    below = scores.flip(1).logcumsumexp(1).flip(1)
    ties = torch.searchsorted(ordered, ordered)  # first column of the same place
    counts = ordered < _unlisted(listed)
    terms = (below.gather(1, ties) - scores).masked_fill(~counts, 0.0)
    return total.index_add(0, rows.flatten(), terms.flatten())


@torch.no_grad()
def _places_of_items(listed: TeacherList, most: int) -> tuple[Tensor, Tensor]:
    """Return ``(j, S)``, each chosen item's place in each row's list or `_unlisted`, and the ``(j,)`` items."""
    rows, columns = listed.mask.nonzero(as_tuple=True)
    items, owner, counts = torch.unique(listed.items[rows, columns], return_inverse=True, return_counts=True)
    several = (counts > 1).nonzero().squeeze(1)
    several = several[torch.randperm(len(several), device=several.device)[:most]]
    number = torch.full_like(counts, -1)
    number[several] = torch.arange(len(several), device=several.device)
    number = number[owner]  # of each listed slot's item among the chosen
    taken = number >= 0
    places = listed.places.new_full((len(several), len(listed.items)), _unlisted(listed))
    places[number[taken], rows[taken]] = listed.places[rows, columns][taken]
    return places, items[several]


def _unlisted(listed: TeacherList) -> int:
    return listed.items.shape[1]
