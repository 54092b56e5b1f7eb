"""How an item-head teacher reads items and is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, Literal

from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.item_head.model import TUNES

History = Literal["items", "titles", "both"]
HISTORIES: Final = ("items", "titles", "both")
PRECISIONS: Final = ("float32", "bf16")
#: Least and most of an option where they are not 1 and infinity.
_RANGES: Final[dict[str, tuple[float, float]]] = {
    "lora_dropout": (0, 0.99),
    "dropout": (0, 0.99),
    "id_dropout": (0, 1),
    "negatives": (0, math.inf),
    "batch_tokens": (0, math.inf),
    "learning_rate": (1e-9, 1),
    "lm_learning_rate": (1e-9, 1),
    "weight_decay": (0, math.inf),
    "gradient_clip": (0, math.inf),
    "warmup": (0, 1),
}


@dataclass(frozen=True)
class ItemHeadOptions:
    """How items are read, and how the model is trained.

    Attributes
    ----------
    history
        What stands for an item: ``items`` its soft token, ``titles`` the words of its title, ``both``.
    max_items
        L, the longest history in one pass.
    max_title_tokens
        Word tokens kept of a title.
    tune
        ``full``, ``lora``, ``frozen``, or ``auto``: full for small language models, else LoRA.
    lora_rank, lora_alpha, lora_dropout, lora_targets
        Of LoRA.
    id_size, head_size
        Widths of the free input vectors and of the head's space.
    dropout, id_dropout
        See `ItemHeadModel`.
    negatives
        Items sampled a step; 0: all items that are answers in training.
    folds
        F models that each leave out one share of the sequences and answer it; 1: one model answers all.
    epochs, patience
        At most so many passes, and how many without a better validation NDCG@20 end the training.
    batch_tokens
        Tokens a step, padding included; 0: as many as make 64 steps an epoch, within 256 and 2048.
    learning_rate, lm_learning_rate
        Of the new parts, and of the language model's own.
    weight_decay, gradient_clip, warmup
        Of AdamW; largest gradient norm (0: any); share of all steps in which the rate rises.
    precision
        ``float32``, or ``bf16`` for products.
    gradient_checkpointing
        Whether activations are computed again instead of kept.
    """

    history: History = "items"
    max_items: int = 50
    max_title_tokens: int = 24
    tune: str = "auto"
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.05
    lora_targets: str = "all-linear"
    id_size: int = 64
    head_size: int = 64
    dropout: float = 0.2
    id_dropout: float = 0.3
    negatives: int = 0
    folds: int = 3
    epochs: int = 10
    patience: int = 2
    batch_tokens: int = 0
    learning_rate: float = 2e-3
    lm_learning_rate: float = 5e-4
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    warmup: float = 0.05
    precision: Literal["float32", "bf16"] = "float32"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (("history", HISTORIES), ("tune", TUNES), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, str(getattr(self, name)), allowed)
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, str | bool):
                continue
            least, most = _RANGES.get(option.name, (1, math.inf))
            if not least <= value <= most:
                span = f"from {least}" if most == math.inf else f"{least} to {most}"
                raise ConfigError(
                    f"{option.name} is {value}. Allowed: {span}. See the options with: recdistill teach "
                    "item-head --help"
                )
