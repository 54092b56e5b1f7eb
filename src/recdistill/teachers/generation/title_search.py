"""Beam search over the titles of the catalogue: every answer is an item, and all answers of a row differ.

Only tokens that continue a title are allowed. Two readings of "allowed" exist; `renormalise` picks one:

* True: the probability of a token is its share among the allowed ones, ``p(t | prefix) = exp(z_t) / Σ_allowed exp(z)``.
  Where a beginning belongs to one title only, the rest is certain, and the search stops there: most of a
  title's tokens are never computed.
* False: the probability over the whole vocabulary, the others struck out (the code published with D3).

Mixing with a student (D3, "Decoding Matters", arXiv 2406.14900), for g in [0, 1]::

    score(title) = Σ_tokens  g log p_LM(t | prefix) + (1 - g) log [ P_CF(prefix + t) / P_CF(prefix) ]

where P_CF(x) is the student's probability of all items whose title begins with x. The second sum telescopes:
up to any prefix it is ``log P_CF(prefix) - log P_CF(all)``, so it is looked up, not summed. There is no length
penalty: with one, long titles of many certain tokens would win (D3, amplification bias).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.teachers.generation.beam_cache import BeamCache, CausalScorer
from recdistill.teachers.generation.decoding import NEVER, Answers, DecodeOptions, worth_leaving_out
from recdistill.teachers.generation.trie import ROOT, TitleTrie


@torch.inference_mode()
def constrained_beam(
    scorer: CausalScorer,
    prompts: Sequence[Sequence[int]],
    options: DecodeOptions,
    trie: TitleTrie,
    cf_sums: Tensor | None = None,
) -> Answers:
    """Beam search over catalogue titles: every answer is a title, all of a row differ.

    Parameters
    ----------
    scorer
        The model.
    prompts
        B token lists.
    options
        `beams` (cut to the number of titles), `renormalise` and `lm_weight` count.
    trie
        The titles, on the model's device.
    cf_sums
        ``(B, T + 1)`` of `TitleTrie.leaf_masses` for the student's probabilities; needed where ``lm_weight < 1``.

    Raises
    ------
    ConfigError
        A student's weight without a student.
    """
    if options.lm_weight < 1 and cf_sums is None:
        raise ConfigError(
            f"lm_weight is {options.lm_weight}, but there is no student to mix in. Give item log-probabilities, "
            "or leave lm_weight at 1."
        )
    search = _TitleSearch(scorer.start(prompts), len(prompts), options, trie, cf_sums)
    while search.advance(scorer):
        pass
    return search.answers()


class _TitleSearch:
    """The K best beginnings or whole titles of each row; a whole title stays and competes with the others.

    Arrays are ``(b, K)`` over the rows that are still computed: `node` in the tree, `lm` (the language model's
    log-probability), `score` (mixed), `open` (more tokens to come), `token` (the newest), `parent` (the open
    beam it came from).
    """

    def __init__(
        self, cache: BeamCache, rows: int, options: DecodeOptions, trie: TitleTrie, cf_sums: Tensor | None
    ) -> None:
        self.cache, self.options, self.trie = cache, options, trie
        self.cf = cf_sums if options.lm_weight < 1 else None
        self.width = min(options.beams, len(trie))
        self.rows = torch.arange(rows, device=cache.device)
        self.node = torch.full((rows, 1), ROOT, device=cache.device)
        self.lm = torch.zeros(rows, 1, device=cache.device)
        self.score = torch.zeros(rows, 1, device=cache.device)
        self.open = ~self._whole(self.node)
        self.leaf = torch.zeros((rows, self.width), dtype=torch.long, device=cache.device)
        self.final = torch.full((rows, self.width), NEVER, device=cache.device)

    def _whole(self, node: Tensor) -> Tensor:
        """Return whether a beam is finished: one title is left, and its probability is known."""
        if self.options.renormalise:
            return self.trie.single(node)
        return self.trie.child_start[node] == self.trie.child_start[node + 1]

    def advance(self, scorer: CausalScorer) -> bool:
        """Extend every open beam by one token; return whether any row is left."""
        if not self.open.any():
            self._store(torch.ones(len(self.rows), dtype=torch.bool, device=self.rows.device))
            return False
        first = self._open_first()
        children, lm, score = self._candidates(scorer, first)  # (b, R, M)
        slots = children.shape[2]
        closed = self.score.masked_fill(self.open, NEVER)  # (b, K)
        score = torch.cat([score.flatten(1), closed], 1)
        lm = torch.cat([lm.flatten(1), self.lm], 1)
        node = torch.cat([children.flatten(1), self.node], 1)
        opened = first.shape[1] * slots  # candidates before this place are new
        self.score, place = score.topk(min(self.width, score.shape[1]), dim=1)
        self.node, self.lm = node.gather(1, place), lm.gather(1, place)
        self.open = (place < opened) & ~self._whole(self.node) & (self.score > NEVER)
        parent = torch.where(place < opened, place // slots, 0)
        going = self.open.any(1)
        self._store(~going)
        if not going.any():
            return False
        if (left := worth_leaving_out(going)) is not None:
            parent = self._keep(left, parent)
        self._feed(parent)
        return True

    def _open_first(self) -> Tensor:
        """Return ``(b, R)`` the places of the open beams, R the largest number of them in a row."""
        count = int(self.open.sum(1).max())
        order: Tensor = torch.argsort((~self.open).to(torch.uint8), dim=1, stable=True)
        return order[:, :count]

    def _candidates(self, scorer: CausalScorer, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the children of open beams ``(b, R, M)``, their log-probabilities and mixed scores."""
        children, exists = self.trie.children(self.node.gather(1, first))  # (b, R, M)
        exists = exists & self.open.gather(1, first)[..., None]
        tokens = self.trie.token[children].clamp_min(0)
        if self.options.renormalise:
            logits = scorer.logits_of(self.cache.hidden, tokens)
            log_probs = logits.masked_fill(~exists, torch.finfo(logits.dtype).min).log_softmax(-1)
        else:
            logits = scorer.logits(self.cache.hidden)  # (b, R, V)
            log_probs = logits.gather(-1, tokens) - logits.logsumexp(-1, keepdim=True)
        lm = self.lm.gather(1, first)[..., None] + log_probs
        score = lm
        if self.cf is not None:
            weight = self.options.lm_weight
            sums = self.cf[self.rows]
            whole = sums[:, -1].clamp_min(1e-30).log().float()[:, None, None]
            score = weight * lm + (1 - weight) * (self.trie.log_mass(sums, children) - whole)
        return children, lm, score.masked_fill(~exists, NEVER)

    def _feed(self, parent: Tensor) -> None:
        """Feed the newest tokens of the open beams."""
        first = self._open_first()
        token = self.trie.token[self.node.gather(1, first)].clamp_min(0)
        self.cache.step(token, parent.gather(1, first))

    def _keep(self, left: Tensor, parent: Tensor) -> Tensor:
        self.cache.keep(left)
        for name in ("rows", "node", "lm", "score", "open"):
            setattr(self, name, getattr(self, name)[left])
        return parent[left]

    def _store(self, done: Tensor) -> None:
        """Keep the results of rows that are done."""
        rows, width = self.rows[done], self.score.shape[1]
        self.leaf[rows, :width] = self.trie.first[self.node[done]]
        self.final[rows, :width] = self.score[done]

    def answers(self) -> Answers:
        titles, trie = self.trie.title[self.leaf].tolist(), self.trie
        depth = torch.zeros(len(trie), dtype=torch.long, device=self.leaf.device)
        depth.scatter_reduce_(0, trie.first, trie.depth, "amax", include_self=True)
        return Answers([[[t] for t in row] for row in titles], self.final.tolist(), depth[self.leaf].tolist())
