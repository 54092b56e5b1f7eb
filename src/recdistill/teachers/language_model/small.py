"""A small causal language model from the catalogue and the training histories, where no hub can be reached.

It is a real one: byte-level BPE, Llama architecture, next-token training. It knows nothing but this dataset's titles
and the order in which people chose them. It is saved as an ordinary Hugging Face folder and goes through the same code
as a downloaded model.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError, unknown_name
from recdistill.extras import extra
from recdistill.knowledge.store import provenance
from recdistill.runs import MANIFEST, atomic_folder, read_json, remove_folder, write_manifest
from recdistill.teachers.language_model.model_files import quiet
from recdistill.teachers.language_model.prompts import PROMPT_TEMPLATES, PromptTemplate
from recdistill.teachers.language_model.small_data import (
    LEAST_VOCABULARY,
    PackedBlocks,
    documents,
    token_stream,
    train_tokenizer,
)
from recdistill.teachers.language_model.token_training import (
    PRECISIONS,
    LoopOptions,
    OnStep,
    Training,
    train_tokens,
)
from recdistill.teachers.work_folder import settings_fingerprint, work_folder

KIND: Final = "language_model"
DESCRIPTION: Final = (
    "a small causal language model, trained on the titles and training histories of this dataset alone"
)
_MOST_HELD_OUT: Final = 256
_LEAST: Final = {
    "hidden_size": 4,
    "layers": 1,
    "heads": 1,
    "vocabulary": LEAST_VOCABULARY,
    "context": 16,
    "batch_tokens": 16,
    "steps": 0,
}


@dataclass(frozen=True)
class SmallLmOptions:
    """Shape and training of a small language model.

    Attributes
    ----------
    hidden_size, layers, heads
        Of the Llama architecture; every head has an even width.
    vocabulary
        Tokens of the byte-level BPE, at most.
    context
        Tokens that the model reads, and tokens of a training block.
    epochs
        Passes over the histories; a part of one is possible (0.5).
    steps
        Steps instead of `epochs`; 0: as `epochs` says.
    learning_rate, warmup
        Of AdamW, largest rate; share of the steps in which it rises. It falls along a cosine to a tenth.
    batch_tokens
        Tokens a step.
    precision
        ``bf16`` for products, or ``float32``.
    valid_share
        Share of the users that are held out to watch the loss, 0 to 0.5; 256 users at most.
    seed
        Of start weights, held-out users and order.

    Raises
    ------
    ConfigError
        A value is out of range.
    """

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    vocabulary: int = 4096
    context: int = 512
    epochs: float = 2.0
    steps: int = 0
    learning_rate: float = 3e-3
    warmup: float = 0.05
    batch_tokens: int = 4096
    precision: str = "bf16"
    valid_share: float = 0.03
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}. Allowed: from {least}. See recdistill lm train --help"
                )
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if not (self.epochs > 0 and self.learning_rate > 0):
            raise ConfigError(
                f"epochs is {self.epochs} and learning_rate {self.learning_rate}. Allowed: above 0. See recdistill lm "
                "train --help"
            )
        if self.hidden_size % (2 * self.heads):
            raise ConfigError(
                f"hidden_size {self.hidden_size} cannot be divided among {self.heads} heads of an even width. Allowed: "
                f"multiples of {2 * self.heads}. Pass --hidden-size {2 * self.heads * (self.hidden_size // 16 or 1)}."
            )
        if not 0 <= self.valid_share <= 0.5 or not 0 <= self.warmup < 1:
            raise ConfigError(
                f"valid_share is {self.valid_share} and warmup {self.warmup}. Allowed: 0 to 0.5, and 0 to below 1. "
                "Use 0.03 and 0.05."
            )


def train_small_lm(
    dataset: SequenceDataset,
    out: Path | str,
    options: SmallLmOptions | None = None,
    *,
    template: PromptTemplate = PROMPT_TEMPLATES["generic"],
    overwrite: bool = False,
    on_step: OnStep | None = None,
) -> dict[str, Any]:
    """Train a language model and write its folder; a training that was killed goes on.

    Parameters
    ----------
    dataset
        Titles and training histories.
    out
        Folder to write, of Hugging Face's layout (``config.json``, ``model.safetensors``, ``tokenizer.json``,
        ``generation_config.json``) with a ``manifest.json`` that says what the model is. The training is kept in
        ``OUT.training`` until then.
    options
        See `SmallLmOptions`.
    template
        How a list of titles is written.
    overwrite
        Whether to replace the folder and start anew.
    on_step
        Called after each step with steps taken, steps in all, loss per token.

    Returns
    -------
    dict
        The manifest: parameters, vocabulary, tokens, losses.

    Raises
    ------
    DataError
        No training event has a title.
    RunError
        The folder is in the way, or the training was begun with other settings.
    MissingExtraError
        transformers or tokenizers is not installed.
    """
    options, out = options or SmallLmOptions(), Path(out)
    settings = {**asdict(options), "template": template.fingerprint, **provenance(dataset)}
    work = work_folder(out, settings, overwrite=overwrite)
    texts = documents(dataset, template)
    train, held_out = _held_out(texts, options)
    tokenizer = train_tokenizer(train, dataset.catalogue.titles, options.vocabulary, options.context)
    model = _model(tokenizer, options)
    blocks = max(1, options.batch_tokens // options.context)
    data = PackedBlocks(token_stream(tokenizer, train), options.context, blocks, options.seed)
    valid = (
        PackedBlocks(token_stream(tokenizer, held_out), options.context, blocks, 0).all_blocks()
        if held_out
        else []
    )
    done = train_tokens(model, data, valid, _loop(options, len(data.plan(0))), work, on_step=on_step)
    facts = _facts(model, tokenizer, data, texts, held_out, done)
    with atomic_folder(out, overwrite=overwrite) as folder, quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        content = {
            "fingerprint": settings_fingerprint(settings),
            "description": DESCRIPTION,
            "settings": settings,
        }
        write_manifest(folder, KIND, {**content, **facts})
    remove_folder(work)
    return {**content, **facts}


def _held_out(texts: list[str], options: SmallLmOptions) -> tuple[list[str], list[str]]:
    """Return the documents to train on, in random order, and those that watch."""
    order = np.random.default_rng(options.seed).permutation(len(texts)).tolist()
    count = min(math.ceil(options.valid_share * len(texts)), _MOST_HELD_OUT, len(texts) - 1)
    return [texts[index] for index in order[count:]], [texts[index] for index in order[:count]]


def _loop(options: SmallLmOptions, an_epoch: int) -> LoopOptions:
    epochs = options.steps / an_epoch if options.steps else options.epochs
    return LoopOptions(
        epochs=epochs,
        learning_rate=options.learning_rate,
        warmup_steps=int(options.warmup * math.ceil(epochs * an_epoch)),
        decay="cosine",
        weight_decay=0.1,
        evaluations=4 / epochs,
        save_steps=50,
        precision=options.precision,
        seed=options.seed,
    )


def _model(tokenizer: Any, options: SmallLmOptions) -> Any:
    """Return an untrained Llama with its words' vectors shared between input and output."""
    with extra("llm"):
        from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        intermediate_size=-(-8 * options.hidden_size // 3 // 32) * 32,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        max_position_embeddings=options.context,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model: Any = LlamaForCausalLM(config)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _facts(
    model: Any, tokenizer: Any, data: PackedBlocks, texts: list[str], held_out: list[str], done: Training
) -> dict[str, Any]:
    last = done.history[-1]
    return {
        "parameters": sum(value.numel() for value in model.parameters()),
        "vocabulary": len(tokenizer),
        "documents": len(texts),
        "held_out_documents": len(held_out),
        "tokens_per_epoch": len(data.stream),
        "steps": done.step,
        "best_step": done.best_step,
        "train_loss": last["train"],
        "valid_loss": done.best_loss,
        "history": done.history,
    }


def trained_on(model: str | Path, dataset: SequenceDataset) -> bool:
    """Tell whether a model folder was made by `train_small_lm` from this dataset.

    Such a model has read all training histories: a teacher's folds do not undo that.
    """
    path = Path(model) / MANIFEST
    found = read_json(path) if path.is_file() else {}
    if not isinstance(found, dict) or found.get("kind") != KIND:
        return False
    return bool(found.get("settings", {}).get("dataset_fingerprint") == dataset.fingerprint)
