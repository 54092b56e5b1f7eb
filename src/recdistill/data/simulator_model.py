"""The true next-item distribution of the simulated shop, and exact draws from it.

A shopper has a hidden taste k = (genre, platform). Given the taste, the items bought so far h_1 … h_t (h_t
last) and the time, the next item is drawn from

    p(x | k, h) ∝ open(x) · [ w_follow · F(x | h) + w_taste · P(x | k)
                              + w_explore · N(x | k) + w_popularity · P(x) ]

where ``open(x)`` is 1 for an item that is released and not yet bought and 0 otherwise, and

* ``P(x) = weight(x)`` is the long tail: the r-th item has weight ∝ ``(r + 2)^-exponent``;
* ``P(x | k)`` is P within the items of genre and platform k (a *cell*);
* ``N(x | k)`` is P within the two related genres on the same platform, half each;
* ``F(x | h) = Σ_m memory_m · f(x | h_{t-m})``, ``memory_m ∝ 0.5^m``, m = 0, 1, 2, where f prefers the next
  instalment of the same franchise.

Before every purchase but the first, the taste's genre moves to a related one with probability `drift`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recdistill.data.simulator_items import ShopItems
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MEMORY = np.array([4.0, 2.0, 1.0]) / 7.0
"""``(3,)`` weight of the last, second last and third last item in the franchise term."""


@dataclass(frozen=True, eq=False)
class NextItemModel:
    """The distribution in the module's docstring, as tables. K cells = tastes, M = the largest franchise.

    Attributes
    ----------
    items
        The I items.
    weight
        ``(I,)`` popularity P, sums to 1.
    released
        ``(I,)`` seconds since 1970 from which an item can be bought; 0: from the start.
    genres, platforms
        Taste k stands for genre ``k // platforms`` and platform ``k % platforms``; K = genres · platforms.
    mixture
        ``w_follow, w_taste, w_explore, w_popularity``, sum 1.
    drift
        Probability that the taste's genre moves before a purchase.
    """

    items: ShopItems
    weight: Floats
    released: Ints
    genres: int
    platforms: int
    mixture: tuple[float, float, float, float]
    drift: float

    @property
    def taste_count(self) -> int:
        """K, the number of tastes and of cells."""
        return self.genres * self.platforms

    @cached_property
    def cell(self) -> Ints:
        """``(I,)`` genre and platform of each item, numbered like the tastes."""
        return self.items.genre * self.platforms + self.items.platform

    @cached_property
    def cell_mass(self) -> Floats:
        """``(K,)`` total popularity of each cell; 0 where the shop has no such item."""
        return np.bincount(self.cell, weights=self.weight, minlength=self.taste_count).astype(np.float64)

    @cached_property
    def related(self) -> Floats:
        """``(K, K)`` row k: half on each of the two related genres, same platform (a ring of genres)."""
        step = np.eye(self.genres)
        ring = 0.5 * (np.roll(step, 1, axis=1) + np.roll(step, -1, axis=1))
        return np.kron(ring, np.eye(self.platforms)).astype(np.float64)

    @cached_property
    def transition(self) -> Floats:
        """``(K, K)`` how a taste moves before a purchase; rows sum to 1."""
        return (1 - self.drift) * np.eye(self.taste_count) + self.drift * self.related

    @cached_property
    def first_taste(self) -> Floats:
        """``(K,)`` distribution of a new shopper's taste: half by popularity, half uniform."""
        by_popularity: Floats = self.cell_mass / self.cell_mass.sum()
        return 0.5 * by_popularity + 0.5 / self.taste_count

    @cached_property
    def rate(self) -> Floats:
        """``(K, K)`` such that every term but the franchise's is ``weight(x) · rate[k, cell(x)]``."""
        _, taste, explore, popularity = self.mixture
        per_cell = taste * np.eye(self.taste_count) + explore * self.related
        inverse = np.divide(1.0, self.cell_mass, out=np.zeros_like(self.cell_mass), where=self.cell_mass > 0)
        return np.add(per_cell * inverse, popularity)

    @cached_property
    def members(self) -> Ints:
        """``(F, M)`` items of each franchise, `PAD` where it is smaller."""
        order = np.argsort(self.items.franchise, kind="stable")
        sizes = np.bincount(self.items.franchise)
        place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        table = np.full((len(sizes), sizes.max()), PAD, dtype=np.int64)
        table[self.items.franchise[order], place] = order
        return table

    def follow(self, last: Ints) -> tuple[Ints, Floats]:
        """Return the franchise of each item in `last` and f(· | last).

        Parameters
        ----------
        last
            ``(n,)`` items, or `PAD`: nothing bought yet.

        Returns
        -------
        ``(n, M)`` items and ``(n, M)`` probabilities; a row sums to 1, or to 0 where the item stands alone.
        """
        items = np.where(last[:, None] == PAD, PAD, self.members[self.items.franchise[last]])  # (n, M)
        step = self.items.instalment[items] - self.items.instalment[last][:, None]
        # The next instalment is the natural one; further ones, other editions and earlier ones are rarer.
        kernel = np.where(step > 0, 0.3 ** np.maximum(step - 1, 0), np.where(step == 0, 0.05, 0.1))
        kernel *= np.where(self.items.platform[items] == self.items.platform[last][:, None], 1.0, 0.3)
        kernel[(items == PAD) | (items == last[:, None])] = 0.0
        total = kernel.sum(axis=1, keepdims=True)
        return items, np.divide(kernel, total, out=np.zeros_like(kernel), where=total > 0)

    def follow_terms(self, recent: Ints) -> tuple[Ints, Floats]:
        """Return the items and terms ``w_follow · memory_m · f(x | h_{t-m})``, ``(n, 3M)`` each.

        Parameters
        ----------
        recent
            ``(n, 3)`` the last items, newest first, `PAD` where there are fewer.
        """
        pairs = [self.follow(recent[:, m]) for m in range(len(MEMORY))]
        terms = [self.mixture[0] * weight * p for weight, (_, p) in zip(MEMORY, pairs, strict=True)]
        return np.concatenate([items for items, _ in pairs], axis=1), np.concatenate(terms, axis=1)

    def scores(self, belief: Floats, recent: Ints, bought: Ints, now: Ints) -> Floats:
        """Return n distributions over all items, up to a positive factor a row.

        Parameters
        ----------
        belief
            ``(n, K)`` weight of each taste; one-hot where the taste is known.
        recent
            ``(n, 3)`` as in `follow_terms`.
        bought
            ``(n, T)`` all earlier items, `PAD` elsewhere.
        now
            ``(n,)`` time of the purchase.

        Returns
        -------
        ``(n, I)`` float64, for the referee of all models must not tie by rounding: pass few rows at a time.
        """
        scores = (belief @ self.rate)[:, self.cell] * self.weight  # (n, I)
        items, terms = self.follow_terms(recent)
        rows = np.arange(len(belief))[:, None]
        np.add.at(scores, (rows, items), terms * belief.sum(axis=1, keepdims=True))  # a PAD's term is 0
        late = np.flatnonzero(self.released > 0)
        scores[:, late] *= self.released[late] <= now[:, None]
        owners, places = np.nonzero(bought != PAD)
        scores[owners, bought[owners, places]] = 0.0
        return scores

    @cached_property
    def _cells_in_order(self) -> tuple[Ints, Floats, Floats]:
        """Items sorted by cell, cumulative popularity in that order, and before each cell ``(K + 1,)``."""
        order = np.argsort(self.cell, kind="stable")
        total = np.concatenate([[0.0], np.cumsum(self.weight[order])])
        firsts = np.searchsorted(self.cell[order], np.arange(self.taste_count + 1))
        return order, total, total[firsts]

    def draw(self, taste: Ints, recent: Ints, bought: Ints, now: Ints, rng: np.random.Generator) -> Ints:
        """Return ``(n,)`` items drawn from p(x | taste, history); arguments as in `scores`, ``taste (n,)``.

        A draw comes from one term of the mixture and is repeated until the item is open: exact, and it
        never builds a distribution over all items.
        """
        result = np.full(len(taste), PAD, dtype=np.int64)
        waiting = np.arange(len(taste))
        while len(waiting):
            item = self._propose(taste[waiting], recent[waiting], rng)
            is_open = (item != PAD) & (self.released[item] <= now[waiting])
            is_open &= ~(bought[waiting] == item[:, None]).any(axis=1)
            result[waiting[is_open]] = item[is_open]
            waiting = waiting[~is_open]
        return result

    def _propose(self, taste: Ints, recent: Ints, rng: np.random.Generator) -> Ints:
        """Draw from the mixture before `open`; `PAD` where the drawn term is empty for this shopper."""
        term = rng.choice(4, size=len(taste), p=self.mixture)
        item = np.full(len(taste), PAD, dtype=np.int64)
        rows = np.flatnonzero(term == 0)
        item[rows] = self._propose_follow(recent[rows], rng)

        genre, platform = np.divmod(taste, self.platforms)
        side = rng.choice([-1, 1], size=len(taste))
        neighbour = (genre + side) % self.genres * self.platforms + platform
        order, total, before = self._cells_in_order
        wanted = np.where(term == 1, taste, neighbour)
        low = np.where(term == 3, 0.0, before[wanted])
        high = np.where(term == 3, total[-1], before[wanted + 1])
        place = np.searchsorted(total, low + rng.random(len(taste)) * (high - low), side="right") - 1
        by_popularity = (term > 0) & (high > low)
        item[by_popularity] = order[np.minimum(place, len(order) - 1)][by_popularity]
        return item

    def _propose_follow(self, recent: Ints, rng: np.random.Generator) -> Ints:
        """Draw from F(· | h) for ``(n, 3)`` recent items."""
        lag = rng.choice(len(MEMORY), size=len(recent), p=MEMORY)
        rows = np.arange(len(recent))
        items, probabilities = self.follow(recent[rows, lag])
        total = np.cumsum(probabilities, axis=1)
        point = rng.random(len(recent))[:, None] * total[:, -1:]
        place = (total <= point).sum(axis=1)
        return np.where(total[:, -1] > 0, items[rows, np.minimum(place, items.shape[1] - 1)], PAD)


def recent_items(bought: Ints, step: int) -> Ints:
    """Return ``(n, 3)`` the last items before `step`, newest first, of ``(n, T)`` items bought in order."""
    recent = np.full((len(bought), len(MEMORY)), PAD, dtype=np.int64)
    for lag in range(min(step, len(MEMORY))):
        recent[:, lag] = bought[:, step - 1 - lag]
    return recent


def buy(model: NextItemModel, lengths: Ints, times: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return ``(U, T)`` items bought and ``(U, T)`` tastes at that moment, `PAD` after a shopper's last.

    All shoppers buy at once; the loop goes over the number of the purchase.
    """
    bought = np.full(times.shape, PAD, dtype=np.int64)
    tastes = np.full(times.shape, PAD, dtype=np.int64)
    taste = rng.choice(model.taste_count, size=len(lengths), p=model.first_taste)
    for step in range(int(lengths.max())):
        here = np.flatnonzero(lengths > step)
        if step:
            moves = rng.random(len(here)) < model.drift
            side = rng.choice([-1, 1], size=len(here))
            genre, platform = np.divmod(taste[here], model.platforms)
            taste[here] = np.where(moves, genre + side, genre) % model.genres * model.platforms + platform
        so_far = bought[here, : max(step, len(MEMORY))]
        bought[here, step] = model.draw(
            taste[here], recent_items(so_far, step), so_far, times[here, step], rng
        )
        tastes[here, step] = taste[here]
    return bought, tastes
