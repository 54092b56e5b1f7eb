"""A pretrained text encoder that can be trained: any sentence-transformers or Hugging Face model.

Where only the last layers are trained, the lower ones say the same about a text for ever. `LowerLayers` keeps what
they said, so that a step pays for the trained layers alone: with 2 of 6 layers about a third of the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError

Ints = npt.NDArray[np.int64]
Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True, eq=False)
class TokenLists:
    """The tokens of n texts, one after the other.

    Attributes
    ----------
    tokens
        ``(T,)``.
    offsets
        ``(n + 1,)`` where each text starts.
    """

    tokens: Ints
    offsets: Ints

    @property
    def lengths(self) -> Ints:
        """``(n,)`` tokens of each text."""
        return np.diff(self.offsets)

    def places(self, texts: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return ``(b, w)`` indices into `tokens`, and which of them are real; padding is on the right."""
        lengths = self.lengths[texts]
        steps = np.arange(max(1, int(lengths.max())))
        real = steps < lengths[:, None]
        return np.where(real, self.offsets[texts][:, None] + steps, 0), real

    def batches(self, texts: Ints, budget: int) -> Iterator[Ints]:
        """Yield indices into `texts`, texts of like length together, each batch of at most `budget` padded tokens."""
        order = np.argsort(-self.lengths[texts], kind="stable")
        start = 0
        while start < len(order):
            widest = max(1, int(self.lengths[texts[order[start]]]))
            stop = start + max(1, budget // widest)
            yield order[start:stop]
            start = stop


class TextTower(nn.Module):
    """Text to one vector.

    Parameters
    ----------
    network
        A Hugging Face encoder (or a causal model without head). It is kept in evaluation mode: no dropout.
    tokenizer
        Its tokenizer.
    pooling
        ``mean`` over the tokens, ``cls`` (the first) or ``last``.
    max_tokens
        Longer texts lose their end.
    bf16
        Whether matrix products run in bfloat16.
    batch_tokens
        Padded tokens at a time.
    name, identity
        For manifests: what it was loaded from, and a hash of it.
    """

    def __init__(
        self,
        network: nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling = "mean",
        max_tokens: int = 64,
        bf16: bool = False,
        batch_tokens: int = 2048,
        name: str = "encoder",
        identity: str = "",
    ) -> None:
        super().__init__()
        self.network = network.eval()
        self.tokenizer, self.pooling, self.max_tokens = tokenizer, pooling, max_tokens
        self.bf16, self.batch_tokens, self.name, self.identity = bf16, batch_tokens, name, identity
        self.first_trained = 0

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @property
    def size(self) -> int:
        """H, the width of a vector."""
        return int(self.network.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def tokenised(self, texts: Sequence[str]) -> TokenLists:
        """Return the tokens of texts, special tokens included, cut at `max_tokens`."""
        found = self.tokenizer(list(texts), truncation=True, max_length=self.max_tokens)["input_ids"]
        offsets = np.concatenate([[0], np.cumsum([len(line) for line in found])]).astype(np.int64)
        tokens = np.fromiter((t for line in found for t in line), dtype=np.int64, count=int(offsets[-1]))
        return TokenLists(tokens, offsets)

    def forward(self, lists: TokenLists, texts: Ints, lower: LowerLayers | None = None) -> Tensor:
        """Return the ``(n, H)`` float32 vectors of some texts of a list.

        Parameters
        ----------
        lists
            Tokens.
        texts
            ``(n,)`` which of them, in any order.
        lower
            What the untrained layers said about `lists`, if that is known.
        """
        parts, order = [], []
        for batch in lists.batches(texts, self.batch_tokens):
            order.append(batch)
            parts.append(self._batch(lists, texts[batch], lower))
        if not parts:
            return torch.zeros(0, self.size, device=self.device)
        back = torch.from_numpy(np.argsort(np.concatenate(order), kind="stable")).to(self.device)
        return torch.cat(parts)[back]

    def _batch(self, lists: TokenLists, texts: Ints, lower: LowerLayers | None) -> Tensor:
        places, real = lists.places(texts)
        mask = torch.from_numpy(real).to(self.device)
        tokens = torch.from_numpy(np.where(real, lists.tokens[places], self._pad)).to(self.device)
        if lower is None:
            hidden = self.run(tokens, mask)
        else:
            hidden = self.run(tokens, mask, start=lower.padded(places, self.device))
        return self._pooled(hidden.float(), mask)

    def run(self, tokens: Tensor, mask: Tensor, *, start: Tensor | None = None) -> Tensor:
        """Return the ``(b, w, H)`` states of the last layer; with `start` only the trained layers run on it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            if start is None:
                return self._states(tokens, mask)
            with self._layers(slice(self.first_trained, None), start):
                return self._states(tokens, mask)

    def lower_states(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return ``(b, w, H)``: what the first trained layer reads."""
        seen: list[Tensor] = []
        cut = self.first_trained
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
            self._layers(slice(0, cut + 1), hear=lambda _, hidden: seen.append(hidden), at=cut),
        ):
            self._states(tokens, mask)
        return seen[0]

    def _states(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.network(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return states

    @contextmanager
    def _layers(
        self,
        kept: slice,
        start: Tensor | None = None,
        hear: Callable[[nn.Module, Tensor], None] | None = None,
        at: int | None = None,
    ) -> Iterator[None]:
        """Let the network have only some of its layers for a while, and read or replace what one of them is given."""
        parent, name, layers = stack_of(self.network)

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            if hear is not None:
                hear(module, given)
                return None
            if args:
                return (start, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": start}

        handle = layers[kept.start if at is None else at].register_forward_pre_hook(before, with_kwargs=True)
        setattr(parent, name, nn.ModuleList(list(layers)[kept]))
        try:
            yield
        finally:
            setattr(parent, name, layers)
            handle.remove()

    @property
    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id or 0)

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return ``(b, H)`` from ``(b, w, H)`` states and the ``(b, w)`` bool mask of real tokens."""
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            last = (mask.sum(1) - 1).clamp_min(0)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        weight = mask.unsqueeze(-1).float()
        return (hidden * weight).sum(1) / weight.sum(1).clamp_min(1)


@dataclass(frozen=True, eq=False)
class LowerLayers:
    """What the untrained layers of a tower say about some texts.

    Attributes
    ----------
    states
        ``(T, H)``, token after token, in the order of the texts.
    """

    states: Tensor

    @classmethod
    def of(cls, tower: TextTower, lists: TokenLists, limit_bytes: int) -> LowerLayers | None:
        """Run the untrained layers over all texts; None where there are none or the result would not fit.

        A network whose layers cannot be run apart (it then gives other vectors, or fails) also gives None: it is
        trained the slow way.

        Parameters
        ----------
        tower
            Its trained parameters are chosen (see `choose_trained`).
        lists
            The texts.
        limit_bytes
            The most that the states may take.
        """
        width = 2 if tower.bf16 else 4
        if not tower.first_trained or len(lists.tokens) * tower.size * width > limit_bytes:
            return None
        try:
            lower = cls._run(tower, lists)
            some = np.unique(np.linspace(0, len(lists.lengths) - 1, 8).astype(np.int64))
            with torch.no_grad():
                apart, whole = tower(lists, some, lower), tower(lists, some)
        except (RuntimeError, TypeError, KeyError, IndexError, AttributeError):
            return None
        close = torch.allclose(apart, whole, atol=2e-2 * float(whole.abs().max()))
        return lower if close else None

    @classmethod
    @torch.no_grad()
    def _run(cls, tower: TextTower, lists: TokenLists) -> LowerLayers:
        dtype = torch.bfloat16 if tower.bf16 else torch.float32
        states = torch.empty(len(lists.tokens), tower.size, dtype=dtype)
        every = np.arange(len(lists.lengths))
        for batch in lists.batches(every, tower.batch_tokens):
            places, real = lists.places(batch)
            mask = torch.from_numpy(real).to(tower.device)
            tokens = torch.from_numpy(np.where(real, lists.tokens[places], tower._pad)).to(tower.device)
            found = tower.lower_states(tokens, mask)[mask].to("cpu", dtype)
            states[torch.from_numpy(places[real])] = found
        return cls(states)

    def padded(self, places: Ints, device: torch.device) -> Tensor:
        """Return ``(b, w, H)`` float32 at ``(b, w)`` indices of tokens."""
        return self.states[torch.from_numpy(places)].to(device).float()


def stack_of(network: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """Return the module that holds a network's layers, the name it holds them under, and the layers.

    Raises
    ------
    ConfigError
        The network has no list of layers.
    """
    found = [
        (module, name, child)
        for module in network.modules()
        for name, child in module.named_children()
        if isinstance(child, nn.ModuleList)
    ]
    if not found:
        raise ConfigError(
            f"{type(network).__name__} has no list of layers, so its last ones cannot be chosen. Allowed: full, lora, "
            "none. Pass --tune full."
        )
    return max(found, key=lambda entry: len(entry[2]))
