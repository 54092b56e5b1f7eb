"""The small language model that learns to write what a large one wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.errors import unknown_name
from recdistill.runs import read_manifest
from recdistill.teachers.backends.hf import HfGenerator
from recdistill.teachers.base import Progress
from recdistill.teachers.finetuning.finetune import KIND
from recdistill.teachers.finetuning.options import FinetuneOptions
from recdistill.teachers.finetuning.texts import Pair, finetune_texts
from recdistill.teachers.generation.decoding import DecodeOptions

if TYPE_CHECKING:
    from recdistill.teachers.language_model.loading import LanguageModel


def small_generator(
    name: str,
    pairs: Sequence[Pair],
    tuning: Mapping[str, Any],
    answer_tokens: int,
    out: Path,
    bar: Callable[[str, int], Progress],
    say: Callable[[str], None],
) -> tuple[HfGenerator, LanguageModel, dict[str, Any]]:
    """Teach a small model and return it as a generator, with what is to be said about it.

    Parameters
    ----------
    name
        Folder or name of the model.
    pairs
        Prompts, and what the large model wrote.
    tuning
        Options of `FinetuneOptions`.
    answer_tokens
        Of an answer, at most.
    out
        Folder of the adapter, or the whole tuned model.
    bar, say
        As in `recdistill.teachers.rationales.asking.Work`.

    Raises
    ------
    ConfigError
        An option of the tuning does not exist, or the model cannot be loaded.
    """
    from recdistill.teachers.language_model.loading import load_language_model

    options = tuning_options(tuning)
    base = load_language_model(name)
    tick: list[Progress] = []

    def hear(step: int, steps: int, loss: float) -> None:
        if not tick:
            tick.append(bar("teaching the small model", steps))
        tick[0](1)

    finetune_texts(base, pairs, options, out, on_step=hear)
    facts = read_manifest(out, KIND)
    loss = facts["train_loss"] if facts["valid_loss"] is None else facts["valid_loss"]
    say(
        f"small model: {facts['method']} on {facts['texts']:,} texts, {facts['steps']} steps, loss {loss:.4f} per token"
    )
    lm = load_language_model(name, adapter=out)
    generator = HfGenerator(lm, DecodeOptions("greedy", max_new_tokens=answer_tokens))
    said = ("base_name", "method", "texts", "steps", "train_loss", "valid_loss", "valid_loss_before")
    return generator, lm, {key: facts[key] for key in said}


def tuning_options(tuning: Mapping[str, Any]) -> FinetuneOptions:
    """Return the options, those that are not given with their defaults.

    Raises
    ------
    ConfigError
        One does not exist.
    """
    known = asdict(FinetuneOptions())
    for key in tuning:
        if key not in known:
            raise unknown_name("option of tuning", key, known)
    return replace(FinetuneOptions(), **{"batch_size": 64, "max_tokens": 1024, **tuning})
