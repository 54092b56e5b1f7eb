"""Collaborative embedding distillation of DLLM2Rec, Cui et al., RecSys 2024. https://arxiv.org/abs/2405.00338

The teacher's vector z_i of an item is projected into the student's space and joined with a free offset b_i
that learns from behaviour. No loss draws the two spaces together: it is an injection, learned along.

(12)  z^p_i = g(z_i)
(13)  e_i   = b_i + w z^p_i                  the paper's f(z^p, b); "simple linear combinations suffice"

=============  ==================  ========  ==========  ==================================================
symbol         name in code        shape     default     where the default comes from
=============  ==================  ========  ==========  ==================================================
z_i            teacher             (I, D)    the teacher's, fixed, not saved with the student
g              entry, exit                   linear      the code; the paper says "e.g., MLPs"
w              weight                        0.2         the code (its README: 0.3)
b_i            offsets             (I, d)    N(0, 0.01)  the code
=============  ==================  ========  ==========  ==================================================

Where the authors' code differs
1. It takes z as it is: a text term 18 times as large as b at the start, and a few huge dimensions.
   ``standardise=True`` brings every dimension to mean 0 and variance 1, and the vectors to length 1 on
   average; g is then scaled so that w g(z) starts as large as b. ``standardise=False`` is theirs.
2. Its g is a Linear(4096, 64) with fixed sizes; here D and d are free, and ``projector="mlp"`` exists.
3. It gathers a (B, L, 4096) array. Here each distinct item is gathered and projected once, a few at a time.
4. It runs g at inference too. Here `recdistill.item_encoders.fold` turns the table into a plain one.
5. It adds e to the input only. Which side takes it is up to who makes the model (``inject``).

An item without text (a zero vector) gets b_i alone: the bias of g is not added to it. With ``offset=False``
(Table 8, "w/o offset") there is no b_i, and an item without text has the zero vector.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from recdistill.errors import ConfigError, KnowledgeError
from recdistill.item_encoders.base import ItemEncoder
from recdistill.item_encoders.projection import project_rows
from recdistill.item_encoders.vectors import has_text, principal_components, standardised, unit_mean_norm

_DTYPES: Final[dict[str, torch.dtype]] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Collaborative(ItemEncoder):
    """Offset plus projected teacher vector, eq. (13).

    Parameters
    ----------
    item_count
        I.
    size
        d.
    item_embeddings
        ``(I, D)`` the teacher's vectors, any float format; a zero row means no text.
    weight
        w > 0.
    offset
        Whether there is b_i.
    projector
        ``"linear"`` or ``"mlp"`` (one hidden layer).
    hidden
        Width of the MLP's hidden layer, or None: 2 d.
    standardise
        See difference 1.
    rank
        Project this many principal components instead of all D dimensions, or None.
    dtype
        Format in which z is kept, ``"float32"`` or ``"bfloat16"``: half the memory, twice as fast.
    std
        Standard deviation at the start, of b and (standardised) of w g(z).

    Raises
    ------
    ConfigError
        An option has a value that is not allowed.
    KnowledgeError
        There is not one vector an item, or one is not finite.
    """

    requires = frozenset({"item_embeddings"})
    teacher: Tensor
    text: Tensor

    def __init__(
        self,
        item_count: int,
        size: int,
        item_embeddings: Tensor | npt.NDArray[np.floating[Any]],
        *,
        weight: float = 0.2,
        offset: bool = True,
        projector: Literal["linear", "mlp"] = "linear",
        hidden: int | None = None,
        standardise: bool = True,
        rank: int | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        std: float = 0.01,
    ) -> None:
        super().__init__()
        _check_options(weight=weight, projector=projector, dtype=dtype, hidden=hidden, rank=rank)
        item_embeddings = torch.as_tensor(item_embeddings)
        _check_vectors(item_embeddings, item_count)
        self.item_count, self.size, self.weight = item_count, size, weight
        text = has_text(item_embeddings)
        self.register_buffer("text", text, persistent=False)
        self.all_text = bool(text.all())
        vectors = _prepared(item_embeddings, standardise=standardise, rank=rank).to(_DTYPES[dtype])
        self.register_buffer("teacher", vectors, persistent=False)
        self.offsets = nn.Parameter(torch.randn(item_count, size) * std) if offset else None
        width = size if projector == "linear" else hidden or 2 * size
        self.entry = nn.Linear(vectors.shape[1], width)
        self.exit = None if projector == "linear" else nn.Linear(width, size)
        if standardise:
            self._scale_start(std)

    def forward(self, items: Tensor | None = None) -> Tensor:
        """Return ``(n, d)`` vectors of the ``(n,)`` items, or the whole ``(I, d)`` table if None."""
        if items is None:
            return self._vectors(None)
        unique, places = torch.unique(items, return_inverse=True)
        return embedding(places, self._vectors(unique))

    def _vectors(self, items: Tensor | None) -> Tensor:
        """Return eq. (13) of the distinct ``(u,)`` items, or of all."""
        text = project_rows(self.teacher, self.entry.weight, items) + self.entry.bias  # (u, d) or (u, hidden)
        if self.exit is not None:
            text = self.exit(torch.relu(text))
        if not self.all_text:
            text = text * (self.text if items is None else self.text[items]).unsqueeze(1)
        if self.offsets is None:
            return self.weight * text
        offsets = self.offsets if items is None else embedding(items, self.offsets)
        return torch.add(offsets, text, alpha=self.weight)

    @torch.no_grad()
    def _scale_start(self, std: float) -> None:
        """Draw g so that w g(z) starts with standard deviation `std`."""
        layers = [self.entry] if self.exit is None else [self.entry, self.exit]
        for layer in layers:
            nn.init.zeros_(layer.bias)
        sample = self.text.nonzero().flatten()[:1000]
        text = self._vectors(sample) if self.offsets is None else self._vectors(sample) - self.offsets[sample]
        if len(sample):
            layers[-1].weight.mul_(std / text.square().mean().sqrt().clamp_min(1e-12))


def _prepared(vectors: Tensor, *, standardise: bool, rank: int | None) -> Tensor:
    result = standardised(vectors) if standardise else vectors.float()
    if rank is not None:
        result = principal_components(result, rank, whiten=False)
    return unit_mean_norm(result) if standardise else result


def _check_options(**options: Any) -> None:
    if options["projector"] not in ("linear", "mlp"):
        _refuse("projector", options["projector"], "linear, mlp")
    if options["dtype"] not in _DTYPES:
        _refuse("dtype", options["dtype"], ", ".join(_DTYPES))
    for name in ("weight", "hidden", "rank"):
        if options[name] is not None and not options[name] > 0:
            _refuse(name, options[name], "above 0")


def _refuse(option: str, value: object, allowed: str) -> None:
    raise ConfigError(
        f"{option} of item encoder collaborative is {value!r}. Allowed: {allowed}. "
        f"Set it with: recdistill distill ... item_encoder.options.{option}=VALUE"
    )


def _check_vectors(vectors: Tensor, item_count: int) -> None:
    if vectors.ndim != 2 or len(vectors) != item_count:
        raise KnowledgeError(
            f"the item embeddings have the shape {tuple(vectors.shape)}. Allowed: ({item_count}, D): "
            "a vector an item. Make them anew with: recdistill teach embedding --dataset DIR --out DIR"
        )
    finite = torch.linalg.vector_norm(vectors, torch.inf, dim=1).isfinite()  # no copy of the table
    if not bool(finite.all()):
        raise KnowledgeError(
            f"the vector of item {int((~finite).nonzero()[0])} is not finite. Allowed: finite numbers, "
            "a zero row for an item without text. "
            "Make them anew with: recdistill teach embedding --dataset DIR --out DIR"
        )
