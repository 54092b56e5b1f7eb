"""A causal language model of the Hugging Face ecosystem, by name or folder, with or without an adapter.

Everything that reads or writes text in `recdistill.teachers` goes through `LanguageModel`: what a text is in tokens is
decided in one place. Only safetensors are read, and code that comes with a model is not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recdistill.errors import ConfigError
from recdistill.runs import fingerprint
from recdistill.teachers.language_model import model_files as files

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model and its tokenizer.

    Attributes
    ----------
    name
        As it stands in tables and manifests.
    model
        A Hugging Face causal language model in evaluation mode.
    tokenizer
        Its tokenizer.
    fingerprint
        SHA-256 over configuration, weights, tokenizer, adapter and precision.
    base
        What `load_language_model` got, for a later process to load the same; empty if it was not loaded.
    weights
        SHA-256 over the files of the model without its adapter, whatever the precision; empty if it was not loaded.
    """

    name: str
    model: Any
    tokenizer: Any
    fingerprint: str
    base: str = ""
    weights: str = ""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        found: torch.device = next(iter(self.model.parameters())).device
        return found

    @property
    def hidden_size(self) -> int:
        """H, the width of its hidden states."""
        return int(self._text_config.hidden_size)

    @property
    def context(self) -> int | None:
        """The largest number of tokens it reads, or None where its configuration names none."""
        limit = getattr(self._text_config, "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def _text_config(self) -> Any:
        config = self.model.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    @property
    def eos_id(self) -> int:
        """The token that ends an answer.

        Raises
        ------
        ConfigError
            The tokenizer has no end token.
        """
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"the tokenizer of {self.name} has no end token, so an answer could not end. Allowed: causal "
                "language models whose tokenizer names eos_token. Set it in tokenizer_config.json."
            )
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding token, else the end token: it fills up batches and is always masked."""
        found = self.tokenizer.pad_token_id
        return self.eos_id if found is None else int(found)

    @cached_property
    def start_ids(self) -> tuple[int, ...]:
        """What the tokenizer itself sets before every text: its begin token, or nothing."""
        ids = list(self.tokenizer("").input_ids)
        bos = self.tokenizer.bos_token_id
        return (int(bos),) if ids and bos is not None and ids[0] == bos else ()

    def encode(self, text: str, *, bos: bool = True) -> list[int]:
        """Return the tokens of a text, without an end token.

        The text is only text: the spelling of a special token within it (a title that reads ``</s>``) does not become
        that token.

        Parameters
        ----------
        text
            Any text.
        bos
            Whether to begin as the tokenizer begins a text; a tokenizer without begin token adds none.
        """
        return self.encode_all([text], bos=bos)[0]

    def encode_all(self, texts: list[str], *, bos: bool = True) -> list[list[int]]:
        """Return `encode` of each text, in one call of the tokenizer."""
        if not texts:
            return []
        found = self.tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        start = list(self.start_ids) if bos else []
        return [[*start, *map(int, ids)] for ids in found]

    def encode_answer(self, text: str) -> list[int]:
        """Return the tokens of a completion, without an end token, as they follow a prompt.

        Prompts end with a line break, and completions are cut as they are after one: tokenizers of the
        SentencePiece family put a space before a text that stands alone, and none there.
        """
        return self.encode_answers([text])[0]

    def encode_answers(self, texts: list[str]) -> list[list[int]]:
        """Return `encode_answer` of each text, in one call of the tokenizer."""
        before = self.encode("\n", bos=False)
        found = self.encode_all([f"\n{text}" for text in texts], bos=False)
        apart = [index for index, ids in enumerate(found) if ids[: len(before)] != before]
        alone = self.encode_all([texts[index] for index in apart], bos=False)
        answers = [ids[len(before) :] for ids in found]
        for index, ids in zip(apart, alone, strict=True):
            answers[index] = ids
        return answers

    def decode(self, ids: list[int]) -> str:
        """Return the text of tokens; special tokens are left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def load_language_model(
    name_or_dir: str | Path,
    *,
    adapter: Path | str | None = None,
    dtype: str = "auto",
    device: str | None = None,
    quantize: str | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a causal language model.

    Parameters
    ----------
    name_or_dir
        A Hugging Face folder (also one that ``recdistill lm train`` wrote), or a name on the hub.
    adapter
        A folder that `finetune` wrote: a LoRA adapter, which is merged into the weights unless they are quantised, or
        the whole tuned model.
    dtype
        ``float32``, ``bfloat16``, ``float16``, or ``auto``: float32 on a CPU, else as the model was saved.
    device
        ``cpu``, ``cuda``, ``cuda:1``...; None: the first GPU, or the CPU where there is none.
    quantize
        ``8bit``, ``4bit`` (bitsandbytes), or None.
    trust_remote_code
        Whether to run code that comes with the model.

    Raises
    ------
    ConfigError
        The model cannot be loaded, or an option does not exist.
    MissingExtraError
        transformers, peft or bitsandbytes is not installed.
    """
    where = files.usable_device(device)
    options = {**files.load_options(dtype, where, quantize), "trust_remote_code": trust_remote_code}
    source = files.model_source(name_or_dir)
    tuned = None if adapter is None else Path(adapter)
    lora = tuned is not None and files.is_adapter(tuned)
    whole = source if tuned is None or lora else files.model_source(tuned)
    model, tokenizer = files.load_files(whole, options)
    weights = fingerprint(files.content_of(whole, model))
    parts = [weights, str(model.dtype), str(quantize)]
    if tuned is not None and lora:
        parts.append(files.adapter_content(tuned, weights))
        model = files.with_adapter(model, tuned, merge=quantize is None)
    if quantize is None:
        model = model.to(where)
    shown = Path(source).name if Path(source).is_dir() else source
    name = shown if tuned is None else f"{shown} + {tuned.name}"
    return LanguageModel(name, model.eval(), tokenizer, fingerprint(*parts), source, weights)
