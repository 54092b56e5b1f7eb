"""The next-token loss of a causal language model, with the vocabulary head only where a token is to be learned.

    L = -Σ_{t supervised} log p(x_{t+1} | x_{≤t})

Answers are short and prompts long, and the product with the vocabulary matrix is most of a small model's work:
hidden states are gathered at the supervised positions first, and multiplied then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from recdistill.types import PAD

#: Logits held at a time; more positions are taken in chunks, whose logits are computed again for the gradient.
_LOGITS = 1 << 26


class TokenBatch(NamedTuple):
    """Token sequences and what is to be learned from them.

    Attributes
    ----------
    tokens
        ``(B, T)`` int64. Short ones are filled up on the right, where a causal model does not look: no mask is needed.
    labels
        ``(B, T)`` int64, the token that follows each position, or `PAD` where none is to be learned.
    """

    tokens: Tensor
    labels: Tensor

    @property
    def supervised(self) -> int:
        """Tokens to be learned."""
        return int((self.labels != PAD).sum())


def padded_batch(lines: Sequence[Sequence[int]], first: Sequence[int], pad_id: int) -> TokenBatch:
    """Return a batch of token lists, each supervised from one of its tokens on.

    Parameters
    ----------
    lines
        B lists of at least two tokens.
    first
        For each, the index (≥ 1) of the first token that is to be learned; the begin token cannot be.
    pad_id
        Fills up ``tokens``.
    """
    width = max(map(len, lines)) - 1
    tokens = torch.full((len(lines), width), pad_id, dtype=torch.int64)
    labels = torch.full((len(lines), width), PAD, dtype=torch.int64)
    for row, (line, start) in enumerate(zip(lines, first, strict=True)):
        known = torch.tensor(line, dtype=torch.int64)
        tokens[row, : len(line) - 1] = known[:-1]
        labels[row, start - 1 : len(line) - 1] = known[start:]
    return TokenBatch(tokens, labels)


class TokenLoss:
    """The summed next-token loss of a model.

    Parameters
    ----------
    model
        A Hugging Face causal language model, or peft's wrapper of one.

    Notes
    -----
    Some models do more than one matrix product at the end (soft caps, scales). Body and head are compared with the
    whole once, and where they differ, all logits are computed.
    """

    def __init__(self, model: nn.Module) -> None:
        plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        self.model = plain
        self.body, self.head = _split(plain)

    def __call__(self, batch: TokenBatch) -> Tensor:
        """Return the sum of the loss over the supervised positions, a float32 scalar."""
        chosen = batch.labels != PAD  # (B, T)
        labels = batch.labels[chosen]  # (S,)
        if self.head is None:
            logits = self.model(input_ids=batch.tokens, use_cache=False).logits[chosen]  # (S, V)
            return cross_entropy(logits.float(), labels, reduction="sum")
        hidden = self.body(input_ids=batch.tokens, use_cache=False).last_hidden_state[chosen]  # (S, H)
        rows = max(1, _LOGITS // int(self.head.weight.shape[0]))
        if len(labels) <= rows:
            return self._part(hidden, labels)
        parts = zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True)
        return torch.stack([checkpoint(self._part, h, y, use_reentrant=False) for h, y in parts]).sum()

    def _part(self, hidden: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(self.head(hidden).float(), labels, reduction="sum")


@torch.no_grad()
def _split(model: Any) -> tuple[Any, Any]:
    """Return body and head, or None twice where head(body) is not the model."""
    head, body = model.get_output_embeddings(), getattr(model, model.base_model_prefix, None)
    if head is None or body is None or body is model:
        return None, None
    training = model.training
    model.eval()
    tokens = torch.tensor([[1, 0, 2]], device=next(iter(model.parameters())).device)
    whole = model(input_ids=tokens, use_cache=False).logits
    parts = head(body(input_ids=tokens, use_cache=False).last_hidden_state)
    model.train(training)
    same = whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-3, atol=1e-3)
    return (body, head) if same else (None, None)
