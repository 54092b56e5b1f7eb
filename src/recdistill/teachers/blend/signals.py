"""What a blend hears: scores of all items from transitions, texts, fields and popularity.

Every signal turns a batch of histories into ``(B, I)`` scores, and leaves out what the target of a training row put
into it. With ``P_G`` the row-normalised `TransitionGraph` of gap G, and h_k the k-th newest item, k = 0, 1, ...::

    step n(j)     = √( Σ_{k<5} 0.6^k (P_3^n)[h_k, j] ),  n = 1, 2, 3
    sequence(j)   = √( Σ_{k<50} 0.85^k P_50[h_k, j] )
    linear(j)     = √max(0, score(j)) of `LinearModel`, where there are at most 20,000 items
    a text(j)     = Σ_{k<5} 0.6^k cos(z_{h_k}, z_j)     # z: vectors of the titles, centred
    fields(j)     = the same, z: TF-IDF of the parts of the other columns (categories, genres, brand)
    popularity(j) = log(1 + how often j was a target of training)

Of a history there is one number besides, its evidence: how much is known of what follows its newest item, as a share
of training rows of which less is known. A blend may trust a signal more, or less, the more evidence there is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from recdistill.data.catalogue import Catalogue
from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.base import Scorer
from recdistill.teachers.blend.linear import MOST_ITEMS, LinearModel
from recdistill.teachers.graph.scorer import last_items, spread, unit_rows
from recdistill.teachers.graph.transitions import TransitionGraph

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

STEPS = 3
#: What may be left out like a signal: that trust depends on the evidence.
EVIDENCE = "evidence"
_RESIDUE = (
    1e-6  # what rounding leaves of an answer that was taken out must be 0: the root would make it large
)
_DIGITS = 6  # sums that differ by the rounding of a subtraction count as equal
_PARTS = re.compile(r"[>|,;]")


@dataclass(frozen=True)
class SignalOptions:
    """How a history is read. None of these is tuned: the weights of the blend are.

    Attributes
    ----------
    last_items
        How many of the last items speak in the steps and the texts, ≥ 1.
    decay
        Weight of an item relative to the one after it, in (0, 1].
    backward
        Weight of the reverse direction in the graph of near transitions, ≥ 0.
    sequence_items
        How many of the last items speak in `sequence`, ≥ 1.
    sequence_decay
        Their `decay`.
    linear_decay, shrinkage
        Of `LinearModel`, which hears as many items as `sequence`.
    """

    last_items: int = 5
    decay: float = 0.6
    backward: float = 0.35
    sequence_items: int = 50
    sequence_decay: float = 0.85
    linear_decay: float = 0.95
    shrinkage: float = 5.0

    def __post_init__(self) -> None:
        limits = {
            "last_items": (1, 1000),
            "sequence_items": (1, 1000),
            "backward": (0, 1e9),
            "shrinkage": (1e-9, 1e9),
        }
        for option in fields(self):
            value, (low, high) = getattr(self, option.name), limits.get(option.name, (1e-9, 1))
            if not low <= value <= high:
                raise ConfigError(
                    f"{option.name} is {value}. Allowed: {low:g} to {high:g}. "
                    "See the options with: recdistill teach blend --help"
                )


class Signals:
    """All signals of a dataset, by name.

    Parameters
    ----------
    dataset
        Its training events make the graphs and the counts.
    texts
        ``(I, D)`` item vectors by the name of their encoder, a zero vector where an item has no text. The signal has
        the last part of that name: ``all-MiniLM-L6-v2``.
    options
        How a history is read.
    scorers
        More signals by name, from what scores any history: a language model, say. Nothing is left out of what they
        say about training rows, so they should not have learned from those.
    without
        Names of signals that are left out; ``evidence``: trust in a signal does not depend on it.

    Raises
    ------
    ConfigError
        A name in `without` is that of no signal, or none is left.
    """

    def __init__(
        self,
        dataset: SequenceDataset,
        texts: Mapping[str, Floats] | None = None,
        options: SignalOptions | None = None,
        scorers: Mapping[str, Scorer] | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.dataset = dataset
        self.options = options or SignalOptions()
        self.near = TransitionGraph(dataset, max_gap=3, backward=self.options.backward)
        self.wide = TransitionGraph(dataset, max_gap=50, backward=1.0)
        named = texts or {}
        self.texts = {
            _short(name, named): torch.from_numpy(unit_rows(centred(table))) for name, table in named.items()
        }
        self.fields = field_vectors(dataset.catalogue)  # (I, F) sparse, or None
        self.popularity = torch.from_numpy(np.log1p(dataset.popularity)).float()  # (I,)
        self._without_own = torch.from_numpy(np.log1p(np.maximum(dataset.popularity - 1, 0))).float()
        self.scorers = dict(scorers or {})
        words = [*self.texts, *(["fields"] if self.fields is not None else [])]
        steps = [f"step {n}" for n in range(1, STEPS + 1)]
        solved = ["linear"] if dataset.item_count <= MOST_ITEMS else []
        known = [*steps, "sequence", *solved, *words, "popularity", *self.scorers]
        self._newest_sums = np.sort(self._sums_at(dataset.rows("train", prefixes=True)).round(_DIGITS))
        #: Whether trust in a signal may depend on the evidence.
        self.hears_evidence = EVIDENCE not in without
        for name in without:
            if name not in (*known, EVIDENCE):
                raise unknown_name("signal", name, [*known, EVIDENCE])
        #: The signals, in the order in which they are given.
        self.names = [name for name in known if name not in without]
        if not self.names:
            raise ConfigError(
                f"no signal is left to rank by. Allowed: any of {', '.join(known)}, but not all of them without."
            )

    def __call__(self, history: Ints, rows: Ints | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield name and ``(B, I)`` scores of every signal in `names`.

        Parameters
        ----------
        history
            ``(B, L)`` items, oldest first.
        rows
            ``(B,)`` positions of the dataset's rows that are asked about; None: of histories from elsewhere.
        """
        return (one for one in self._all(history, rows) if one[0] in self.names)

    @cached_property
    def _linear(self) -> LinearModel:
        """The ridge regression, fitted when it is first heard."""
        options = self.options
        return LinearModel(
            self.dataset,
            items=options.sequence_items,
            decay=options.linear_decay,
            shrinkage=options.shrinkage,
        )

    def evidence(self, history: Ints, rows: Ints | None = None) -> Tensor:
        """Return ``(B,)`` how much is known of what follows each history's newest item, 0 to 1.

        It is the share of training rows whose newest item has less weight in the graph of near transitions.
        Parameters as in `__call__`; what a training row put into the graph itself is left out.
        """
        items = last_items(history, 1, 1.0)[0][:, 0]  # (B,)
        sums = self.near.row_sums[items]
        if rows is not None:
            own = self.near.own_transitions(rows)
            from_newest = own.source == items[own.row]
            sums = sums - np.bincount(own.row[from_newest], own.weight[from_newest], minlength=len(items))
        less = np.searchsorted(self._newest_sums, sums.round(_DIGITS))
        return torch.from_numpy(less / max(1, len(self._newest_sums))).float()

    def _sums_at(self, rows: Ints) -> npt.NDArray[np.float64]:
        """Return ``(n,)`` the weight of all near transitions of the newest item of each row's history."""
        sums: npt.NDArray[np.float64] = self.near.row_sums[
            self.dataset.events[self.dataset.row_events[rows] - 1]
        ]
        return sums

    def _all(self, history: Ints, rows: Ints | None) -> Iterator[tuple[str, Tensor]]:
        items, weight = last_items(history, self.options.last_items, self.options.decay)  # (B, k)
        start = spread(items, weight, self.dataset.item_count)  # (B, I) sparse
        own = None if rows is None else self.near.own_transitions(rows)
        for n, scores in enumerate(self.near.steps(start, own, STEPS), 1):
            yield f"step {n}", torch.from_numpy(scores).sqrt_()
        whole = spread(
            *last_items(history, self.options.sequence_items, self.options.sequence_decay),
            self.dataset.item_count,
        )
        own = None if rows is None else self.wide.own_transitions(rows)
        yield "sequence", torch.from_numpy(next(self.wide.steps(whole, own))).sqrt_()
        if "linear" in self.names:
            fitted = self._linear(history, rows)
            yield "linear", fitted.masked_fill_(fitted < _RESIDUE, 0.0).sqrt_()
        for name, table in self.texts.items():
            near = (table[items] * torch.from_numpy(weight)[..., None]).sum(1)  # (B, D)
            yield name, near @ table.T
        if self.fields is not None:
            shared = self.fields @ (start @ self.fields).toarray().astype(np.float32).T  # (I, B)
            yield "fields", torch.from_numpy(np.ascontiguousarray(shared.T))
        yield "popularity", self._popularity(len(history), rows)
        for name, scorer in self.scorers.items():
            yield name, scorer(history).float().log_softmax(1)

    def _popularity(self, count: int, rows: Ints | None) -> Tensor:
        scores = self.popularity.repeat(count, 1)  # (B, I)
        if rows is not None:
            train = np.flatnonzero(self.dataset.is_train(rows))
            index, targets = torch.from_numpy(train), torch.from_numpy(self.dataset.targets(rows[train]))
            scores[index, targets] = self._without_own[targets]
        return scores


def _short(encoder: str, among: Collection[str]) -> str:
    """Return the last part of an encoder's name, or all of it where another has the same."""
    return encoder if sum(Path(one).name == Path(encoder).name for one in among) > 1 else Path(encoder).name


def centred(vectors: Floats) -> Floats:
    """Return the vectors less their mean over the items that have one; a zero vector stays zero."""
    there = np.abs(vectors).sum(1, keepdims=True) > 0
    mean = vectors.sum(0) / max(1, int(there.sum()))
    return np.asarray(np.where(there, vectors - mean, 0), dtype=np.float32)


def field_vectors(catalogue: Catalogue) -> sparse.csr_array | None:
    """Return ``(I, F)`` the TF-IDF of what the columns beside the title share between items, or None.

    A field is cut at ``>``, ``|``, ``,`` and ``;``; parts that name one item alone (serial numbers, say) do not count.
    Rows have length 1, or 0 where an item shares nothing.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    columns = [name for name in catalogue.text_columns if name != "title"]
    if not columns:
        return None
    parts = [_parts(text) for text in catalogue.text(columns, separator="|")]
    counts = np.unique([part for one in parts for part in set(one)], return_counts=True)[1]
    if not len(counts) or counts.max() < 2:
        return None
    vectorizer = TfidfVectorizer(analyzer=lambda one: one, min_df=2)
    return sparse.csr_array(vectorizer.fit_transform(parts), dtype=np.float32)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in _PARTS.split(text) if part.strip()]
