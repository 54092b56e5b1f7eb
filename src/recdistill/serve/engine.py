"""One exported recommender in memory: histories of item indices in, exact lists out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, DataError, RunError
from recdistill.serve.folder import Exported, read_export
from recdistill.serve.items import Items
from recdistill.serve.scorer import Ranked, Scorer
from recdistill.serve.sessions import session
from recdistill.serve.table import ItemTable
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_HISTORY, _HIDDEN, _TABLE = "history", "hidden", "item_table"
#: Histories of one call of the encoder.
_ENCODED: Final = 256


@dataclass(frozen=True)
class Effect:
    """What one item of a history did to a score: the score with it minus the score without it."""

    item: int
    effect: float


class Engine:
    """Answers with items of a catalogue. Threads may share it; nothing changes after it was made.

    Parameters
    ----------
    exported
        What was read of the folder.
    threads
        Of one matrix product. More than one pays where requests are few and the catalogue is large.
    prefilter
        Whether an 8-bit pass picks the candidates, see `recdistill.serve.prefilter`. The answers are the same.

    Raises
    ------
    RunError
        The encoder is no valid graph, or does not fit the table.
    """

    def __init__(self, exported: Exported, *, threads: int = 1, prefilter: bool = True) -> None:
        self.config = exported.config
        self.version = exported.version
        self.fingerprint = exported.fingerprint
        self.items = Items(exported.columns)
        length = self.config.get("length")
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise RunError(f"config.json has the length {length!r}. Allowed: 1 or more. Export the run anew.")
        self.length = length
        tensors = exported.tensors
        self.table = ItemTable(tensors[_TABLE], tensors.get("item_scale"), tensors.get("item_bias"))
        self._encoder = _encoder(exported, threads)
        self._scorer = Scorer(self.table, threads=threads, prefilter=prefilter)
        probe = self.encode([np.zeros(1, dtype=np.int64)])
        if probe.shape != (1, self.table.width):
            raise RunError(
                f"encoder.onnx gives {probe.shape[1:]} numbers a history, the item table has {self.table.width}. "
                "They are of two exports: recdistill export RUN --out REC --overwrite"
            )

    @classmethod
    def load(cls, folder: Path | str, *, threads: int = 1, prefilter: bool = True) -> Engine:
        """Read an exported folder (``recdistill export``).

        Raises
        ------
        RunError
            The folder is incomplete, damaged, or its parts do not fit together.
        """
        try:
            return cls(read_export(Path(folder)), threads=threads, prefilter=prefilter)
        except RunError as error:
            if str(folder) in str(error):
                raise
            raise RunError(f"{folder}: {error}") from None

    def encode(self, histories: Sequence[Ints]) -> Floats:
        """Return ``(B, H)`` hidden states; of a longer history the newest L items count.

        Raises
        ------
        DataError
            A history is empty.
        RunError
            The encoder gives numbers that are not finite.
        """
        for row, items in enumerate(histories):
            if not len(items):
                raise DataError(f"history {row} is empty. Allowed: at least one item that the model knows.")
        states = [
            self._states(histories[start : start + _ENCODED]) for start in range(0, len(histories), _ENCODED)
        ]
        return states[0] if len(states) == 1 else np.concatenate(states)

    def _states(self, histories: Sequence[Ints]) -> Floats:
        width = min(self.length, max(len(items) for items in histories))
        grid = np.full((len(histories), width), PAD, dtype=np.int64)
        for row, items in enumerate(histories):
            newest = items[-width:]
            grid[row, : len(newest)] = newest
        try:
            hidden: Floats = self._encoder.run([_HIDDEN], {_HISTORY: grid})[0]
        except Exception as error:  # onnxruntime's errors have no common base
            raise RunError(f"encoder.onnx fails ({type(error).__name__}). Export the run anew.") from None
        if not np.isfinite(hidden).all():
            raise RunError("the student gives numbers that are not finite. Train it anew: recdistill distill")
        return hidden

    def recommend(
        self,
        histories: Sequence[Ints],
        k: int,
        *,
        exclude_seen: bool = True,
        deny: Ints | None = None,
        among: Ints | None = None,
    ) -> list[Ranked]:
        """Return the k best items after each history, exactly; fewer where fewer may be answered.

        Parameters
        ----------
        histories
            Item indices, oldest first; at least one each, and one history or more.
        k
            1 or more.
        exclude_seen
            Leave out all items of the history, those before the newest L as well.
        deny
            Items that may not be answered.
        among
            The only items that may be answered; ascending, without repeats. None: all.

        Raises
        ------
        ConfigError
            `k` is below 1.
        DataError
            A history is empty.
        """
        if k < 1:
            raise ConfigError(f"k is {k}. Allowed: 1 or more.")
        hidden = self.encode(histories)
        none = np.zeros(0, dtype=np.int64)
        denied = none if deny is None else deny
        banned = [np.concatenate([items if exclude_seen else none, denied]) for items in histories]
        return self._scorer.top(hidden, k, banned=banned, among=among)

    def similar(self, item: int, k: int) -> Ranked:
        """Return the k items whose vectors have the largest cosine with that of `item`, without `item`."""
        norms = self._norms
        vector = self.table.rows(np.array([item]))[0]
        bias = 0.0 if self.table.bias is None else self.table.bias
        cosine = (self.table.all_scores(vector) - bias) / (norms * norms[item])  # (I,)
        cosine[item] = -np.inf
        k = min(k, len(cosine) - 1)
        if k < 1:
            return Ranked(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        bound = np.partition(cosine, len(cosine) - k)[len(cosine) - k]
        near = np.flatnonzero(cosine >= bound)
        best = near[np.lexsort((near, -cosine[near]))][:k]
        return Ranked(best, cosine[best].astype(np.float32))

    @cached_property
    def _norms(self) -> Floats:
        return np.maximum(self.table.norms(), np.float32(1e-12))

    def explain(self, history: Ints, item: int) -> tuple[float, list[Effect]]:
        """Return the score of `item` after a history, and what each item of the history did to it, the most first.

        The history is answered again without each of its items: a difference of real answers, not a gradient. A
        history of one item has no other half, so its list is empty. Items before the newest L do nothing.
        """
        kept = history[-self.length :]
        target = np.array([item], dtype=np.int64)
        if len(kept) == 1:
            return float(self.table.scores(self.encode([kept])[0], target)[0]), []
        without = [np.delete(kept, place) for place in range(len(kept))]
        hidden = self.encode([kept, *without])
        score, *others = (float(self.table.scores(state, target)[0]) for state in hidden)
        effects = [Effect(int(one), score - other) for one, other in zip(kept, others, strict=True)]
        return score, sorted(effects, key=lambda effect: -abs(effect.effect))


def _encoder(exported: Exported, threads: int) -> Any:
    """Return the encoder's session. Where its graph reads the item table, both use one copy in memory."""
    try:
        made = session(exported.encoder, threads, {_TABLE: exported.tensors[_TABLE]})
    except ValueError as error:
        raise RunError(
            f"encoder.onnx cannot be loaded ({error}). Export the run anew: recdistill export RUN --out REC"
        ) from None
    names = [one.name for one in made.get_inputs()], [one.name for one in made.get_outputs()]
    if names != ([_HISTORY], [_HIDDEN]):
        raise RunError(
            f"encoder.onnx has the inputs and outputs {names}. Allowed: {_HISTORY!r} and {_HIDDEN!r}. "
            "Export the run anew: recdistill export RUN --out REC"
        )
    return made
