"""Free beam search: the K likeliest continuations are kept, and K finished answers come out.

As BIGRec's authors ran it (arXiv 2308.08434: 4 beams). A finished answer scores ``log p / tokens^length_penalty``. It
gives what the library's own beam search gives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill.teachers.generation.beam_cache import BeamCache, CausalScorer
from recdistill.teachers.generation.decoding import NEVER, Answers, DecodeOptions, cut, worth_leaving_out


@torch.inference_mode()
def free_beam(
    scorer: CausalScorer, prompts: Sequence[Sequence[int]], options: DecodeOptions, eos: Sequence[int]
) -> Answers:
    """Beam search over all token sequences; parameters as in `greedy`.

    A row ends when its best open beam, at its present length, scores no better than the worst of K finished
    ones; with `max_new_tokens` the open beams count as they are.
    """
    search = _FreeSearch(scorer.start(prompts), len(prompts), options, eos)
    while search.advance(scorer):
        pass
    return search.answers()


class _FreeSearch:
    """Open and finished beams of B rows; a row that is done keeps its place in the results only."""

    def __init__(self, cache: BeamCache, rows: int, options: DecodeOptions, eos: Sequence[int]) -> None:
        self.cache, self.options, self.eos = cache, options, list(eos)
        self.device, width, length = cache.device, options.beams, options.max_new_tokens
        self.ends = torch.tensor(self.eos, device=self.device)
        self.rows = torch.arange(rows, device=self.device)  # (b,) rows that are still computed
        self.going = torch.ones_like(self.rows, dtype=torch.bool)  # those of them that are not done
        self.open_score = torch.zeros(rows, 1, device=self.device)  # (b, K), best first
        self.open_tokens = torch.full((rows, 1, length), self.eos[0], device=self.device)
        self.score = torch.full((rows, width), NEVER, device=self.device)  # (B, K), finished, best first
        self.tokens = torch.full((rows, width, length), self.eos[0], device=self.device)
        self.step = 0

    def advance(self, scorer: CausalScorer) -> bool:
        """Take one step in every open row; return whether any row is left."""
        width = self.options.beams
        log_probs = scorer.logits(self.cache.hidden).log_softmax(-1)  # (b, K', V)
        vocabulary = log_probs.shape[2]
        flat = (self.open_score[..., None] + log_probs).flatten(1)
        top, place = flat.topk(min((1 + len(self.eos)) * width, flat.shape[1]), dim=1)  # (b, 2K)
        parents, token = place // vocabulary, place % vocabulary
        tokens = self.open_tokens.gather(
            1, parents[..., None].expand(-1, -1, self.open_tokens.shape[2])
        ).clone()
        tokens[:, :, self.step] = token
        self.step += 1
        last = self.step == self.options.max_new_tokens
        ended = torch.isin(token, self.ends) | last  # (b, 2K)
        self._finish(top, tokens, ended)
        open_top = top.masked_fill(ended, NEVER)
        self.open_score, order = open_top.topk(min(width, open_top.shape[1]), dim=1)
        self.going = self.going & self._can_improve()
        if last or not self.going.any():
            return False
        self.open_tokens = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
        token, parents = token.gather(1, order), parents.gather(1, order)
        if (left := worth_leaving_out(self.going)) is not None:
            self.cache.keep(left)
            self.rows, self.going, self.open_score = self.rows[left], self.going[left], self.open_score[left]
            self.open_tokens, token, parents = self.open_tokens[left], token[left], parents[left]
        self.cache.step(token, parents)
        return True

    def _finish(self, top: Tensor, tokens: Tensor, ended: Tensor) -> None:
        """Keep the K best finished beams of each open row; only the first K candidates may finish."""
        width = self.options.beams
        counts = ended[:, :width] & self.going[:, None]
        finished = top[:, :width].masked_fill(~counts, NEVER) / self._norm()
        scores = torch.cat([self.score[self.rows], finished], 1)
        merged = torch.cat([self.tokens[self.rows], tokens[:, :width]], 1)
        self.score[self.rows], order = scores.topk(width, dim=1)
        self.tokens[self.rows] = merged.gather(1, order[..., None].expand(-1, -1, merged.shape[2]))

    def _can_improve(self) -> Tensor:
        """Return ``(b,)`` whether the best open beam still beats the worst finished one."""
        return self.open_score[:, 0] / self._norm() > self.score[self.rows, -1]

    def _norm(self) -> float:
        return float(self.step ** (self.options.length_penalty or 0.0))

    def answers(self) -> Answers:
        found = [[cut(beam, self.eos) for beam in row] for row in self.tokens.tolist()]
        limit = self.options.max_new_tokens
        counts = [[min(len(beam) + 1, limit) for beam in row] for row in found]
        return Answers(found, self.score.tolist(), counts)
