"""UnKD: Unbiased Knowledge Distillation, Chen et al., WSDM 2023. https://arxiv.org/abs/2211.14729

A teacher ranks popular items high, and a student that copies it more so. UnKD compares items of about the same
popularity only. The catalogue is cut into groups by popularity; within the group g of a row, with f the student's
scores and pi_g the group's items in the teacher's order:

(1)  L = mean over pairs of softplus(-(f_{i+} - f_{i-}))
(2)  i+, i- from pi_g with p_k ~ exp(-k / mu) at place k = 0, 1 ..; the better-placed is i+, equal draws are redrawn

=============  ==================  =======  ===========  =============================================
symbol         name in code        shape    default      where the default comes from
=============  ==================  =======  ===========  =============================================
G              groups              (I,)     2            the authors' code (4 in its README)
.              pairs                        30           the authors' code: of a row, over all groups
mu             temperature                  20           the authors' code
.              pool                         1000         the authors' code: how far down the list goes
=============  ==================  =======  ===========  =============================================

Where the authors' code differs
1. It ranks all items of a group by the teacher's scores. Here pi_g are the listed items of the group, so that a
   list of 100 and more is advised. A row that lists one item of a group takes i- from the group's other items;
   a row that lists none has no pair there.
2. Its cut can give G + 1 groups, and then indexes out of range: the last ones hold what is left. Here the groups
   are as many as they are, and `pairs` are shared out among them.
3. One pair of equal draws makes it redraw all pairs of the group. Here that pair alone; one that is equal
   after 16 draws is left out.
4. It draws once an epoch, here once a step. It can give groups unequal shares of the pairs (lambda' in its
   paper); its default, and ours, are equal ones.
5. It adds 1e-10 inside the logarithm. Here softplus; no switch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from recdistill.strategies.base import ListStrategy
from recdistill.strategies.lookup import place_in
from recdistill.strategies.options import positive
from recdistill.strategies.teacher_lists import TeacherList, teacher_list
from recdistill.strategies.weights import divided
from recdistill.types import PAD, Batch, StudentOutput, Task

_ROUNDS = 16


class UnKD(ListStrategy):
    """Unbiased Knowledge Distillation, eq. (1).

    Parameters
    ----------
    groups
        G, groups of items that `popularity_groups` aims at, at least 1.
    pairs
        Pairs a row over all groups, at least 1.
    temperature
        mu > 0 of (2), in places.
    pool
        How far down the teacher's list goes.
    exclude_target, exclude_history
        Whether these items leave the list.

    Raises
    ------
    ConfigError
        A value is outside its range.
    """

    requires = frozenset({"ranking"})
    group_of: Tensor
    members: Tensor
    slots: Tensor
    starts: Tensor

    def __init__(
        self,
        *,
        groups: int = 2,
        pairs: int = 30,
        temperature: float = 20.0,
        pool: int = 1000,
        exclude_target: bool = True,
        exclude_history: bool = False,
    ) -> None:
        super().__init__()
        positive(groups=groups, pairs=pairs, temperature=temperature, pool=pool)
        self.groups, self.pairs, self.temperature, self.pool = groups, pairs, temperature, pool
        self.exclude_target, self.exclude_history = exclude_target, exclude_history
        for name in ("group_of", "members", "slots", "starts"):
            self.register_buffer(name, torch.empty(0, dtype=torch.int64), persistent=False)

    def prepare(self, task: Task) -> None:
        """Cut the catalogue into groups by the items' popularity as training targets."""
        group_of = popularity_groups(task.popularity, self.groups)  # (I,)
        self.group_of = group_of.to(self.group_of.device)
        self.members = group_of.argsort(stable=True).to(self.members.device)  # (I,), group after group
        self.slots = self.members.argsort()  # (I,), where an item stands among the members
        counts = torch.bincount(group_of)  # (G,)
        self.starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(self.starts.device)  # (G + 1,)

    def per_row(self, output: StudentOutput, batch: Batch) -> Tensor:
        """Return ``(S,)``, eq. (1) of each row."""
        listed = teacher_list(
            batch, self.pool, exclude_target=self.exclude_target, exclude_history=self.exclude_history
        )
        better, worse, mask = self.draw(listed)  # (S, P)
        # an item that nobody bought and the teacher does not list is no worse than one it lists
        mask &= ~output.is_cold(worse) | (place_in(listed.items, worse) != PAD)
        scores = output.scores(torch.cat([better, worse], dim=1)).float()  # (S, 2 P)
        losses = softplus(scores[:, better.shape[1] :] - scores[:, : better.shape[1]])
        return divided(losses.masked_fill(~mask, 0.0).sum(1), mask.sum(1).float())

    @torch.no_grad()
    def draw(self, listed: TeacherList) -> tuple[Tensor, Tensor, Tensor]:
        """Return i+ and i- of each pair, ``(S, P)``, and which pairs there are."""
        count = len(self.starts) - 1
        group = self.group_of[listed.items.clamp_min(0)].masked_fill(~listed.mask, count)  # (S, W)
        group, order = group.sort(dim=1, stable=True)  # group after group, each in the teacher's order
        items = listed.items.gather(1, order)
        bounds = torch.arange(count + 1, device=group.device).expand(len(group), -1).contiguous()
        edges = torch.searchsorted(group, bounds)  # (S, G + 1)
        lengths = edges.diff(dim=1)  # (S, G)
        first, second, mask = self._places(lengths)  # (S, G, m)
        column = edges[:, :-1, None] + torch.stack([first, second])  # (2, S, G, m)
        column = column.clamp_max(items.shape[1] - 1)
        better, worse = (items.gather(1, part.flatten(1)) for part in column)
        alone = (lengths == 1).unsqueeze(2).expand_as(mask).flatten(1)
        other, some = self._others(better.view(mask.shape))
        mask = mask.flatten(1) | (alone & some.flatten(1))
        return better, torch.where(alone, other.flatten(1), worse), mask

    def _places(self, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return two places ``(S, G, m)`` of each pair by (2), the better first, and whether they differ."""
        shape = (*lengths.shape, -(-self.pairs // lengths.shape[1]))
        lengths = lengths.unsqueeze(2).expand(shape)
        both = self._draw_places(lengths)
        for _ in range(_ROUNDS - 1):
            equal = (both[0] == both[1]) & (lengths > 1)
            if not equal.any():
                break
            both[:, equal] = self._draw_places(lengths[equal])
        return both.amin(0), both.amax(0), both[0] != both[1]

    def _draw_places(self, lengths: Tensor) -> Tensor:
        """Return two places for every length, by the inverse of the distribution function of (2)."""
        share = torch.rand(2, *lengths.shape, device=lengths.device)
        mass = 1 - torch.exp(-lengths / self.temperature)
        places = (-self.temperature * torch.log1p(-share * mass)).long()
        return places.minimum((lengths - 1).clamp_min(0))

    def _others(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return for ``(S, G, m)`` items another of their group at random, and whether there is one."""
        group = self.group_of[items.clamp_min(0)]
        start, size = self.starts[group], self.starts[group + 1] - self.starts[group]
        drawn = (torch.rand(items.shape, device=items.device) * (size - 1)).long()
        drawn = drawn.minimum((size - 2).clamp_min(0))
        drawn = drawn + (start + drawn >= self.slots[items.clamp_min(0)])  # past the item itself
        return self.members[(start + drawn).clamp_max(len(self.members) - 1)], size > 1


def popularity_groups(popularity: Tensor, groups: int) -> Tensor:
    """Return ``(I,)`` int64, the group of each item, from 0 (most popular).

    Items are taken by falling popularity; a group ends before its sum would exceed the total divided by `groups`.
    What is left at the end is a group if its sum exceeds half of that, else it joins the last one. There can be
    one group more than asked for, or fewer.

    Parameters
    ----------
    popularity
        ``(I,)``, at least 0.
    groups
        G, at least 1.
    """
    order = popularity.argsort(descending=True, stable=True)
    limit = float(popularity.double().sum()) / groups
    group_of = torch.zeros(len(popularity), dtype=torch.int64)
    number, total, size, ends = 0, 0.0, 0, []
    for place, value in enumerate(popularity.double()[order].tolist()):
        if size and total + value > limit * (1 + 1e-9):
            ends.append(place)
            number, total, size = number + 1, 0.0, 0
        total, size = total + value, size + 1
    if ends and not total > limit / 2:
        ends.pop()
    edges = torch.tensor(ends, dtype=torch.int64)
    group_of[order.cpu()] = torch.searchsorted(edges, torch.arange(len(order)), right=True)
    return group_of
