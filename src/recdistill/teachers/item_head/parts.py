"""What item-head models are built from: the language model, item text and options; and the catalogue as tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.teachers.item_head.model import ItemHeadModel, choose_tuning, decoder_of, tuned_decoder
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.plan import Plan, Segments, item_tokens, segments
from recdistill.teachers.training_state import trainable

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: How a title is written where the model reads titles.
SURFACE = '"{title}", '

_STEPS, _LEAST_TOKENS, _MOST_TOKENS = 64, 256, 2048


class ItemHeadParts:
    """Builds the model once and brings it back to its start weights as often as a training begins.

    Parameters
    ----------
    lm
        A `LanguageModel`, or anything with its ``name``, ``model`` and ``encode``. It is trained in place.
    text
        ``(I, D_t)`` item text vectors, or None.
    options
        See `ItemHeadOptions`; ``tune="auto"`` is decided here.
    seed
        Of the start weights.
    instruction
        Words in front of every history.
    given
        ``(I, d_in)`` input vectors that are not trained, see `ItemHeadModel`; None: they are learned.
    """

    def __init__(
        self,
        lm: Any,
        text: Floats | None,
        options: ItemHeadOptions,
        *,
        seed: int = 0,
        instruction: str = "",
        given: Tensor | None = None,
    ) -> None:
        self.lm, self.text, self.seed, self.instruction, self.given = lm, text, seed, instruction, given
        self.options = replace(options, tune=choose_tuning(options.tune, decoder_of(lm.model)))
        self._built: tuple[ItemHeadModel, dict[str, Tensor]] | None = None
        self._tokens: Segments | None = None

    def fresh(self, dataset: SequenceDataset) -> ItemHeadModel:
        """Return the model with its start weights: always the same object, so that one is in memory."""
        model, start = self._model(dataset)
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                parameter.copy_(start[name])
        return model

    def segments(self, dataset: SequenceDataset) -> Segments:
        """Tokenise the catalogue once."""
        if self._tokens is None:
            kind, words = self.options.history, None
            if kind != "items":
                words = item_tokens(
                    dataset.catalogue.titles, self._encode, SURFACE, self.options.max_title_tokens
                )
            self._tokens = segments(
                words,
                dataset.item_count,
                self._model(dataset)[0].vocabulary,
                soft=kind != "titles",
                prefix=self.lm.encode(self.instruction, bos=True),
            )
        return self._tokens

    def choose_batch(self, dataset: SequenceDataset, rows: Ints) -> None:
        """Choose the batch where the options leave it open. Few rows need small steps: three an epoch teach nothing.

        Parameters
        ----------
        dataset
            The rows' dataset.
        rows
            ``(n,)`` positions of the training rows.
        """
        if not self.options.batch_tokens:
            tokens = Plan.of(dataset, self.segments(dataset), rows, self.options.max_items).widths.sum()
            size = int(np.clip(tokens // _STEPS, _LEAST_TOKENS, _MOST_TOKENS))
            self.options = replace(self.options, batch_tokens=size)

    def require_context(self, dataset: SequenceDataset, rows: Ints) -> None:
        """Refuse passes that are longer than the language model reads.

        Raises
        ------
        ConfigError
            One of the ``(n,)`` rows needs more tokens than the model has positions.
        """
        limit = getattr(self.lm.model.config, "max_position_embeddings", None)
        plan = Plan.of(dataset, self.segments(dataset), rows, self.options.max_items)
        widest = int(plan.widths.max(initial=0))
        if limit is not None and widest > limit:
            raise ConfigError(
                f"a history of {self.options.max_items} items takes {widest} tokens, and {self.lm.name} reads {limit}. "
                f"Allowed: up to {limit}. Pass a smaller --max-items or --max-title-tokens, or --history items."
            )

    def _model(self, dataset: SequenceDataset) -> tuple[ItemHeadModel, dict[str, Tensor]]:
        """Build the model once; every training starts from the same weights."""
        if self._built is None:
            options, whole = self.options, decoder_of(self.lm.model)
            if options.tune == "full":
                whole = whole.float()
            device = next(whole.parameters()).device
            if options.gradient_checkpointing:
                whole.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(self.seed)
                decoder = tuned_decoder(
                    whole,
                    options.tune,  # type: ignore[arg-type]
                    rank=options.lora_rank,
                    alpha=options.lora_alpha,
                    dropout=options.lora_dropout,
                    targets=options.lora_targets,
                )
                model = ItemHeadModel(
                    decoder,
                    None if self.text is None else torch.from_numpy(self.text),
                    dataset.item_count,
                    id_size=options.id_size,
                    head_size=options.head_size,
                    dropout=options.dropout,
                    id_dropout=options.id_dropout,
                    given=self.given,
                ).to(device)
            self._built = model, {name: p.detach().clone() for name, p in trainable(model).items()}
        return self._built

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self.lm.encode(text, bos=False)
        return tokens
