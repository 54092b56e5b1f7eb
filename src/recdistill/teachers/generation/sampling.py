"""Sampling: several different answers to one prompt, the same ones whenever it is asked again.

Every draw is a number in [0, 1) that a hash makes of seed, row id, answer and token (splitmix64: Steele, Lea and
Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), and picks the token in whose share of the
cumulated probabilities it falls. So an answer does not depend on what else is in its batch, nor on how often the work
was interrupted, but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.teachers.generation.beam_cache import CausalScorer
from recdistill.teachers.generation.decoding import Answers, DecodeOptions, cut, worth_leaving_out

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


@torch.inference_mode()
def sample(
    scorer: CausalScorer,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[int],
    options: DecodeOptions,
    eos: Sequence[int],
) -> Answers:
    """Draw ``options.beams`` answers to each prompt, by ``temperature`` and ``top_tokens``.

    Scores are the model's own log-probabilities of the whole answers; the likeliest stands first.

    Parameters
    ----------
    scorer
        The model.
    prompts
        B token lists.
    keys
        B row ids.
    options
        See `DecodeOptions`.
    eos
        End tokens.
    """
    width, limit = options.beams, options.max_new_tokens
    cache, ends = scorer.start(prompts), torch.tensor(list(eos), device=scorer.device)
    total = torch.zeros(len(prompts), width, device=scorer.device)
    tokens = torch.full((len(prompts), width, limit), int(eos[0]), device=scorer.device)
    rows = torch.arange(len(prompts), device=scorer.device)  # (b,) rows that are still computed
    going = torch.ones(len(prompts), width, dtype=torch.bool, device=scorer.device)
    parents = torch.zeros(len(prompts), width, dtype=torch.long, device=scorer.device)
    ids = np.asarray(keys, dtype=np.int64)
    for step in range(limit):
        log_probs = scorer.logits(cache.hidden).log_softmax(-1).expand(-1, width, -1)  # (b, K, V)
        draws = torch.from_numpy(uniforms(options.seed, ids[rows.cpu().numpy()], width, step)).to(
            scorer.device
        )
        token = drawn(log_probs, draws, options.temperature, options.top_tokens)  # (b, K)
        chosen = log_probs.gather(2, token.unsqueeze(2)).squeeze(2)
        total[rows] += torch.where(going, chosen, 0)
        tokens[rows, :, step] = torch.where(going, token, int(eos[0]))
        going = going & ~torch.isin(token, ends)
        if step + 1 == limit or not going.any():
            break
        if (left := worth_leaving_out(going.any(1))) is not None:
            cache.keep(left)
            rows, token, going, parents = rows[left], token[left], going[left], parents[left]
        cache.step(token, parents)
        parents = torch.arange(width, device=scorer.device).expand(len(rows), -1)
    return _best_first(tokens, total, eos, limit)


def drawn(log_probs: Tensor, draws: Tensor, temperature: float, top_tokens: int) -> Tensor:
    """Return ``(...)`` tokens for ``(..., V)`` log-probabilities and ``(...)`` numbers in [0, 1).

    Parameters
    ----------
    log_probs, draws
        What is known, and what is drawn.
    temperature
        Above 0; below 1 the likely becomes likelier.
    top_tokens
        Only so many of the likeliest tokens; 0: all.
    """
    count = min(top_tokens or log_probs.shape[-1], log_probs.shape[-1])
    best, tokens = log_probs.topk(count, dim=-1)
    shares = (best.double() / temperature).softmax(-1).cumsum(-1)
    place = torch.searchsorted(shares, draws.unsqueeze(-1).to(shares.dtype), right=True)
    return tokens.gather(-1, place.clamp_max(count - 1)).squeeze(-1)


def uniforms(seed: int, keys: npt.NDArray[np.int64], answers: int, step: int) -> npt.NDArray[np.float64]:
    """Return ``(B, K)`` numbers in [0, 1), one for each of B row ids and K answers at one token."""
    word = np.full((1, 1), seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in (
            keys.astype(np.uint64)[:, None],
            np.arange(answers, dtype=np.uint64)[None],
            np.uint64(step),
        ):
            word = word * _GOLDEN + part + _GOLDEN
            for shift, factor in _MIX:
                word = (word ^ (word >> shift)) * factor
            word = word ^ (word >> np.uint64(31))
    return (word >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _best_first(tokens: Tensor, total: Tensor, eos: Sequence[int], limit: int) -> Answers:
    order = total.argsort(dim=1, descending=True, stable=True)
    scores = total.gather(1, order).tolist()
    sorted_tokens = tokens.gather(1, order.unsqueeze(2).expand_as(tokens)).tolist()
    found = [[cut(answer, eos) for answer in row] for row in sorted_tokens]
    counts = [[min(len(answer) + 1, limit) for answer in row] for row in found]
    return Answers(found, scores, counts)
