"""The rows a language model learns from, as tokens: prompt, answer, end.

The prompt is the one of generation, token for token, and the answer follows it as it will be written: what is generated
after a prompt continues the same tokens that training saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from recdistill.data.sequences import PREFIX, SPLIT_NAMES, Ints, SequenceDataset
from recdistill.errors import ConfigError, DataError
from recdistill.teachers.grounding.encoders import batches
from recdistill.teachers.language_model.loading import LanguageModel
from recdistill.teachers.language_model.prompts import PromptTemplate
from recdistill.teachers.language_model.token_loss import TokenBatch, padded_batch

_CHUNK: Final = 2048


def rows_with_titles(dataset: SequenceDataset, rows: Ints, last_items: int) -> Ints:
    """Return the rows whose answer has a title and whose history tells at least one."""
    titled = np.array([bool(title) for title in dataset.catalogue.titles])
    history = dataset.histories(rows, last_items)  # (n, L)
    told = (titled[history] & (history >= 0)).any(1)
    return rows[titled[dataset.targets(rows)] & told]


def require_training_rows(dataset: SequenceDataset, rows: Ints) -> None:
    """Refuse rows whose answers nothing may learn from.

    Raises
    ------
    DataError
        A row is one of validation or test.
    """
    codes = [SPLIT_NAMES.index("train"), SPLIT_NAMES.index(PREFIX)]
    wrong = rows[~np.isin(dataset.row_splits[rows], codes)]
    if len(wrong):
        split = SPLIT_NAMES[dataset.row_splits[wrong[0]]]
        raise DataError(
            f"row {dataset.row_ids[wrong[0]]} is of split {split!r} ({len(wrong):,} of {len(rows):,} rows are not of "
            "train). A model is fine-tuned on training rows only: give it dataset.rows('train')."
        )


def sample_rows(rows: Ints, samples: int, seed: int) -> Ints:
    """Return `samples` of the rows (0, or more than there are: all), ascending."""
    if not 0 < samples < len(rows):
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, samples, replace=False))


@dataclass(frozen=True, eq=False)
class PromptExamples:
    """Token sequences of n rows, one after the other.

    Attributes
    ----------
    tokens
        ``(S,)`` int32.
    offsets
        ``(n + 1,)`` where each row's tokens start.
    prompts
        ``(n,)`` tokens of each prompt; the answer and its end come after them.
    loss_on_prompt
        Whether the prompt is learned too; its first token has nothing to be learned from.
    pad_id
        Fills up batches.
    batch_size, batch_tokens
        Rows of a step; padded tokens of a micro-batch.
    seed
        Of the order.
    """

    tokens: np.ndarray[tuple[int], np.dtype[np.int32]]
    offsets: Ints
    prompts: Ints
    loss_on_prompt: bool
    pad_id: int
    batch_size: int
    batch_tokens: int
    seed: int

    def __len__(self) -> int:
        return len(self.prompts)

    def prompt(self, example: int) -> list[int]:
        """Return the tokens of a prompt."""
        start = int(self.offsets[example])
        found: list[int] = self.tokens[start : start + int(self.prompts[example])].tolist()
        return found

    def plan(self, epoch: int) -> list[list[Ints]]:
        """Return the steps of an epoch; the rows of a step are sorted by length before they are cut up."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self))
        return [
            self.micro_batches(order[start : start + self.batch_size])
            for start in range(0, len(self), self.batch_size)
        ]

    def micro_batches(self, examples: Ints) -> list[Ints]:
        """Return the examples in groups of like length that hold `batch_tokens` at most, padding included."""
        lengths = (self.offsets[examples + 1] - self.offsets[examples]).tolist()
        return [examples[group] for group in batches(lengths, self.batch_tokens)]

    def batch(self, epoch: int, examples: Ints) -> TokenBatch:
        """Return a micro-batch."""
        lines = [self.tokens[self.offsets[k] : self.offsets[k + 1]].tolist() for k in examples.tolist()]
        first = [1] * len(lines) if self.loss_on_prompt else self.prompts[examples].tolist()
        return padded_batch(lines, first, self.pad_id)

    def all_batches(self) -> list[TokenBatch]:
        """Return every example once, for validation."""
        return [self.batch(0, part) for part in self.micro_batches(np.arange(len(self)))] if len(self) else []


def prompt_examples(
    lm: LanguageModel,
    dataset: SequenceDataset,
    rows: Ints,
    template: PromptTemplate,
    *,
    last_items: int,
    max_tokens: int,
    loss_on_prompt: bool,
    batch_size: int,
    batch_tokens: int,
    seed: int,
) -> PromptExamples:
    """Render rows (all with titles, see `rows_with_titles`) and turn them into tokens.

    Raises
    ------
    ConfigError
        A prompt does not fit into `max_tokens` with its answer, even without titles.
    """
    reserve = reserved_tokens(lm, template, dataset.catalogue.titles)
    parts: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    lengths: list[int] = []
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        prompts, answers = _tokens(lm, dataset, part, template, last_items, max_tokens, reserve)
        for prompt, answer in zip(prompts, answers, strict=True):
            parts.append(np.array([*prompt, *answer], dtype=np.int32))
            lengths.append(len(prompt))
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    tokens = np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)
    return PromptExamples(
        tokens=tokens,
        offsets=offsets,
        prompts=np.array(lengths, dtype=np.int64),
        loss_on_prompt=loss_on_prompt,
        pad_id=lm.pad_id,
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        seed=seed,
    )


def _tokens(
    lm: LanguageModel,
    dataset: SequenceDataset,
    rows: Ints,
    template: PromptTemplate,
    last_items: int,
    max_tokens: int,
    reserve: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the tokens of prompts, and of answers with their ends."""
    titles = dataset.catalogue.titles
    histories = [
        [titles[item] for item in history if item >= 0 and titles[item]]
        for history in dataset.histories(rows, last_items).tolist()
    ]
    targets = [template.completion(titles[item]) for item in dataset.targets(rows).tolist()]
    answers = [[*ids, lm.eos_id] for ids in lm.encode_answers(targets)]
    prompts = lm.encode_all([template.prompt(history) for history in histories])
    for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        room = max(len(answer), reserve)
        if len(prompt) + room > max_tokens:
            text = template.fit(histories[place], lm.encode, max_tokens, room)
            prompts[place] = lm.encode(text)
    return prompts, answers


def longest_line(lm: LanguageModel, max_tokens: int) -> int:
    """Return the tokens that prompt and answer may take: `max_tokens`, or what the model reads.

    Raises
    ------
    ConfigError
        `max_tokens` is below 16.
    """
    limit = min(max_tokens, lm.context or max_tokens)
    if limit < 16:
        raise ConfigError(f"max_tokens is {limit}. Allowed: from 16. Pass --max-tokens 512.")
    return limit


def reserved_tokens(lm: LanguageModel, template: PromptTemplate, titles: Sequence[str]) -> int:
    """Return the tokens that a prompt leaves free for answer and end: enough for all but the longest 0.5 % of titles.

    Prompts are cut by the same rule in training and in generation, so that both read the same. In training the rare
    longer answer gets the room it needs.
    """
    found = lm.encode_answers([template.completion(title) for title in dict.fromkeys(titles) if title])
    lengths = [len(ids) for ids in found]
    return 1 + int(np.ceil(np.quantile(lengths, 0.995))) if lengths else 1
