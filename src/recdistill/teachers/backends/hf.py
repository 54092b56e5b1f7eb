"""A Hugging Face causal language model in this process, in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.runs import fingerprint
from recdistill.teachers.backends.base import Generation, GenerationRequest
from recdistill.teachers.base import Progress
from recdistill.teachers.generation.beam_cache import CacheKind, CausalScorer
from recdistill.teachers.generation.beam_search import free_beam
from recdistill.teachers.generation.decoding import Answers, DecodeOptions, greedy
from recdistill.teachers.generation.sampling import sample
from recdistill.teachers.generation.title_search import constrained_beam
from recdistill.teachers.generation.trie import TitleTrie

if TYPE_CHECKING:
    from recdistill.teachers.language_model.loading import LanguageModel

#: Row ids ``B`` to log-probabilities ``(B, I)`` of the items, such as a student's log-softmax.
ItemLogProbs = Callable[[Sequence[int]], Tensor]

Tokens = npt.NDArray[np.int32]
#: Tokens a beam is expected to add, for the size of a batch only.
_ANSWER = 16
#: Prompts handed to the tokenizer at a time.
_TOKENISED = 4096


class HfGenerator:
    """Continues prompts with a local model.

    Prompts are sorted by length and cut into batches by a budget of tokens, so that little is padding. Padding is
    masked and positions are counted without it: an answer does not depend on what else is in its batch, but for
    the rounding of floating-point sums. Batches that are asked again whole give the same digits.

    Parameters
    ----------
    lm
        The model with its tokenizer.
    options
        How to search.
    completions
        For constrained search, I texts: what the model writes to name each item, as in its training
        (`PromptTemplate.completion`); empty where an item has no title, such items are never answered.
    item_log_probs
        For ``lm_weight < 1``: a student's log-probabilities of the I items for row ids.
    student
        The student's name or fingerprint, for the settings.
    batch_tokens
        Rows times (longest prompt + what the beams add) in a batch; the memory grows with it.
    max_rows
        At most so many rows in a batch.
    cache
        How beams are remembered (see `beam_cache`); None: chosen by the model.

    Raises
    ------
    ConfigError
        Constrained search without titles, or a student's weight without a student.
    """

    def __init__(
        self,
        lm: LanguageModel,
        options: DecodeOptions | None = None,
        *,
        completions: Sequence[str] = (),
        item_log_probs: ItemLogProbs | None = None,
        student: str = "",
        batch_tokens: int = 16384,
        max_rows: int = 256,
        cache: CacheKind | None = None,
    ) -> None:
        self.lm, self.options = lm, options or DecodeOptions()
        self.name = lm.name
        if min(batch_tokens, max_rows) < 1:
            raise ConfigError(
                f"batch_tokens={batch_tokens}, max_rows={max_rows} leave no room for a row. Allowed: from 1. "
                "Pass --batch-tokens 16384."
            )
        self.batch_tokens, self.max_rows = batch_tokens, max_rows
        self.scorer = CausalScorer(lm.model, lm.pad_id, cache=cache)
        self.eos = _end_tokens(lm)
        self.completions, self.item_log_probs = list(completions), item_log_probs
        self.trie: TitleTrie | None = None
        if self.options.mode == "constrained":
            self._prepare_titles()
        if self.options.lm_weight < 1 and item_log_probs is None:
            raise ConfigError(
                f"lm_weight is {self.options.lm_weight}, but there is no student to mix in. Give item_log_probs, "
                "or leave lm_weight at 1."
            )
        self.settings: Mapping[str, Any] = {
            "model": lm.name,
            "weights": lm.fingerprint,
            "decode": self.options.settings,
            "titles": self.trie.fingerprint if self.trie else "",
            "student": student,
        }

    def _prepare_titles(self) -> None:
        known = [item for item, text in enumerate(self.completions) if text]
        trie = TitleTrie.from_sequences(
            self.lm.encode_answers([self.completions[item] for item in known]), self.lm.eos_id
        ).to(self.scorer.device)
        self.leaf_of_item = torch.full((len(self.completions),), -1, device=self.scorer.device)
        self.leaf_of_item[known] = trie.leaf_of
        self.item_of_title = known
        self.trie = trie

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the settings."""
        return fingerprint(repr(sorted(self.settings.items())))

    @property
    def answer_tokens(self) -> int:
        """The largest number of tokens of an answer."""
        return self.trie.longest if self.trie else self.options.max_new_tokens

    def prompt_tokens(self, requests: Sequence[GenerationRequest]) -> list[int]:
        """Return how many tokens each prompt has."""
        parts = range(0, len(requests), _TOKENISED)
        texts = ([request.prompt for request in requests[start : start + _TOKENISED]] for start in parts)
        return [len(tokens) for part in texts for tokens in self.lm.encode_all(part)]

    @property
    def weight_bytes(self) -> int:
        """Memory of the model's weights."""
        return sum(weight.numel() * weight.element_size() for weight in self.lm.model.parameters())

    def batches(self, requests: Sequence[GenerationRequest]) -> list[list[GenerationRequest]]:
        """Return batches, longest prompts first: what does not fit into memory fails at once, not at the end."""
        return [[request for request, _ in batch] for batch in self._plan(requests)]

    def _plan(self, requests: Sequence[GenerationRequest]) -> list[list[tuple[GenerationRequest, Tokens]]]:
        """Fill batches in order of length. A batch is closed by the length of its first row alone.

        So whole batches can be taken away without changing the others.
        """
        encoded = [
            (request, np.array(self.lm.encode(request.prompt), dtype=np.int32)) for request in requests
        ]
        encoded.sort(key=lambda pair: (-len(pair[1]), pair[0].key))
        added = self.options.beams * min(_ANSWER, self.answer_tokens)
        plan: list[list[tuple[GenerationRequest, Tokens]]] = []
        room = 0
        for pair in encoded:
            if not room:
                room = max(1, min(self.max_rows, self.batch_tokens // (len(pair[1]) + added)))
                plan.append([])
            plan[-1].append(pair)
            room -= 1
        return plan

    def generate(
        self, requests: Sequence[GenerationRequest], progress: Progress | None = None
    ) -> Iterator[Generation]:
        """Answer batch by batch.

        Raises
        ------
        ConfigError
            A prompt and its answer do not fit into the model's context, or a batch not into its memory.
        """
        plan = self._plan(requests)
        if plan:
            self._require_context(*plan[0][0])
        for batch in plan:
            prompts = [tokens.tolist() for _, tokens in batch]
            try:
                answers = self._search(prompts, [request.key for request, _ in batch])
            except torch.OutOfMemoryError:
                raise ConfigError(
                    f"{len(batch)} prompts of up to {len(prompts[0])} tokens do not fit into the memory of "
                    f"{self.scorer.device}. Allowed: a batch that fits. Pass --batch-tokens "
                    f"{max(1, self.batch_tokens // 2)}; what is answered is kept."
                ) from None
            for row, (request, tokens) in enumerate(batch):
                texts = [self._text(answer) for answer in answers.tokens[row]]
                yield Generation(
                    request.key,
                    tuple(texts),
                    tuple(answers.scores[row]),
                    prompt_tokens=len(tokens),
                    new_tokens=sum(answers.counts[row]),
                )
                if progress is not None:
                    progress(1)

    def _search(self, prompts: list[list[int]], keys: list[int]) -> Answers:
        if self.options.mode == "sample":
            return sample(self.scorer, prompts, keys, self.options, self.eos)
        if self.trie is None:
            search = greedy if self.options.mode == "greedy" else free_beam
            return search(self.scorer, prompts, self.options, self.eos)
        sums = None
        if self.options.lm_weight < 1 and self.item_log_probs is not None:
            log_probs = self.item_log_probs(keys).to(self.scorer.device)  # (B, I)
            self._require_items(log_probs, len(keys))
            sums = self.trie.leaf_masses(log_probs, self.leaf_of_item)
        return constrained_beam(self.scorer, prompts, self.options, self.trie, sums)

    def _text(self, tokens: list[int]) -> str:
        if self.trie is not None:
            return self.completions[self.item_of_title[tokens[0]]]
        return self.lm.decode(tokens)

    def _require_items(self, log_probs: Tensor, rows: int) -> None:
        if log_probs.shape != (rows, len(self.completions)) or not bool((log_probs <= 1e-4).all()):
            raise ConfigError(
                f"the student gave values of shape {list(log_probs.shape)}, the largest "
                f"{float(log_probs.max()):.3g}. Needed: log-probabilities (at most 0) of shape "
                f"{[rows, len(self.completions)]}; use log_softmax over the catalogue."
            )

    def _require_context(self, request: GenerationRequest, tokens: Tokens) -> None:
        limit = self.lm.context
        if limit is not None and len(tokens) + self.answer_tokens > limit:
            raise ConfigError(
                f"the prompt of row {request.key} has {len(tokens)} tokens and its answer up to {self.answer_tokens}; "
                f"{self.name} reads {limit}. Tell fewer titles (--max-tokens {max(1, limit - self.answer_tokens)}), "
                "or pass --max-new-tokens with a smaller number."
            )


def _end_tokens(lm: LanguageModel) -> list[int]:
    """Return the tokenizer's end token and those of the model's generation settings."""
    more = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    more = [more] if isinstance(more, int) else list(more or [])
    return list(dict.fromkeys([lm.eos_id, *more]))
