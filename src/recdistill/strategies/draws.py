"""Random draws of items, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

from recdistill.strategies.lookup import place_in
from recdistill.types import PAD, StudentOutput

_ROUNDS = 8  # of drawing anew: at 3 % banned items one item in 10^12 is still banned afterwards


def draw_columns(log_weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Draw k columns a row without replacement, each time in proportion to the weights that are left.

    The k largest of log w + Gumbel noise are such a draw (Vieira, 2014): no loop, and fewer than k columns
    with a weight are no error.

    Parameters
    ----------
    log_weights
        ``(S, W)``, minus infinity where a column cannot be drawn.
    k
        How many; at most W come back.

    Returns
    -------
    tuple
        ``(S, k)`` columns in ascending order, and which of them were drawn.
    """
    noise = -torch.empty_like(log_weights).exponential_().log()
    keys = log_weights + noise
    values, columns = keys.topk(min(k, keys.shape[1]), dim=1, sorted=False)
    columns = columns.masked_fill(values == -torch.inf, keys.shape[1]).sort(1).values
    drawn = columns < keys.shape[1]
    return columns.masked_fill(~drawn, 0), drawn


def draw_negatives(output: StudentOutput, n: int, banned: Tensor) -> Tensor:
    """Draw n items for each row as `draw_items` does, none of them an item that training never saw."""
    if output.cold is None:
        return draw_items(output.item_table.shape[0], n, banned)
    warm = (~output.cold).nonzero().squeeze(1)  # (m,)
    place = torch.full((len(output.cold) + 1,), PAD, device=warm.device)  # the last entry answers for PAD
    place[warm] = torch.arange(len(warm), device=warm.device)
    drawn = draw_items(len(warm), n, place[banned])
    return warm[drawn.clamp_min(0)].masked_fill(drawn == PAD, PAD)


def draw_items(item_count: int, n: int, banned: Tensor) -> Tensor:
    """Draw n items for each row, uniformly among those that are not banned.

    Parameters
    ----------
    item_count
        I.
    n
        Items a row; one can come twice.
    banned
        ``(S, P)`` items, `PAD` allowed.

    Returns
    -------
    Tensor
        ``(S, n)`` int64; `PAD` where only banned items came, as in a row that bans nearly the whole catalogue.
    """
    drawn = torch.randint(item_count, (len(banned), n), device=banned.device)
    wrong = place_in(banned, drawn) != PAD
    for _ in range(_ROUNDS):
        if not wrong.any():
            break
        rows = wrong.any(1).nonzero().squeeze(1)
        again = torch.randint(item_count, (len(rows), n), device=banned.device)
        again = torch.where(wrong[rows], again, drawn[rows])
        drawn[rows] = again
        wrong[rows] = place_in(banned[rows], again) != PAD
    return drawn.masked_fill(wrong, PAD)
