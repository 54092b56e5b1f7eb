"""Caser: convolutions over the history as an image of L items by d numbers.

Tang and Wang, "Personalized Top-N Sequential Recommendation via Convolutional Sequence Embedding", WSDM 2018,
https://arxiv.org/abs/1809.07426.

``variant="paper"`` is the network of the DROS and DLLM2Rec code; of E, the history padded with zeros to L
items:

    horizontal   o_k = max_t relu(<F_k, E[t : t + h]> + b_k)    16 filters for each h of 2, 3, 4
    vertical     o~  = relu(sum_l w_l E[l] + b)                 one filter
    hidden state h   = Dropout([o, o~])                         (48 + d,)

``variant="modern"`` adds dropout on the item vectors and the original paper's dense layer (eq. 10, without
its activation) back to d, so that input and output can share one item table.

==============  ==============  =========  =========  =====================================================
symbol          name in code    paper      modern     source of the default
==============  ==============  =========  =========  =====================================================
d               embedding_size  64         64         DLLM2Rec, section 5.1
L               max_length      10         50         DLLM2Rec's windows; the same as SASRec's
h               windows         (2, 3, 4)  (2, 3, 4)  authors' code
filters of a h  filters         16         16         authors' code
dropout         dropout         0.1        0.2        DLLM2Rec, section 5.1; the same as SASRec's
dense layer     dense           no         yes        authors' code; Caser, eq. 10
==============  ==============  =========  =========  =====================================================

Where the authors' code differs from this file
----------------------------------------------
1. They ``squeeze()`` the convolutions' output, which breaks for a batch of one and for a window as long as
   the history. Here no axis is dropped by its size.
2. Their convolutions are two-dimensional over one channel; here the same products are one-dimensional over d
   channels. Filters start with the same standard deviation (Xavier with the fans of theirs).
3. They compute the last position only. So does `Caser.last`; `Caser.forward` answers for each position as
   if the history ended there, which costs L times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recdistill.errors import ConfigError
from recdistill.students.base import Student
from recdistill.students.layers import Dropout, Variant, check_length, real_positions, variant_options


@dataclass(frozen=True)
class _Defaults:
    max_length: int
    windows: Sequence[int]
    filters: int
    dropout: float
    dense: bool


_DEFAULTS: Final = {
    "paper": _Defaults(10, (2, 3, 4), 16, 0.1, False),
    "modern": _Defaults(50, (2, 3, 4), 16, 0.2, True),
}


class Caser(Student):
    """Convolutions over the history. An option left at None takes its variant's default (table above).

    Parameters
    ----------
    embedding_size
        d. The hidden states have d numbers with a dense layer, else ``filters * len(windows) + d``.
    variant
        ``"paper"`` or ``"modern"``.
    max_length
        L, the longest history; shorter ones are padded to it.
    windows
        Heights h of the horizontal filters, each at most L.
    filters
        Horizontal filters of each height.
    dropout
        Of the hidden states and, if modern, of the item vectors.
    dense
        Whether a dense layer maps the hidden states to d.

    Raises
    ------
    ConfigError
        `variant` does not exist, or a window is longer than the history.
    """

    def __init__(
        self,
        *,
        embedding_size: int = 64,
        variant: Variant = "paper",
        max_length: int | None = None,
        windows: Sequence[int] | None = None,
        filters: int | None = None,
        dropout: float | None = None,
        dense: bool | None = None,
    ) -> None:
        super().__init__()
        options = variant_options(
            _DEFAULTS,
            variant,
            max_length=max_length,
            windows=windows,
            filters=filters,
            dropout=dropout,
            dense=dense,
        )
        if max(options.windows) > options.max_length:
            raise ConfigError(
                f"a window of {max(options.windows)} items is longer than max_length={options.max_length}. "
                f"Allowed: at most max_length. Set student.options.windows=[{options.max_length}]."
            )
        concatenated = options.filters * len(options.windows) + embedding_size
        self.embedding_size = embedding_size
        self.hidden_size = embedding_size if options.dense else concatenated
        self.max_length = options.max_length
        self.input_dropout = Dropout(options.dropout if variant == "modern" else 0.0)
        self.horizontal = nn.ModuleList(
            nn.Conv1d(embedding_size, options.filters, h) for h in options.windows
        )
        self.vertical = nn.Linear(options.max_length, 1)
        self.dropout = Dropout(options.dropout)
        self.dense = nn.Linear(concatenated, embedding_size) if options.dense else nn.Identity()
        self._start_filters(options)

    def _start_filters(self, options: _Defaults) -> None:
        for height, convolution in zip(options.windows, self.horizontal, strict=True):
            fans = (1 + options.filters) * height * self.embedding_size  # of their Conv2d(1, filters, (h, d))
            nn.init.normal_(convolution.weight, std=(2 / fans) ** 0.5)  # type: ignore[arg-type]
            nn.init.constant_(convolution.bias, 0.1)  # type: ignore[arg-type]
        nn.init.normal_(self.vertical.weight, std=options.max_length**-0.5)  # Conv2d(1, 1, (L, 1))
        nn.init.constant_(self.vertical.bias, 0.1)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, L, H)``: the answer at each position to the history up to it, zero at the pads."""
        batch, length, size = embedded.shape
        steps = torch.arange(1, length + 1, device=lengths.device)
        prefixes = embedded.unsqueeze(1).expand(-1, length, -1, -1).reshape(-1, length, size)  # (B * L, L, d)
        hidden = self.last(prefixes, steps.repeat(batch)).view(batch, length, -1)
        return hidden * real_positions(lengths, length).unsqueeze(-1)

    def last(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Return ``(B, H)`` hidden states of the last items."""
        length = embedded.shape[1]
        check_length(length, self.max_length)
        image = self.input_dropout(embedded) * real_positions(lengths, length).unsqueeze(-1)
        image = F.pad(image, (0, 0, 0, self.max_length - length)).mT  # (B, d, L)
        horizontal = [
            F.relu(convolution(image)).amax(-1) for convolution in self.horizontal
        ]  # (B, filters) each
        vertical = F.relu(self.vertical(image)).squeeze(-1)  # (B, d)
        hidden: Tensor = self.dense(self.dropout(torch.cat([*horizontal, vertical], dim=1)))
        return hidden
