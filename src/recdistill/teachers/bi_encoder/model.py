"""The bi-encoder: one text encoder reads histories and items, and their product ranks the catalogue.

With v_i the encoder's vector of title i, μ and A the mean and the whitening of the pretrained vectors, h_n the last
item of a history and w a softmax over its last L items::

    x_i = (v_i - μ) A,     z_i = (x_i + x_i Δ) / |x_i + x_i Δ|                                   # (1)
    w_k ∝ exp(r_k + u·z_{h_{n-k}} + c z_{h_{n-k}}·z_{h_n})                                        # (2)
    q = (b + Σ_k w_k (1 + M_{min(k,2)}) z_{h_{n-k}}) / τ            pooled queries                 # (3)
    q = (b + (1 + M_0) z_t) / τ,   t: the titles as one text        text queries                   # (3')
    score(i) = q·z_i + ρ [i among the last L items]                                                # (4)

No parameter belongs to one item, so items that were never bought are ranked as well. An item without a title has
z = 0. At the start Δ, M, u, c, b are 0: scores are cosines of whitened vectors, which is the untrained model that
training has to beat.

======  ===========  ==========  =================================
symbol  name         shape       start
======  ===========  ==========  =================================
μ, A    mean, axes   (H,) (H,D)  from the pretrained vectors; fixed
Δ       item_map     (D, D)      0
r       recency      (L,)        -k/2
u, c    key, near    (D,) ()     0
M       maps         (3, D, D)   0
b       bias         (D,)        0
τ       log_tau      ()          `temperature`
ρ       repeat       ()          -3
======  ===========  ==========  =================================

The scheme is that of Yi et al., "Sampling-Bias-Corrected Neural Modeling", RecSys 2019, with one text encoder for
both towers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from recdistill.teachers.bi_encoder.options import BiEncoderOptions
from recdistill.teachers.text.item_text import whiten
from recdistill.teachers.text.tower import LowerLayers, TextTower, TokenLists
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_MAPS = 3
_REPEAT = -3.0
#: Between the titles of a history that is read as one text.
_SEPARATOR = ", "


class BiEncoder(nn.Module):
    """Eq. 1 to 4 for one catalogue.

    Parameters
    ----------
    tower
        The encoder, with its trained parameters chosen.
    titles
        I texts, empty where an item has none.
    options
        See `BiEncoderOptions`.
    cache_bytes
        The most that `LowerLayers` may take.

    Attributes
    ----------
    vectors
        ``(I, H)`` the encoder's vectors of all titles, as fresh as the last `refresh`.
    """

    vectors: Tensor
    has_text: Tensor
    mean: Tensor
    axes: Tensor

    def __init__(
        self,
        tower: TextTower,
        titles: Sequence[str],
        options: BiEncoderOptions,
        *,
        cache_bytes: int = 2 << 30,
    ) -> None:
        super().__init__()
        self.tower, self.titles, self.options = tower, [title.strip() for title in titles], options
        self.lists = tower.tokenised(self.titles)
        self.lower = LowerLayers.of(tower, self.lists, cache_bytes)
        known = torch.tensor([bool(title) for title in self.titles]).unsqueeze(1)
        self.register_buffer("has_text", known.to(tower.device), persistent=False)
        self.register_buffer("vectors", self._read_all(), persistent=False)
        mean, axes = whitening(self.vectors.cpu().numpy(), known[:, 0].numpy(), options.size)
        self.register_buffer("mean", torch.from_numpy(mean).to(tower.device), persistent=False)
        self.register_buffer("axes", torch.from_numpy(axes).to(tower.device), persistent=False)
        self._start(axes.shape[1])

    def _start(self, width: int) -> None:
        device = self.tower.device
        self.item_map = nn.Parameter(torch.zeros(width, width, device=device))
        self.recency = nn.Parameter(-0.5 * torch.arange(self.options.last_items, device=device).float())
        self.key = nn.Parameter(torch.zeros(width, device=device))
        self.near = nn.Parameter(torch.zeros((), device=device))
        self.maps = nn.Parameter(torch.zeros(_MAPS, width, width, device=device))
        self.bias = nn.Parameter(torch.zeros(width, device=device))
        self.log_tau = nn.Parameter(torch.tensor(self.options.temperature, device=device).log())
        self.repeat = nn.Parameter(torch.tensor(_REPEAT, device=device))

    @property
    def width(self) -> int:
        """D."""
        return self.axes.shape[1]

    def head_parameters(self) -> list[nn.Parameter]:
        """Return what is trained beside the encoder."""
        return [p for name, p in self.named_parameters() if not name.startswith("tower.")]

    @torch.no_grad()
    def refresh(self) -> None:
        """Encode all titles anew."""
        self.vectors = self._read_all()

    @torch.no_grad()
    def _read_all(self) -> Tensor:
        vectors: Tensor = self.tower(self.lists, np.arange(len(self.titles)), self.lower)
        return vectors

    def encode(self, items: Ints) -> Tensor:
        """Return ``(n, H)`` fresh vectors of items, with gradients."""
        vectors: Tensor = self.tower(self.lists, items, self.lower)
        return vectors

    def project(self, vectors: Tensor, has_text: Tensor | None = None) -> Tensor:
        """Return ``(..., D)`` z of eq. 1 for ``(..., H)`` vectors; zero where `has_text` is False."""
        x = (vectors - self.mean) @ self.axes
        z = normalize(x + x @ self.item_map, dim=-1)
        return z if has_text is None else z * has_text

    def table(self) -> Tensor:
        """Return ``(I, D)`` z of all items, from `vectors`."""
        return self.project(self.vectors, self.has_text)

    def pooled(self, z: Tensor, present: Tensor) -> Tensor:
        """Return ``(B, D)`` queries of eq. 3.

        Parameters
        ----------
        z
            ``(B, L, D)`` the history's items, newest first.
        present
            ``(B, L)`` bool, which of them exist.
        """
        z = z * present.unsqueeze(-1)
        logits = self.recency + z @ self.key + self.near * (z @ z[:, 0].unsqueeze(-1)).squeeze(-1)  # (B, L)
        weight = logits.masked_fill(~present, -1e9).softmax(1) * present
        spoken = z * weight.unsqueeze(-1)  # (B, L, D)
        query = spoken.sum(1) + self.bias + spoken[:, 0] @ self.maps[0]
        if spoken.shape[1] > 1:
            query = query + spoken[:, 1] @ self.maps[1] + spoken[:, 2:].sum(1) @ self.maps[2]
        return query / self.log_tau.exp()

    def read(self, history: Ints) -> Tensor:
        """Return ``(B, D)`` queries of eq. 3' for ``(B, L)`` items, newest first; oldest titles are cut off first."""
        titles = self.titles
        texts = [
            _SEPARATOR.join(titles[i] for i in line if i != PAD and titles[i]) for line in history.tolist()
        ]
        lists: TokenLists = self.tower.tokenised(texts)
        z = self.project(self.tower(lists, np.arange(len(texts))))
        return (z + self.bias + z @ self.maps[0]) / self.log_tau.exp()

    def queries(self, history: Ints, table: Tensor) -> Tensor:
        """Return ``(B, D)`` queries for ``(B, L)`` items, newest first, from ``table()``."""
        if self.options.query == "text":
            return self.read(history)
        items = torch.from_numpy(history).to(table.device)
        return self.pooled(table[items.clamp_min(0)], items != PAD)


def add_repeats(scores: Tensor, history: Tensor, repeat: Tensor | float) -> Tensor:
    """Add ρ of eq. 4 to ``(B, I)`` scores in place, once for each item of the ``(B, L)`` history.

    Parameters
    ----------
    scores, history
        Items may repeat in a history; `PAD` is passed over.
    repeat
        ρ, one number or ``(B,)``.
    """
    rows, columns = (history != PAD).nonzero(as_tuple=True)
    items = history[rows, columns]
    bonus = repeat[rows] if isinstance(repeat, Tensor) and repeat.ndim else repeat
    scores[rows, items] = scores[rows, items] + bonus  # reads before it writes: a repeated item counts once
    return scores


def whitening(vectors: Floats, has_text: npt.NDArray[np.bool_], size: int) -> tuple[Floats, Floats]:
    """Return μ ``(H,)`` and A ``(H, D)`` with ``(v - μ) A`` whitened (see `text.whiten`), D ≤ `size`."""
    white = whiten(vectors, has_text, min(size, vectors.shape[1]))[has_text]
    mean = vectors[has_text].mean(0)
    # the map is linear, so that least squares finds it exactly; scaled for lengths of about 1
    axes = np.linalg.lstsq(
        (vectors[has_text] - mean).astype(np.float64), white.astype(np.float64), rcond=None
    )[0]
    scale = max(float(np.linalg.norm(white, axis=1).mean()), 1e-12)
    return mean.astype(np.float32), (axes / scale).astype(np.float32)
