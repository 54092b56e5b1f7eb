"""How an answer is searched for, and the plainest search: greedy.

`beam_search` is the free beam, `title_search` the beam over the titles of the catalogue, `sampling` draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from recdistill.errors import ConfigError, unknown_name
from recdistill.teachers.generation.beam_cache import CausalScorer

Mode = Literal["greedy", "beam", "constrained", "sample"]
MODES: tuple[Mode, ...] = ("greedy", "beam", "constrained", "sample")
#: Score of what cannot be chosen.
NEVER = float("-inf")


@dataclass(frozen=True)
class DecodeOptions:
    """How to search.

    Attributes
    ----------
    mode
        ``greedy``, ``beam``, ``constrained`` to catalogue titles, or ``sample``.
    beams
        K, also the number of answers; 1 for greedy; how many are drawn, for sample.
    max_new_tokens
        At most so many tokens an answer; a constrained answer is always whole.
    length_penalty
        Power of the length that a free beam's score is divided by.
    renormalise
        Whether a constrained beam's probabilities are shares among the allowed tokens.
    lm_weight
        g, the language model's weight beside a student's probabilities; 1: no student.
    temperature
        Of sampling, above 0.
    top_tokens
        Sampling takes one of so many likeliest tokens; 0: of all.
    seed
        Of sampling, at least 0.

    Raises
    ------
    ConfigError
        A value is out of range, or goes with another mode.
    """

    mode: Mode = "beam"
    beams: int = 4
    max_new_tokens: int = 128
    length_penalty: float | None = None
    renormalise: bool = True
    lm_weight: float = 1.0
    temperature: float = 1.0
    top_tokens: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown_name("decoding", self.mode, MODES)
        if self.length_penalty is None:
            object.__setattr__(self, "length_penalty", 1.0 if self.mode == "beam" else 0.0)
        if self.mode == "greedy":
            object.__setattr__(self, "beams", 1)
        if self.beams < 1 or self.max_new_tokens < 1 or not 0 <= self.lm_weight <= 1:
            raise ConfigError(
                f"decoding with beams={self.beams}, max_new_tokens={self.max_new_tokens}, "
                f"lm_weight={self.lm_weight} is not possible. Allowed: from 1, from 1, 0 to 1. Pass --beams 4."
            )
        if not self.temperature > 0 or self.top_tokens < 0 or self.seed < 0:
            raise ConfigError(
                f"sampling with temperature={self.temperature}, top_tokens={self.top_tokens}, seed={self.seed} is not "
                "possible. Allowed: above 0, from 0, from 0. Pass --temperature 0.6."
            )
        if self.mode != "beam" and self.length_penalty:
            raise ConfigError(
                f"length_penalty is {self.length_penalty} with {self.mode} decoding. Allowed there: 0, because "
                "titles are compared whole. Leave it out, or pass --decode beam."
            )
        if self.mode != "constrained" and self.lm_weight < 1:
            raise ConfigError(
                f"lm_weight is {self.lm_weight} with {self.mode} decoding. A student is mixed in only where every "
                "answer is an item: pass --decode constrained."
            )

    @property
    def settings(self) -> dict[str, Any]:
        """JSON-able, for fingerprints; what sampling alone reads is told for sampling alone."""
        told = asdict(self)
        if self.mode != "sample":
            for name in ("temperature", "top_tokens", "seed"):
                del told[name]
        return told


@dataclass(frozen=True)
class Answers:
    """Answers to B prompts, best first.

    Attributes
    ----------
    tokens
        B lists of token lists without the end token; for constrained search B lists of ``[position of the title]``.
    scores
        B lists, non-increasing.
    counts
        B lists of token counts, the end included.
    """

    tokens: list[list[list[int]]]
    scores: list[list[float]]
    counts: list[list[int]]


@torch.inference_mode()
def greedy(
    scorer: CausalScorer, prompts: Sequence[Sequence[int]], options: DecodeOptions, eos: Sequence[int]
) -> Answers:
    """Take the likeliest token each time; the score is the log-probability of the whole.

    Parameters
    ----------
    scorer
        The model.
    prompts
        B token lists.
    options
        `max_new_tokens` counts.
    eos
        End tokens.
    """
    cache, ends = scorer.start(prompts), torch.tensor(list(eos), device=scorer.device)
    total = torch.zeros(len(prompts), device=scorer.device)
    tokens = torch.full((len(prompts), options.max_new_tokens), int(eos[0]), device=scorer.device)
    rows = torch.arange(len(prompts), device=scorer.device)  # (b,) rows that are still computed
    going = torch.ones_like(rows, dtype=torch.bool)
    for step in range(options.max_new_tokens):
        logits = scorer.logits(cache.hidden[:, 0])  # (b, V)
        best, token = logits.max(1)
        total[rows] += torch.where(going, best - logits.logsumexp(1), 0)
        tokens[rows, step] = token
        going = going & ~torch.isin(token, ends)
        if step + 1 == options.max_new_tokens or not going.any():
            break
        if (left := worth_leaving_out(going)) is not None:
            cache.keep(left)
            rows, token, going = rows[left], token[left], going[left]
        cache.step(token[:, None], torch.zeros_like(token)[:, None])
    found = [[cut(row, eos)] for row in tokens.tolist()]
    counts = [[min(len(row[0]) + 1, options.max_new_tokens)] for row in found]
    return Answers(found, [[score] for score in total.tolist()], counts)


def worth_leaving_out(going: Tensor) -> Tensor | None:
    """Return ``(b,)`` the rows that go on, once a quarter is done: leaving rows out copies what the others remember."""
    return going.nonzero()[:, 0] if 4 * int(going.sum()) <= 3 * len(going) else None


def cut(tokens: list[int], eos: Sequence[int]) -> list[int]:
    """Return the tokens before the first end token."""
    ends = set(eos)
    return tokens[: next((i for i, token in enumerate(tokens) if token in ends), len(tokens))]
