"""Forward passes of a causal language model for batched search: the prompt is computed once, whatever the beams.

A batch of B left-padded prompts is fed once; what they all begin with (the instruction) is fed once for the whole
batch. Then each step feeds the newest token of every beam. Two ways to remember what a beam has read:

* ``tree``: all tokens of all beams of a row are kept side by side in one cache row, and a mask tells each beam
  which of them are its own past ("tree attention", Miao et al., SpecInfer, arXiv 2305.09781). Nothing is copied
  when beams change places, and the prompt is stored and read once a row, not once a beam.
* ``reorder``: one cache row a beam, gathered anew at each step, as the library's own search does it. For models
  whose attention takes no mask of ours (sliding windows, linear attention, ALiBi).

`CausalScorer` finds out which one a model allows by comparing both with a plain pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Literal

import torch
from torch import Tensor

from recdistill.errors import ConfigError
from recdistill.teachers.language_model.kv_memory import growing_layer, joined_memory

CacheKind = Literal["tree", "reorder"]
#: Tokens that are worth a forward pass of their own, so that they are padded less.
_ENOUGH = {"cpu": 512, "gpu": 8192}


class CausalScorer:
    """A causal language model as the searches of `decoding` need it.

    Parameters
    ----------
    model
        A Hugging Face causal language model in evaluation mode.
    pad_id
        Token that fills up short prompts; it is masked, so any will do.
    cache
        ``tree``, ``reorder``, or None: ``tree`` where the model gives the same numbers with it.
    """

    def __init__(self, model: Any, pad_id: int, *, cache: CacheKind | None = None) -> None:
        self.model, self.pad_id = model, pad_id
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft wraps the model
        self.backbone, self.head = _split(plain)
        self.full_attention = _full_attention(plain.config)
        self.cache: CacheKind = cache or ("tree" if self._tree_agrees() else "reorder")

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = next(iter(self.model.parameters())).device
        return device

    def start(self, prompts: Sequence[Sequence[int]]) -> BeamCache:
        """Feed prompts; `BeamCache.hidden` then belongs to their last tokens.

        Raises
        ------
        ConfigError
            A prompt is empty.
        """
        if not all(prompts):
            raise ConfigError("a prompt has no token. Every prompt needs at least one: check the template.")
        return (_TreeCache if self.cache == "tree" else _ReorderCache)(self, prompts)

    def new_memory(self) -> Any:
        """Return an empty cache of keys and values."""
        layer = growing_layer()
        from transformers import DynamicCache

        if not self.full_attention:
            return DynamicCache(config=self.model.config)  # layers of several kinds
        cache = DynamicCache()
        cache.layer_class_to_replicate = layer
        return cache

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, memory: Any) -> Tensor:
        """Return ``(B, S, H)`` hidden states, or ``(B, S, V)`` logits of a model that cannot be split."""
        inputs: dict[str, Any] = {"input_ids": tokens, "position_ids": positions, "attention_mask": mask}
        inputs |= {"past_key_values": memory, "use_cache": True}
        split = self.head is not None
        found: Tensor = self.backbone(**inputs).last_hidden_state if split else self.model(**inputs).logits
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``(..., V)`` float32 logits of hidden states ``(..., H)``."""
        return (hidden if self.head is None else self.head(hidden)).float()

    def logits_of(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Return ``(..., M)`` float32 logits of the tokens ``(..., M)`` alone, at hidden states ``(..., H)``.

        Where few different tokens are asked for, only their rows of the output matrix are multiplied.
        """
        if self.head is not None and isinstance(self.head, torch.nn.Linear):
            asked, place = torch.unique(tokens, return_inverse=True)
            if 2 * len(asked) <= self.head.out_features:
                bias = None if self.head.bias is None else self.head.bias[asked]
                few = torch.nn.functional.linear(hidden, self.head.weight[asked], bias)  # (..., U)
                return few.float().gather(-1, place)
        return self.logits(hidden).gather(-1, tokens)

    @torch.inference_mode()
    def _tree_agrees(self) -> bool:
        """Return whether beams that share a row get what they get in a row each."""
        config = self.model.config
        if not self.full_attention or config._attn_implementation not in ("sdpa", "eager"):
            return False
        size = min(int(config.vocab_size), 97)
        tokens = [[(7 * i * i + 3 * i + 1) % size for i in range(start, start + 5)] for start in (0, 11)]
        prompts = [tokens[0][:2], tokens[1][:3]]
        try:
            found = [_probe(kind(self, prompts), tokens) for kind in (_TreeCache, _ReorderCache)]
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return False
        allowed = 1e-3 if found[0].dtype == torch.float32 else 5e-2
        return bool((found[0] - found[1]).abs().max() <= allowed * found[1].abs().max())


def _probe(cache: BeamCache, tokens: list[list[int]]) -> Tensor:
    """Return the hidden states of two rows, three beams, after two steps with beams changing places."""
    device = cache.hidden.device
    first = torch.tensor([[*row[:3]] for row in tokens], device=device)
    cache.step(first, torch.zeros_like(first))
    return cache.step(first.flip(1), torch.tensor([[2, 0, 0], [1, 1, 0]], device=device))


class BeamCache:
    """What B rows with K beams each have read.

    Attributes
    ----------
    hidden
        ``(B, K, H)`` at the newest tokens; K is 1 after the prompts.
    """

    def __init__(self, scorer: CausalScorer, prompts: Sequence[Sequence[int]]) -> None:
        self.scorer, self.device = scorer, scorer.device
        shared = _shared(prompts) if len(prompts) > 1 and scorer.full_attention else []
        rests = [prompt[len(shared) :] for prompt in prompts]
        width = max(map(len, rests))
        used = torch.tensor([len(rest) for rest in rests], device=self.device)  # (B,)
        columns = torch.arange(len(shared) + width, device=self.device)
        # what is shared stands first, then the padding, then the rest: the last token is in the last column
        self.mask = (columns < len(shared)) | (columns >= len(shared) + width - used[:, None])  # (B, T)
        self.lengths = used + len(shared)
        self.steps = 0
        header = self._header(shared)
        groups = _like_lengths(rests, self.device) if scorer.full_attention else [list(range(len(rests)))]
        parts = [self._prefill([rests[row] for row in group], shared, header) for group in groups]
        if len(parts) == 1:
            self.hidden, self.memory = parts[0]  # (B, 1, H)
            return
        order = [torch.tensor(group, device=self.device) for group in groups]
        self.hidden = torch.cat([hidden for hidden, _ in parts])[torch.cat(order).argsort()]
        self.memory = joined_memory(
            scorer.new_memory(), [m for _, m in parts], order, len(shared), len(columns)
        )

    def _header(self, shared: list[int]) -> Any:
        """Feed what all prompts begin with, once; return the cache, or None."""
        if not shared:
            return None
        memory, tokens = self.scorer.new_memory(), torch.tensor([shared], device=self.device)
        positions = torch.arange(len(shared), device=self.device)[None]
        self.scorer.forward(tokens, positions, torch.ones_like(tokens), memory)
        return memory

    def _prefill(self, rests: list[Sequence[int]], shared: list[int], header: Any) -> tuple[Tensor, Any]:
        """Feed the rests of some prompts after the header; return the last hidden states and the cache."""
        memory = self.scorer.new_memory()
        for layer, filled in enumerate(header.layers if header is not None else []):
            keys, values = (part.expand(len(rests), -1, -1, -1) for part in (filled.keys, filled.values))
            memory.update(keys, values, layer)
        width = max(map(len, rests))
        tokens = torch.full((len(rests), width), self.scorer.pad_id)
        mask = torch.zeros((len(rests), len(shared) + width), dtype=torch.long)
        mask[:, : len(shared)] = 1
        for row, rest in enumerate(rests):
            tokens[row, width - len(rest) :] = torch.tensor(rest)
            mask[row, len(shared) + width - len(rest) :] = 1
        positions = (mask.cumsum(1) - 1).clamp_min(0)[:, len(shared) :]
        tokens, positions, mask = (part.to(self.device) for part in (tokens, positions, mask))
        return self.scorer.forward(tokens, positions, mask, memory)[:, -1:], memory

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed the newest tokens of all beams and return `hidden`.

        Parameters
        ----------
        tokens
            ``(B, K)``.
        parents
            ``(B, K)`` the beam of the step before that each beam goes on from; zeros after the prompts.
        """
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        """Go on with some rows only, ``(b,)`` ascending positions."""
        self.lengths, self.hidden = self.lengths[rows], self.hidden[rows]


class _TreeCache(BeamCache):
    """One cache row a prompt; `past[b, k, j]` tells whether beam k of row b has read the token in slot j."""

    def __init__(self, scorer: CausalScorer, prompts: Sequence[Sequence[int]]) -> None:
        super().__init__(scorer, prompts)
        self.past = self.mask[:, None]  # (B, K, T)

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        width = tokens.shape[1]
        inherited = self.past.gather(1, parents[..., None].expand(-1, -1, self.past.shape[2]))  # (B, K, T)
        own = torch.eye(width, dtype=torch.bool, device=self.device).expand(len(tokens), -1, -1)
        self.past = torch.cat([inherited, own], dim=2)  # (B, K, T + K)
        dtype = self.hidden.dtype
        mask = torch.zeros((), dtype=dtype, device=self.device).where(self.past, torch.finfo(dtype).min)
        positions = (self.lengths + self.steps)[:, None].expand(-1, width)
        self.hidden = self.scorer.forward(tokens, positions, mask[:, None], self.memory)
        self.steps += 1
        return self.hidden

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.past = self.past[rows]
        self.memory.reorder_cache(rows)


class _ReorderCache(BeamCache):
    """One cache row a beam."""

    def step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        rows, width = tokens.shape
        before = self.hidden.shape[1]
        source = (torch.arange(rows, device=self.device)[:, None] * before + parents).flatten()  # (B * K,)
        self.memory.reorder_cache(source)
        mask = self.mask.reshape(rows, before, -1)[:, 0]
        self.mask = torch.cat([mask, mask.new_ones(rows, 1)], 1).repeat_interleave(width, 0)  # (B * K, T + 1)
        positions = (self.lengths + self.steps).repeat_interleave(width)[:, None]
        hidden = self.scorer.forward(tokens.reshape(-1, 1), positions, self.mask.long(), self.memory)
        self.hidden = hidden.reshape(rows, width, -1)
        self.steps += 1
        return self.hidden

    def keep(self, rows: Tensor) -> None:
        width = self.hidden.shape[1]
        super().keep(rows)
        flat = (rows[:, None] * width + torch.arange(width, device=self.device)).flatten()
        self.mask = self.mask[flat]
        self.memory.reorder_cache(flat)


def _shared(prompts: Sequence[Sequence[int]]) -> list[int]:
    """Return what all prompts begin with; at least one token of each is left."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _like_lengths(rests: Sequence[Sequence[int]], device: torch.device) -> list[list[int]]:
    """Group rows so that little is padding when their prompts are fed; a group has work enough to be fast."""
    enough = _ENOUGH["cpu" if device.type == "cpu" else "gpu"]
    order = sorted(range(len(rests)), key=lambda row: -len(rests[row]))
    groups: list[list[int]] = []
    longest = 0
    for row in order:
        length = len(rests[row])
        if not groups or (length < 0.9 * longest and longest * len(groups[-1]) >= enough):
            groups.append([])
            longest = length
        groups[-1].append(row)
    return [sorted(group) for group in groups]


def _split(model: Any) -> tuple[Any, Any]:
    """Return the model without its head, and the head; None for the head where they do not make up the model.

    Some models do more than a matrix product at the end (soft caps, scales), so the two are compared once.
    """
    head, backbone = model.get_output_embeddings(), getattr(model, model.base_model_prefix, None)
    if head is None or backbone is None:
        return model, None
    tokens = torch.tensor([[1, 0, 2]], device=next(iter(model.parameters())).device)
    with torch.inference_mode():
        whole = model(input_ids=tokens, use_cache=False).logits
        parts = head(backbone(input_ids=tokens, use_cache=False).last_hidden_state)
    same = whole.shape == parts.shape and torch.allclose(whole, parts, rtol=1e-3, atol=1e-3)
    return (backbone, head) if same else (model, None)


def _full_attention(config: Any) -> bool:
    """Return whether every layer attends to the whole past."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return kinds == {"full_attention"} and not window
