"""Titles and generated texts in one space, and what decides that space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, unknown_name
from recdistill.knowledge.arrays import open_arrays, write_arrays
from recdistill.runs import fingerprint
from recdistill.teachers.grounding.beams import TitleIndex, check_beam_rule
from recdistill.teachers.grounding.encoders import TextEncoder, Whitening
from recdistill.teachers.grounding.grounder import METRICS, Grounder

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GroundOptions:
    """How texts are grounded.

    Attributes
    ----------
    metric
        ``l2``, ``squared_l2`` or ``cosine``.
    whiten
        Directions that are kept when vectors are whitened; 0: all; None: no whitening.
    beam_rule
        ``first`` or ``beams_first``, see `grounding_beams`.
    top_k
        Items kept of each ranking.

    Raises
    ------
    ConfigError
        A value does not exist or is out of range.
    """

    metric: str = "l2"
    whiten: int | None = None
    beam_rule: str = "first"
    top_k: int = 50

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise unknown_name("metric", self.metric, METRICS)
        check_beam_rule(self.beam_rule)
        if self.top_k < 1 or (self.whiten is not None and self.whiten < 0):
            raise ConfigError(
                f"grounding with top_k={self.top_k}, whiten={self.whiten} is not possible. Allowed: top_k from 1, "
                "whiten from 0 (all directions). Pass --top-k 50 --whiten 128."
            )


@dataclass(frozen=True, eq=False)
class GroundSpace:
    """Titles and texts as vectors, in the space in which distances are measured.

    Attributes
    ----------
    index
        Which items have which title.
    grounder
        Over `table`.
    table
        ``(I, R)`` the items.
    others
        ``(T, R)`` the texts that are no title, each once.
    place
        ``(n,)`` where each row's vector is: below I in `table`, else in `others`.
    """

    index: TitleIndex
    grounder: Grounder
    table: Floats
    others: Floats
    place: Ints

    @classmethod
    def build(
        cls,
        titles: Sequence[str],
        texts: Sequence[str],
        encoder: TextEncoder,
        cache: Path,
        options: GroundOptions,
    ) -> GroundSpace:
        """Encode titles and texts, and whiten them where that is wanted.

        Parameters
        ----------
        titles
            The I titles, normalised; empty where there is none.
        texts
            The n texts, normalised.
        encoder
            Embeds both.
        cache
            Folder where vectors are kept.
        options
            Metric and whitening.

        Raises
        ------
        ConfigError
            No item has a title.
        """
        index = TitleIndex(titles)
        usable = np.array([bool(title) for title in titles])
        if not usable.any():
            raise ConfigError(
                f"none of the {len(titles)} items has a title, so no text can be grounded. A teacher without text "
                "is needed: recdistill teach graph --encoder none"
            )
        unknown = {text: place for place, text in enumerate(sorted(set(texts) - set(index.items)))}
        place = [index.exact(text)[0] if index.exact(text) else len(titles) + unknown[text] for text in texts]
        distinct = list(index.items)  # items with one title get the very same vector
        of_title = dict(zip(distinct, encoded(distinct, encoder, cache), strict=True))
        width = len(of_title[distinct[0]])
        table = np.array([of_title.get(title, np.zeros(width)) for title in titles], dtype=np.float32)
        others = encoded(list(unknown), encoder, cache) if unknown else np.zeros((0, width), dtype=np.float32)
        if options.whiten is not None:
            whitening = Whitening.fit(table, usable, min(options.whiten, width) or None)
            table, others = whitening.apply(table) * usable[:, None], whitening.apply(others)
        grounder = Grounder(table, usable, metric=options.metric)
        return cls(index, grounder, table, others, np.array(place, dtype=np.int64))

    def queries(self, part: Ints) -> Floats:
        """Return ``(len(part), R)``."""
        place, items = self.place[part], len(self.table)
        found = self.table[np.minimum(place, items - 1)]  # a copy
        found[place >= items] = self.others[place[place >= items] - items]
        return found


def encoded(texts: list[str], encoder: TextEncoder, cache: Path) -> Floats:
    """Return ``(n, D)`` vectors, kept in a file by the hash of texts and encoder.

    A run that was stopped while grounding reads them again, to the digit: what else is in a batch changes the last
    digits of a vector.
    """
    path = cache / f"{fingerprint(encoder.fingerprint, *texts)[:32]}.safetensors"
    if not path.is_file():
        write_arrays(path, {"vectors": encoder.encode(texts)})
    return np.asarray(open_arrays(path)["vectors"], dtype=np.float32)
