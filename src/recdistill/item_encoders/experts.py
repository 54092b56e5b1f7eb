"""KAR's hybrid-expert adaptor: from vectors of texts to a few numbers a student can use.

(1)  a^j = softmax(W_j x^j)                      j: the tower, user or item; S + P gate values
(2)  v^j = sum_k a^j_k E_k(x^j)                  E_1 .. E_S are shared by both towers, the P others are the tower's own

=======  ==============  =======  =====================================================
symbol   name in code    default  where the default comes from
=======  ==============  =======  =====================================================
x^j      .               (n, r)   the text's vector, reduced to r numbers
S        shared          2        authors' code
P        specific        5        authors' run scripts (6 in their arguments)
.        inner           128      authors' code: D -> 128 -> 32, ReLU after both
.        size            32       authors' code
.        dropout         0        authors' code
=======  ==============  =======  =====================================================
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from recdistill.errors import ConfigError

Tower = Literal["user", "item"]


class Experts(nn.Module):
    """n experts of one shape, computed side by side.

    Parameters
    ----------
    count
        n.
    width, inner, size
        Numbers in, between, and out.
    dropout
        After each ReLU.
    """

    def __init__(self, count: int, width: int, inner: int, size: int, dropout: float) -> None:
        super().__init__()
        layers = [[nn.Linear(width, inner), nn.Linear(inner, size)] for _ in range(count)]
        self.first = nn.Parameter(torch.stack([pair[0].weight.detach().T for pair in layers]))
        self.first_bias = nn.Parameter(torch.stack([pair[0].bias.detach() for pair in layers]))
        self.second = nn.Parameter(torch.stack([pair[1].weight.detach().T for pair in layers]))
        self.second_bias = nn.Parameter(torch.stack([pair[1].bias.detach() for pair in layers]))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(n, B, size)`` for ``(B, width)``."""
        inner = self.dropout(torch.relu(torch.matmul(x, self.first) + self.first_bias.unsqueeze(1)))
        result: Tensor = self.dropout(
            torch.relu(torch.matmul(inner, self.second) + self.second_bias.unsqueeze(1))
        )
        return result


class HybridExperts(nn.Module):
    """Shared and specific experts with one gate a tower, eq. (1) and (2).

    Parameters
    ----------
    width
        r.
    shared, specific
        S and P, at least 0, together at least 1.
    inner, size, dropout
        As in the table above.

    Raises
    ------
    ConfigError
        A count or a width is not possible.
    """

    def __init__(
        self,
        width: int,
        *,
        shared: int = 2,
        specific: int = 5,
        inner: int = 128,
        size: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(shared, specific) < 0 or shared + specific < 1 or min(inner, size) < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"experts with shared={shared}, specific={specific}, inner={inner}, size={size}, dropout={dropout} are "
                "not possible. Allowed: counts from 0 and together from 1, widths from 1, dropout from 0 to below 1. "
                "Pass kar.shared=2 kar.specific=5."
            )
        self.size = size
        self.shared = Experts(shared, width, inner, size, dropout) if shared else None
        towers: dict[str, nn.Module] = {
            name: Experts(specific, width, inner, size, dropout) for name in ("user", "item") if specific
        }
        self.specific = nn.ModuleDict(towers)
        self.gate = nn.ModuleDict(
            {name: nn.Linear(width, shared + specific, bias=False) for name in ("user", "item")}
        )

    def gates(self, x: Tensor, tower: Tower) -> Tensor:
        """Return ``(B, S + P)``, eq. (1); rows sum to 1, the shared experts come first."""
        logits: Tensor = self.gate[tower](x)
        return logits.softmax(1)

    def forward(self, x: Tensor, tower: Tower) -> Tensor:
        """Return ``(B, size)``, eq. (2), for ``(B, r)``."""
        groups = [self.shared, *([self.specific[tower]] if len(self.specific) else [])]
        experts = torch.cat([group(x) for group in groups if group is not None])  # (S + P, B, size)
        return torch.einsum("bk,kbs->bs", self.gates(x, tower), experts)
