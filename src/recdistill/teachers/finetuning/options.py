"""How a language model is fine-tuned to answer prompts with titles.

=============== ==================== =========================== ======================================
option          ``official``         ``modern``                  where the official value comes from
=============== ==================== =========================== ======================================
rank, alpha     8, 16                16, 32                      BIGRec's training script
dropout         0.05                 0.05                        the same
targets         q_proj, v_proj       every linear layer          the same
learning rate   1e-4                 2e-4 (LoRA), 3e-4 (full)    README (the script's default is 3e-4)
batch size      128                  128                         README
epochs          50, patience 5       3, patience 1               README, script
samples         1,024                8,192                       README
loss            prompt and answer    answer                      ``--train_on_inputs`` in their command
tokens          512                  512                         script
=============== ==================== =========================== ======================================

Where the authors' code differs: their model is loaded in 8 bits, which needs a GPU (`load_language_model`'s
``quantize``); their products are in fp16, here in bf16, whose range needs no loss scaling; a prompt that is too long
loses its oldest titles here, its end, and so the answer, there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from torch import nn

from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.language_model.token_training import PRECISIONS

METHODS: Final = ("auto", "lora", "full")
#: Up to so many parameters ``auto`` trains them all: LoRA on a narrow model can express too little.
SMALL: Final = 50_000_000
_LEAST: Final = {
    "dropout": 0,
    "samples": 0,
    "patience": 0,
    "warmup_steps": 0,
    "valid_rows": 0,
    "weight_decay": 0,
    "gradient_clip": 0,
}


@dataclass(frozen=True)
class FinetuneOptions:
    """What is trained, on how many rows, for how long.

    Attributes
    ----------
    method
        ``lora``, ``full``, or ``auto``: full below 50 million parameters, else LoRA.
    rank, alpha, dropout, targets
        Of LoRA; targets are ``all-linear``, or names with commas between (``q_proj,v_proj``).
    samples
        Rows drawn to learn from; 0: all.
    last_items
        How many of the last items a prompt tells.
    max_tokens
        Of prompt and answer together.
    loss_on_prompt
        Whether the words of the prompt are learned too.
    epochs, patience
        At most so many passes; evaluations (one an epoch) without a lower validation loss that end the training, 0:
        never.
    learning_rate
        None: 2e-4 for LoRA, 3e-4 for a full model, 1e-3 for a full model of less than 50 million parameters.
    warmup_steps
        Steps in which the rate rises; it falls along a line to zero.
    batch_size
        Rows a step.
    batch_tokens
        Tokens that are computed at a time, padding included: what memory allows.
    weight_decay
        Of AdamW, on matrices only.
    gradient_clip
        Largest gradient norm; 0: any.
    valid_rows
        Validation rows on which the loss is watched.
    precision
        ``bf16`` for products, or ``float32``.
    gradient_checkpointing
        Less memory, more time.
    seed
        Of sample, order, start weights and dropout.

    Raises
    ------
    ConfigError
        A value does not exist or is out of range.
    """

    method: str = "auto"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: str = "all-linear"
    samples: int = 8192
    last_items: int = 10
    max_tokens: int = 512
    loss_on_prompt: bool = False
    epochs: float = 3
    patience: int = 1
    learning_rate: float | None = None
    warmup_steps: int = 20
    batch_size: int = 128
    batch_tokens: int = 8192
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    valid_rows: int = 1024
    precision: str = "bf16"
    gradient_checkpointing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("method", METHODS), ("precision", PRECISIONS)):
            if getattr(self, name) not in allowed:
                raise unknown_name(name, getattr(self, name), allowed)
        for option in fields(self):
            value, least = getattr(self, option.name), _LEAST.get(option.name, 1e-12)
            if isinstance(value, int | float) and option.name not in ("seed", "loss_on_prompt"):
                _check_range(option.name, value, least)
        if self.dropout >= 1:
            raise ConfigError(f"dropout is {self.dropout}. Allowed: 0 to below 1. Use 0.05.")

    @property
    def target_modules(self) -> str | list[str]:
        """As peft takes them."""
        names = [name.strip() for name in self.targets.split(",") if name.strip()]
        return self.targets if self.targets == "all-linear" else names


def _check_range(name: str, value: float, least: float) -> None:
    if isinstance(value, bool) or (value >= least and math.isfinite(value)):
        return
    allowed = "above 0" if least else "from 0"
    raise ConfigError(f"{name} is {value}. Allowed: {allowed}. See recdistill teach bigrec --help")


PRESETS: Final[dict[str, FinetuneOptions]] = {
    "modern": FinetuneOptions(),
    "official": FinetuneOptions(
        method="lora",
        rank=8,
        alpha=16,
        targets="q_proj,v_proj",
        samples=1024,
        loss_on_prompt=True,
        epochs=50,
        patience=5,
        learning_rate=1e-4,
        valid_rows=5000,
    ),
}


def chosen_method(method: str, model: nn.Module) -> str:
    """Return ``lora`` or ``full``.

    Raises
    ------
    ConfigError
        A quantised model shall be trained in full.
    """
    quantised = bool(getattr(model, "is_quantized", False))
    if method == "full" and quantised:
        raise ConfigError(
            "a model in 8 or 4 bits cannot be trained in full. Allowed: method lora. Pass --method lora, or load the "
            "model without --quantize."
        )
    if method != "auto":
        return method
    return "full" if parameter_count(model) < SMALL and not quantised else "lora"


def chosen_rate(options: FinetuneOptions, method: str, model: nn.Module) -> float:
    """Return the largest learning rate."""
    if options.learning_rate is not None:
        return options.learning_rate
    if method == "lora":
        return 2e-4
    return 1e-3 if parameter_count(model) < SMALL else 3e-4


def parameter_count(model: nn.Module) -> int:
    """Return how many parameters a model has."""
    return sum(value.numel() for value in model.parameters())
