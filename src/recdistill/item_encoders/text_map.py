"""From a teacher's vector to an item vector, as two small matrices: what an item needs that comes after training.

    t(z) = f E_2 relu(E_1 z + c_1) + c_2 ...  or  t(z) = f (E_1 z + c_1)

E_1 and c_1 hold everything that was done to the teacher's vectors beforehand (centring, scaling, principal
components), so that a new vector goes through the same. f is the encoder's weight of text, and what makes the vectors
of items that nobody has bought as long as the others', see `recdistill.item_encoders.lengthened`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from recdistill.item_encoders.ids import cold_factor

if TYPE_CHECKING:
    from recdistill.item_encoders.base import ItemEncoder
    from recdistill.item_encoders.vectors import Step


@dataclass(frozen=True, eq=False)
class TextMap:
    """Teacher vectors ``(n, D)`` to item vectors ``(n, d)``.

    Attributes
    ----------
    entry_weight, entry_bias
        ``(w, D)`` and ``(w,)``.
    exit_weight, exit_bias
        ``(d_t, w)`` and ``(d_t,)``, or None where there is one layer.
    factor
        f.
    size
        d; where d > d_t the first d − d_t numbers belong to behaviour and are 0 for a new item.
    """

    entry_weight: Tensor
    entry_bias: Tensor
    exit_weight: Tensor | None
    exit_bias: Tensor | None
    factor: float
    size: int

    @classmethod
    def of_layers(
        cls, entry: nn.Linear, exit_: nn.Linear | None, steps: Sequence[Step], factor: float, size: int
    ) -> TextMap:
        """Put what was done to the teacher's vectors into the first layer."""
        weight, bias = entry.weight.detach().double(), entry.bias.detach().double()
        for shift, multiply in reversed(steps):
            weight = weight @ multiply.double().T if multiply.ndim == 2 else weight * multiply.double()
            bias = bias - weight @ shift.double()
        exit_weight = None if exit_ is None else exit_.weight.detach().clone()
        exit_bias = None if exit_ is None else exit_.bias.detach().clone()
        return cls(weight.float().contiguous(), bias.float(), exit_weight, exit_bias, factor, size)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return ``(n, d)`` item vectors; those of zero vectors (no text) are zero."""
        mapped = vectors.float() @ self.entry_weight.T + self.entry_bias
        if self.exit_weight is not None and self.exit_bias is not None:
            mapped = torch.relu(mapped) @ self.exit_weight.T + self.exit_bias
        mapped = self.factor * mapped * (vectors != 0).any(1, keepdim=True)
        return torch.nn.functional.pad(mapped, (self.size - mapped.shape[1], 0))

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Return everything as tensors, for a file."""
        found = {
            "entry_weight": self.entry_weight,
            "entry_bias": self.entry_bias,
            "exit_weight": self.exit_weight,
            "exit_bias": self.exit_bias,
            "factor": torch.tensor([self.factor], dtype=torch.float64),
            "size": torch.tensor([self.size]),
        }
        return {prefix + name: value.cpu().contiguous() for name, value in found.items() if value is not None}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str) -> TextMap | None:
        """Return what `tensors` gave, or None where there is nothing under the prefix."""
        if f"{prefix}entry_weight" not in tensors:
            return None
        return cls(
            tensors[f"{prefix}entry_weight"],
            tensors[f"{prefix}entry_bias"],
            tensors.get(f"{prefix}exit_weight"),
            tensors.get(f"{prefix}exit_bias"),
            float(tensors[f"{prefix}factor"][0]),
            int(tensors[f"{prefix}size"][0]),
        )


@torch.no_grad()
def text_map(encoder: ItemEncoder) -> TextMap | None:
    """Return how an encoder forms the vector of an item that training never saw, or None: not from text.

    Where training left cold items, a new item is treated as they are when the table is folded. Where it left none,
    its vector is made as long as the mean of the table (`cold_length` None: it stays as it is).
    """
    was_training = encoder.training
    encoder.eval()
    made = encoder.text_map()
    if made is not None:
        table = encoder.table().float()
        factor = cold_factor(table, encoder.warm, encoder.cold_length)
        if factor is None:
            factor = _as_long_as(table, made, encoder)
        made = TextMap(
            made.entry_weight,
            made.entry_bias,
            made.exit_weight,
            made.exit_bias,
            made.factor * factor,
            made.size,
        )
    encoder.train(was_training)
    return made


def _as_long_as(table: Tensor, made: TextMap, encoder: ItemEncoder) -> float:
    """Return the mean length of the table's vectors over that of the vectors formed from text alone."""
    text = encoder.text_vectors()
    if text is None or encoder.cold_length is None:
        return 1.0
    lengths = [torch.linalg.vector_norm(part.float(), dim=1) for part in (table, text)]
    means = [part[part > 0].mean() if bool((part > 0).any()) else part.new_tensor(0.0) for part in lengths]
    return float(encoder.cold_length * means[0] / means[1]) if float(means[1]) > 0 else 1.0
