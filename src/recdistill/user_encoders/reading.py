"""Reading examples in context: what LLM-CF does in training and when it is served, eq. (1), (3) and (4) of `llm_cf`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError
from recdistill.types import PAD
from recdistill.user_encoders.base import KnownRows, UserEncoder
from recdistill.user_encoders.in_context import InContextDecoder
from recdistill.user_encoders.retrieval import ExampleIndex, Quota, history_vectors, newest_items, summed

Ints = npt.NDArray[np.int64]


class InContext(UserEncoder):
    """Retrieves examples, decodes them, and adds what comes out, eq. (3) and (4).

    Parameters
    ----------
    known
        The rows with a stored list of examples.
    buffers
        ``shown`` ``(N, K)`` those lists; ``text`` ``(I, D)`` unit vectors; ``vectors``, ``labels``, ``times``,
        ``order`` of `ExampleIndex`.
    size
        H of the student.
    persistent
        Whether the buffers are saved.
    weight, chosen, refused, blocks, heads, dropout, id_size, last_items
        See `recdistill.user_encoders.llm_cf`.

    Raises
    ------
    ConfigError
        An option is out of range.
    """

    saved_as = "in_context"
    shown: Tensor
    text: Tensor
    labels: Tensor
    times: Tensor
    order: Tensor

    def __init__(
        self,
        known: KnownRows,
        buffers: dict[str, Tensor],
        *,
        size: int,
        persistent: bool,
        weight: float = 0.1,
        chosen: int = 2,
        refused: int = 2,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.1,
        id_size: int = 16,
        last_items: int = 10,
    ) -> None:
        super().__init__(known, persistent=persistent)
        if id_size < 1:
            raise ConfigError(f"id_size is {id_size}. Allowed: from 1. Set llm-cf.id_size=16.")
        for name in ("shown", "text", "vectors", "labels", "times", "order"):
            self.register_buffer(name, buffers[name], persistent=persistent)
        self.weight, self.last_items, self.quota = weight, last_items, Quota(chosen, refused)
        self.options = {"blocks": blocks, "heads": heads, "dropout": dropout, "id_size": id_size}
        self.options |= {"weight": weight, "chosen": chosen, "refused": refused, "last_items": last_items}
        item_count, text_size = self.text.shape
        self.ids = nn.Parameter(torch.randn(item_count, id_size) * 0.01)
        self.no_item = nn.Parameter(torch.zeros(id_size))
        self.behaviour = two_layers(2 * (id_size + text_size), size, size)  # f_b
        self.decoder = InContextDecoder(size, blocks=blocks, heads=heads, dropout=dropout)

    @property
    def index(self) -> ExampleIndex:
        """The examples, to search in."""
        return ExampleIndex(self.vectors, self.labels, self.times, self.order)

    def forward(
        self, hidden: Tensor, row_ids: Tensor, history: Tensor, lengths: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Return ``(S, H)``, eq. (4); a row without examples keeps its hidden state, digit by digit.

        A row whose id is `PAD` is a request made now: its own history finds its examples, among all.
        """
        newest = newest_items(history, lengths, positions, self.last_items)  # (S, w)
        shown = self.shown_to(row_ids, newest)  # (S, K)
        there = shown != PAD
        states = self.states(shown, newest)  # (S, K + 1, H), or (S, 1, H)
        self.hear(states[:, :-1], shown, there)
        added = hidden + self.weight * states[:, -1].to(hidden.dtype)
        return torch.where(there.any(1, keepdim=True), added, hidden)

    def shown_to(self, row_ids: Tensor, newest: Tensor) -> Tensor:
        """Return ``(S, K)`` examples of rows, stored ones or, for requests, retrieved ones; `PAD` where missing."""
        at = self.locate(row_ids)
        shown = self.shown[at.clamp_min(0)].masked_fill((at < 0).unsqueeze(1), PAD)
        request = (row_ids == PAD).nonzero()[:, 0]
        if len(request):
            queries = history_vectors(self.text, newest[request])
            shown = shown.index_copy(0, request, self.index.nearest(queries, self.quota))
        return shown

    def examples_of(self, history: Tensor) -> Tensor:
        """Return ``(B, K)`` numbers of the examples that requests with ``(B, L)`` histories are shown."""
        lengths = (history != PAD).sum(1)
        newest = newest_items(history, lengths, None, self.last_items)
        return self.shown_to(lengths.new_full((len(history),), PAD), newest)

    @property
    def listens(self) -> bool:
        """Whether the states at the examples are heard; else none but the row's own is formed."""
        return False

    def states(self, shown: Tensor, newest: Tensor) -> Tensor:
        """Return ``(S, n, H)`` of eq. (3): at the row's own token, which is last, and before it, where somebody
        listens, at the K behaviour tokens."""
        which, place = torch.unique(shown.clamp_min(0), return_inverse=True)
        tokens = self.tokens_of(which)[place]  # (S, K, 3, H)
        tokens = torch.cat([tokens.flatten(1, 2), self.behaviours(newest, None).unsqueeze(1)], dim=1)
        there = torch.cat(
            [(shown != PAD).repeat_interleave(3, dim=1), shown.new_ones(len(shown), 1).bool()], dim=1
        )
        own = tokens.shape[1] - 1
        wanted = torch.arange(0 if self.listens else own, own + 1, 3, device=tokens.device)
        states: Tensor = self.decoder(tokens, there, wanted)
        return states

    def behaviours(self, newest: Tensor, items: Tensor | None) -> Tensor:
        """Return ``(n, H)``, eq. (1), of ``(n, w)`` newest items and ``(n,)`` shown items, or no item."""
        counts = (newest != PAD).sum(1, keepdim=True).clamp_min(1)
        features = [
            summed(self.ids, newest) / counts,
            self.text.shape[1] ** 0.5 * summed(self.text, newest) / counts,
        ]
        if items is None:
            features += [self.no_item.expand(len(newest), -1), torch.zeros_like(features[1])]
        else:
            features += [self.ids[items], self.text.shape[1] ** 0.5 * self.text[items]]
        result: Tensor = self.behaviour(torch.cat(features, dim=1))
        return result

    def tokens_of(self, which: Tensor) -> Tensor:
        """Return ``(n, 3, H)`` the tokens of ``(n,)`` examples."""
        raise NotImplementedError

    def hear(self, states: Tensor, shown: Tensor, there: Tensor) -> None:
        """Look at the states ``(S, K, H)`` at the behaviour tokens, or at nothing; in training eq. (5) is formed."""

    def saved_options(self) -> dict[str, Any]:
        """Return the options, but for those of training."""
        return dict(self.options)

    def rows_of(self, users: npt.ArrayLike) -> Ints:
        """Return `PAD` for every user: a request's own history finds its examples."""
        return np.full(len(np.asarray(users)), PAD, dtype=np.int64)


class InContextTokens(InContext):
    """LLM-CF with its examples' tokens as a plain table: what is saved and served.

    Parameters
    ----------
    known, buffers, size, options
        As in `InContext`; the buffer ``tokens`` ``(M, 3, H)`` besides.
    """

    tokens: Tensor

    def __init__(self, known: KnownRows, buffers: dict[str, Tensor], *, size: int, **options: Any) -> None:
        super().__init__(known, buffers, size=size, persistent=True, **options)
        self.register_buffer("tokens", buffers["tokens"])

    @classmethod
    def of(cls, source: InContext, tokens: Tensor) -> InContextTokens:
        """Return a copy of what `source` does, with the ``(M, 3, H)`` tokens of its examples."""
        names = ("shown", "text", "vectors", "labels", "times", "order")
        buffers = {name: getattr(source, name).clone() for name in names} | {"tokens": tokens.clone()}
        copied = cls(source.known(), buffers, size=tokens.shape[2], **source.options)
        for name in ("ids", "no_item"):
            getattr(copied, name).data.copy_(getattr(source, name))
        copied.behaviour, copied.decoder = copy.deepcopy(source.behaviour), copy.deepcopy(source.decoder)
        return copied.to(tokens.device).eval()

    @classmethod
    def from_state(cls, state: dict[str, Tensor], options: Mapping[str, Any]) -> InContextTokens:
        """Return what ``state_dict`` was taken from.

        Raises
        ------
        KeyError
            A tensor is missing.
        """
        known = KnownRows(*(state[name].numpy() for name in ("row_ids", "places", "users", "newest")))
        made = cls(known, state, size=state["tokens"].shape[2], **options)
        made.load_state_dict(state)
        return made

    def tokens_of(self, which: Tensor) -> Tensor:
        """Return ``(n, 3, H)`` the tokens of ``(n,)`` examples."""
        return self.tokens[which]

    def fold(self) -> InContext:
        """Return a copy."""
        return self.of(self, self.tokens)


def two_layers(size_in: int, inner: int, size_out: int) -> nn.Sequential:
    """Return two linear maps with an activation between them."""
    return nn.Sequential(nn.Linear(size_in, inner), nn.SiLU(), nn.Linear(inner, size_out))
