"""From a title to an item vector: text encoder, whitening, and the student's own map. It lets a catalogue grow without
training (`recdistill.export.extending`).

Training leaves the maps of the best epoch. Export adds the way from the title to the teacher's vector, and proves it:
the titles of the catalogue are encoded again, and the way is kept only if it leads to the vectors that the student
learned from. ``text.safetensors`` holds everything; its metadata is one JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recdistill.errors import RunError
from recdistill.item_encoders import TextMap, text_map
from recdistill.students import SequenceModel
from recdistill.teachers.text.item_text import ItemText, whitening_of

Floats = npt.NDArray[np.float32]
#: Largest difference, over the largest number, at which two sets of text vectors count as the same.
SAME: Final = 2e-3
_PROBES: Final = 64


@dataclass(frozen=True, eq=False)
class TextPath:
    """How new items get vectors.

    Attributes
    ----------
    output, input
        The maps of the two item tables; with a tied table only `output`. None: the table does not come from text.
    encoder
        ``{"name": ..., "whitening": "pca" | "zca" | "raw", "width": D}`` once export has proved the way, else empty.
    tensors
        ``mean``, ``matrix`` of the whitening, ``probe_items`` and ``probe_vectors``: some items with the vectors
        that their titles must lead to.
    reason
        Why there is no way from a title, in words.
    """

    output: TextMap | None
    input: TextMap | None
    encoder: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Whether a title alone leads to an item vector."""
        return bool(self.encoder) and self.output is not None

    @classmethod
    def of(cls, model: SequenceModel) -> TextPath | None:
        """Return the maps of a model in training; None where no table comes from text."""
        output = text_map(model.output_encoder)
        entry = None if model.tied else text_map(model.item_encoder)
        return None if output is None and entry is None else cls(output, entry)

    def stretched(self, factor: float) -> TextPath:
        """Return a path whose item vectors are `factor` times as long."""
        sides = (
            None if made is None else replace(made, factor=factor * made.factor)
            for made in (self.output, self.input)
        )
        return replace(self, output=next(sides), input=next(sides))

    def save(self, path: Path) -> None:
        """Write everything to one file."""
        found = {f"way.{name}": value.contiguous() for name, value in self.tensors.items()}
        for prefix, made in (("output.", self.output), ("input.", self.input)):
            if made is not None:
                found |= made.tensors(prefix)
        facts = {"encoder": dict(self.encoder), "reason": self.reason}
        save_file(found, path, metadata={"facts": json.dumps(facts)})

    @classmethod
    def load(cls, path: Path) -> TextPath | None:
        """Read what `save` wrote; None where there is no such file.

        Raises
        ------
        RunError
            The file is damaged.
        """
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dictionary
                facts = json.loads(file.metadata()["facts"])
            way = {name[4:]: value for name, value in tensors.items() if name.startswith("way.")}
            output, entry = (TextMap.from_tensors(tensors, prefix) for prefix in ("output.", "input."))
            return cls(output, entry, encoder=facts["encoder"], tensors=way, reason=facts["reason"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error}. Export the run anew: recdistill export.") from error

    def proved(self, text: ItemText, expected: Floats) -> TextPath:
        """Return the path with the way from titles, if some whitening of `text` gives the teacher's vectors.

        Parameters
        ----------
        text
            The catalogue's titles, encoded.
        expected
            ``(I, D)`` the teacher's item vectors, which the student learned from.
        """
        for kind in ("pca", "zca", "raw"):
            way = _way(text, kind, expected.shape[1])
            if way is None:
                continue
            found = through(torch.from_numpy(text.vectors), way)
            if same_vectors(found, torch.tensor(expected, dtype=torch.float32)):
                rows = torch.from_numpy(np.flatnonzero(text.has_text)[:_PROBES])
                probes = {"probe_items": rows, "probe_vectors": found[rows]}
                facts = {"name": text.encoder, "whitening": kind, "width": int(text.vectors.shape[1])}
                return replace(self, encoder=facts, tensors={**way, **probes}, reason="")
        return replace(
            self,
            reason=f"the teacher's item vectors do not follow from the titles by the encoder {text.encoder!r}",
        )


def _way(text: ItemText, kind: str, width: int) -> dict[str, Tensor] | None:
    """Return the whitening's mean and matrix; None where it cannot give `width` columns."""
    if kind == "raw":
        return {} if text.vectors.shape[1] == width else None
    if width > text.vectors.shape[1] or (kind == "zca" and width != text.vectors.shape[1]):
        return None
    mean, matrix = whitening_of(text.vectors, text.has_text, width, kind=kind)
    if matrix.shape[1] != width:
        return None
    return {"mean": torch.from_numpy(mean), "matrix": torch.from_numpy(matrix)}


def through(vectors: Tensor, way: Mapping[str, Tensor]) -> Tensor:
    """Return the teacher's vectors of an encoder's ``(n, D_0)`` vectors; rows without text stay zero."""
    if "matrix" not in way:
        return vectors
    text = (vectors != 0).any(1, keepdim=True)
    white: Tensor = ((vectors.double() - way["mean"]) @ way["matrix"]).float()
    norms = torch.linalg.vector_norm(white, dim=1, keepdim=True)
    even: Tensor = white * (white.shape[1] ** 0.5 / norms.where(norms > 0, 1.0))
    return even * text


def same_vectors(found: Tensor, expected: Tensor) -> bool:
    """Tell whether two sets of vectors agree to rounding."""
    if found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= SAME * max(1.0, float(expected.abs().max()))
