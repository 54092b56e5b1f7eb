"""The titles of a catalogue as a tree of tokens: which tokens may follow a beginning of a title.

The tree is six flat arrays. Titles are sorted token by token, so the titles below a node are neighbours: a node
is a range ``first .. last`` of sorted titles, its children lie side by side, and both "which tokens are allowed
after each of these beams" and "how much probability lies below each of these children" are gathers.

Every title ends with the end token, so a title that begins another one has an end of its own: it is the branch
where the end token follows. A leaf is a whole title.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.runs import fingerprint

Ints = npt.NDArray[np.int64]
ROOT = 0
_ARRAYS = ("child_start", "token", "first", "last", "depth", "title", "leaf_of")


@dataclass(frozen=True, eq=False)
class TitleTrie:
    """N nodes, breadth first, over T distinct titles.

    Attributes
    ----------
    child_start
        ``(N + 1,)``: the children of node n are the nodes ``child_start[n] .. child_start[n + 1] - 1``.
    token
        ``(N,)`` the token that leads to a node; -1 at the root.
    first, last
        ``(N,)`` the titles below a node: the sorted titles ``first .. last - 1``.
    depth
        ``(N,)`` tokens from the root.
    title
        ``(T,)`` for each sorted title the position of its first occurrence in the input.
    leaf_of
        ``(T_in,)`` for each title of the input its place among the sorted ones; the same for equal titles.
    fingerprint
        SHA-256 of the token sequences.
    """

    child_start: Tensor
    token: Tensor
    first: Tensor
    last: Tensor
    depth: Tensor
    title: Tensor
    leaf_of: Tensor
    fingerprint: str

    @classmethod
    def from_sequences(cls, sequences: Sequence[Sequence[int]], eos: int) -> TitleTrie:
        """Build the tree, level by level.

        Parameters
        ----------
        sequences
            The tokens of each title, with or without `eos` at the end; equal ones become one leaf.
        eos
            The end token; nowhere else in a title.

        Raises
        ------
        ConfigError
            There is no title, a title has no token, or has the end token inside.
        """
        bare = [
            [*sequence[:-1]] if sequence and sequence[-1] == eos else [*sequence] for sequence in sequences
        ]
        for index, tokens in enumerate(bare):
            if not tokens or eos in tokens:
                raise ConfigError(
                    f"title {index} has the tokens {tokens[:8]}. A title needs at least one token, and the end "
                    f"token {eos} only at its end: leave out items without a title."
                )
        if not bare:
            raise ConfigError("no item has a title, so there is nothing to choose from. Pass --decode beam.")
        table = np.full((len(bare), max(map(len, bare)) + 1), -1, dtype=np.int64)  # (T_in, L)
        for row, tokens in zip(table, bare, strict=True):
            row[: len(tokens)] = tokens
            row[len(tokens)] = eos
        order = np.lexsort(table.T[::-1])  # stable: of equal titles the first stays first
        fresh = np.append(True, (table[order[1:]] != table[order[:-1]]).any(1))
        distinct, title = table[order[fresh]], order[fresh]
        leaf_of = np.empty(len(bare), dtype=np.int64)
        leaf_of[order] = np.cumsum(fresh) - 1
        arrays = (*_levels(distinct), title, leaf_of)
        named = zip(_ARRAYS, (torch.from_numpy(array) for array in arrays), strict=True)
        return cls(**dict(named), fingerprint=fingerprint(distinct.tobytes(), title.tobytes()))

    def __len__(self) -> int:
        return len(self.title)

    @property
    def longest(self) -> int:
        """Tokens of the longest title, its end included."""
        return int(self.depth.max())

    def to(self, device: torch.device | str) -> TitleTrie:
        """Return the tree with its arrays on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _ARRAYS})

    def single(self, nodes: Tensor) -> Tensor:
        """Return whether only one title is left below each node; same shape."""
        return self.last[nodes] - self.first[nodes] == 1

    def children(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(..., M)`` the children of nodes ``(...)`` and which of them exist.

        M is the largest number of children of any of the nodes, at least 1; missing ones are the root.
        """
        start, stop = self.child_start[nodes], self.child_start[nodes + 1]
        width = max(1, int((stop - start).max()))
        children = start[..., None] + torch.arange(width, device=nodes.device)  # (..., M)
        exists = children < stop[..., None]
        return torch.where(exists, children, ROOT), exists

    def leaf_masses(self, item_log_probs: Tensor, leaf_of_item: Tensor) -> Tensor:
        """Return ``(B, T + 1)`` running sums, float64, of the titles' probabilities in sorted order.

        Parameters
        ----------
        item_log_probs
            ``(B, I)`` log-probabilities of items.
        leaf_of_item
            ``(I,)`` each item's sorted title; -1 where it has none. Items with one title add up.
        """
        known = leaf_of_item >= 0
        masses = item_log_probs.new_zeros((len(item_log_probs), len(self) + 1), dtype=torch.float64)
        masses.index_add_(1, leaf_of_item[known] + 1, item_log_probs[:, known].double().exp())
        return masses.cumsum(1)

    def log_mass(self, sums: Tensor, nodes: Tensor) -> Tensor:
        """Return ``(B, ...)`` the log of the probability of all titles below nodes ``(B, ...)``.

        `sums` comes from `leaf_masses`; a difference that drowns in its rounding counts as 1e-30.
        """
        flat = nodes.flatten(1)
        mass = sums.gather(1, self.last[flat]) - sums.gather(1, self.first[flat])
        return mass.clamp_min(1e-30).log().float().reshape(nodes.shape)


def _levels(titles: Ints) -> tuple[Ints, ...]:
    """Return child_start, token, first, last and depth of the tree over sorted, distinct, padded titles."""
    count, length = titles.shape
    first, last = [np.zeros(1, dtype=np.int64)], [np.array([count])]
    token, depth = [np.array([-1])], [np.array([0])]
    children = []  # per level: how many children each of its nodes has
    border = np.zeros(count, dtype=bool)  # where a title differs from the one before, up to this level
    border[0] = True
    for level in range(length):
        border = border.copy()
        border[1:] |= titles[1:, level] != titles[:-1, level]
        starts = np.flatnonzero(border)
        stops = np.append(starts[1:], count)
        alive = titles[starts, level] >= 0  # the others ended before
        starts, stops = starts[alive], stops[alive]
        parents = np.searchsorted(first[-1], starts, side="right") - 1
        children.append(np.bincount(parents, minlength=len(first[-1])))
        first.append(starts)
        last.append(stops)
        token.append(titles[starts, level])
        depth.append(np.full(len(starts), level + 1))
    children.append(np.zeros(len(first[-1]), dtype=np.int64))
    counts = np.concatenate(children)
    child_start = np.concatenate([[1], 1 + np.cumsum(counts)])  # breadth first: children follow one another
    return (child_start, *(np.concatenate(part) for part in (token, first, last, depth)))
