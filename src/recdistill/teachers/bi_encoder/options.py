"""The options of the bi-encoder teacher."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.text.tower_loading import TUNES

QUERIES: Final[tuple[str, ...]] = ("pooled", "text")
NEGATIVES: Final[tuple[str, ...]] = ("catalogue", "batch")

_LOW: Final = {
    "folds": 1,
    "train_share": 1e-9,
    "temperature": 1e-9,
    "head_epochs": 0,
    "epochs": 0,
    "sample": 0,
    "rows_per_step": 0,
    "learning_rate": 1e-12,
    "tower_learning_rate": 1e-12,
    "weight_decay": 0,
}


@dataclass(frozen=True)
class BiEncoderOptions:
    """How the bi-encoder reads and is trained.

    Attributes
    ----------
    query
        ``pooled``: attention over the vectors of the history's titles; ``text``: the titles as one text.
    last_items
        L, how many of the last items a query reads, ≥ 1.
    size
        D, width of queries and items; at most the encoder's own.
    temperature
        τ at the start, > 0; it is trained.
    tune
        ``layers`` (the encoder's last ones), ``lora``, ``full``, or ``none``: only the head.
    layers, lora_rank
        How many layers; rank of LoRA.
    negatives
        ``catalogue``: all items compete, through a sample that is corrected for its size; ``batch``: the answers of
        the other rows of a step, corrected for their popularity.
    sample
        Items that compete in a step of ``catalogue``; 0: all.
    titles_per_step
        Titles that are encoded with gradients in a step.
    rows_per_step
        Rows of a step of ``catalogue`` while the encoder is trained; 0: 2048 for pooled queries, 64 for text.
    head_epochs
        Passes over the rows before the encoder moves.
    epochs, patience
        At most so many passes with the encoder, and how many refreshes without a better validation NDCG@20 end them.
    refreshes
        How often in a pass all item vectors are computed anew, the model is judged and its state is saved.
    learning_rate, tower_learning_rate, weight_decay
        Of AdamW, for the head and for the encoder.
    folds
        F: no training row is answered by a model that was trained on its sequence. 1: one model, see `train_share`.
    train_share
        With one fold, the share of the sequences that it is trained on, in (0, 1].
    answer_trained
        With one fold, whether it answers the rows it was trained on too.
    """

    query: str = "pooled"
    last_items: int = 10
    size: int = 256
    temperature: float = 0.08
    tune: str = "layers"
    layers: int = 2
    lora_rank: int = 16
    negatives: str = "catalogue"
    sample: int = 2048
    titles_per_step: int = 128
    rows_per_step: int = 0
    head_epochs: int = 1
    epochs: int = 3
    patience: int = 1
    refreshes: int = 1
    learning_rate: float = 3e-4
    tower_learning_rate: float = 5e-5
    weight_decay: float = 0.01
    folds: int = 2
    train_share: float = 0.5
    answer_trained: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("query", QUERIES), ("tune", TUNES), ("negatives", NEGATIVES)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed)
        for option in fields(self):
            value, least = getattr(self, option.name), _LOW.get(option.name, 1)
            if not isinstance(value, str | bool) and not value >= least:
                raise self._wrong(option.name, f"from {least:g}")
        if self.train_share > 1:
            raise self._wrong("train_share", "above 0, at most 1")
        if self.titles_per_step < 2:
            raise self._wrong("titles_per_step", "from 2")

    def _wrong(self, name: str, allowed: str) -> ConfigError:
        return ConfigError(
            f"{name} is {getattr(self, name)}. Allowed: {allowed}. "
            "See the options with: recdistill teach bi-encoder --help"
        )

    @property
    def step_rows(self) -> int:
        """Rows of a step of ``catalogue`` while the encoder is trained."""
        return self.rows_per_step or (2048 if self.query == "pooled" else 64)
