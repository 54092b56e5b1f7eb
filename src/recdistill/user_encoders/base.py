"""What a user encoder is: it changes hidden states by what is known of the rows' users.

A student's hidden state is made from the history alone. What else is known of a user, such as what a language model
wrote about him, belongs to rows: it was written at some time, and only rows after that time may use it. So everything
here is looked up by row id, and a row of which nothing is known has the plain student's hidden state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recdistill.errors import KnowledgeError
from recdistill.types import PAD

if TYPE_CHECKING:
    from recdistill.data.sequences import SequenceDataset

Ints = npt.NDArray[np.int64]

_BLOCK = 4096  # vectors formed at a time where all are formed


@dataclass(frozen=True, eq=False)
class KnownRows:
    """Which rows something is known of, and where.

    Attributes
    ----------
    row_ids
        ``(N,)`` int64, ascending, unique.
    places
        ``(N,)`` int64, indices into a table of V vectors; many rows of one user may share one.
    users
        ``(U,)`` int64, ascending: sequences of the dataset with at least one such row.
    newest
        ``(U,)`` int64, the latest such row of each of them.

    Raises
    ------
    KnowledgeError
        Row ids or users are not ascending, or the lengths do not agree.
    """

    row_ids: Ints
    places: Ints
    users: Ints
    newest: Ints

    def __post_init__(self) -> None:
        for name in ("row_ids", "users"):
            if (np.diff(getattr(self, name)) <= 0).any():
                raise KnowledgeError(
                    f"{name} of the known rows are not ascending. Allowed: each once, ascending. Make them with "
                    "KnownRows.of."
                )
        if len(self.row_ids) != len(self.places) or len(self.users) != len(self.newest):
            raise KnowledgeError(
                f"{len(self.row_ids)} rows have {len(self.places)} places and {len(self.users)} users "
                f"{len(self.newest)} newest rows. Allowed: one each. Make them with KnownRows.of."
            )

    @classmethod
    def of(cls, dataset: SequenceDataset, row_ids: npt.ArrayLike, places: npt.ArrayLike) -> KnownRows:
        """Return the index of rows of a dataset.

        Parameters
        ----------
        dataset
            Tells whose the rows are, and which is the latest.
        row_ids
            ``(N,)`` distinct, in any order.
        places
            ``(N,)`` where each row's vector is.
        """
        ids, at = np.asarray(row_ids, dtype=np.int64), np.asarray(places, dtype=np.int64)
        order = np.argsort(ids)
        ids, at = ids[order], at[order]
        rows = dataset.positions_of(ids)
        owners, events = dataset.row_sequences[rows], dataset.row_events[rows]
        by_time = np.lexsort((events, owners))
        last = np.flatnonzero(np.diff(owners[by_time], append=PAD))  # the last of each owner
        return cls(ids, at, owners[by_time][last], ids[by_time][last])


class UserEncoder(nn.Module):
    """Changes hidden states by what is known of the rows.

    Parameters
    ----------
    known
        The rows, and where their vectors are.
    vectors
        ``(V, D)`` float, what is known; None where a subclass keeps it otherwise.
    persistent
        Whether `vectors` and the index are part of the state that is saved. Where they come from a folder they
        are not.

    Attributes
    ----------
    requires
        Fields of the knowledge in words that its maker takes.
    row_ids, places, users, newest
        As in `KnownRows`, as buffers.
    saved_as
        Name in `recdistill.user_encoders.SAVED` of what it becomes at export.
    term_weight
        λ of the term that it adds to the loss; 0: none.

    Raises
    ------
    KnowledgeError
        A place is outside the table.
    """

    requires: frozenset[str] = frozenset()
    saved_as: ClassVar[str] = "vectors"
    term_weight: float = 0.0
    row_ids: Tensor
    places: Tensor
    users: Tensor
    newest: Tensor
    vectors: Tensor

    def __init__(self, known: KnownRows, vectors: Tensor | None = None, *, persistent: bool = False) -> None:
        super().__init__()
        if vectors is not None and len(known.places) and int(known.places.max()) >= len(vectors):
            raise KnowledgeError(
                f"a row's vector is number {int(known.places.max())}, and there are {len(vectors)}. Allowed: 0 to "
                f"{len(vectors) - 1}. Make the folder anew: recdistill rationales."
            )
        for name in ("row_ids", "places", "users", "newest"):
            array = np.ascontiguousarray(getattr(known, name), dtype=np.int64)
            self.register_buffer(name, torch.from_numpy(array.copy()), persistent=persistent)
        if vectors is not None:
            self.register_buffer("vectors", vectors, persistent=persistent)

    def forward(
        self, hidden: Tensor, row_ids: Tensor, history: Tensor, lengths: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return ``(S, H)``: hidden states changed by what is known of the rows.

        A row that nothing is known of keeps its hidden state, digit by digit.

        Parameters
        ----------
        hidden
            ``(S, H)`` the student's.
        row_ids
            ``(S,)`` int64; `PAD`, or an id that is not there: nothing is known.
        history, lengths, positions
            As in `recdistill.types.Batch`.
        """
        raise NotImplementedError

    def locate(self, row_ids: Tensor) -> Tensor:
        """Return ``(S,)`` where each row's vector is, `PAD` where nothing is known."""
        if not len(self.row_ids):
            return torch.full_like(row_ids, PAD)
        at = torch.searchsorted(self.row_ids, row_ids).clamp_max(len(self.row_ids) - 1)
        return torch.where(self.row_ids[at] == row_ids, self.places[at], PAD)

    def known(self) -> KnownRows:
        """Return the index of the rows."""
        names = ("row_ids", "places", "users", "newest")
        return KnownRows(*(getattr(self, name).cpu().numpy() for name in names))

    def rows_of(self, users: npt.ArrayLike) -> Ints:
        """Return ``(n,)`` the latest known row of each user (a sequence of the dataset), `PAD` for a stranger."""
        wanted, there = np.asarray(users, dtype=np.int64), self.users.cpu().numpy()
        if not len(there):
            return np.full(len(wanted), PAD, dtype=np.int64)
        at = np.minimum(np.searchsorted(there, wanted), len(there) - 1)
        newest: Ints = np.where(there[at] == wanted, self.newest.cpu().numpy()[at], PAD)
        return newest

    def term(self) -> Tensor:
        """Return the unweighted term of the last forward pass in training; asked for where `term_weight` is not 0."""
        raise NotImplementedError

    def fold(self) -> UserEncoder:
        """Return what it does in evaluation mode, without the texts and their encoder: a copy for good."""
        raise NotImplementedError

    def saved_options(self) -> dict[str, Any]:
        """Return what a folded encoder's ``from_state`` needs besides its tensors, JSON-able."""
        return {}


def in_blocks(count: int) -> Iterator[slice]:
    """Yield slices that cover ``0 .. count - 1``, for whoever forms all vectors at once."""
    for start in range(0, count, _BLOCK):
        yield slice(start, min(start + _BLOCK, count))
