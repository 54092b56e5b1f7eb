"""A student, its catalogue and its preprocessing as one saved folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recdistill.data import Catalogue, SequenceDataset
from recdistill.errors import ConfigError, DataError, RunError
from recdistill.evaluate import Evaluation, target_ranks
from recdistill.export.fold import fold
from recdistill.export.kinds import is_export
from recdistill.export.text_path import TextPath
from recdistill.item_encoders import Ids
from recdistill.runs import (
    atomic_folder,
    read_json,
    read_manifest,
    require_fingerprint,
    write_json,
    write_manifest,
)
from recdistill.students import STUDENTS, SequenceModel
from recdistill.types import PAD, Split

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained student that answers with items of its catalogue.

    Attributes
    ----------
    model
        A folded model in evaluation mode.
    catalogue
        Its I items.
    spec
        What rebuilds the student: ``{"student": name, "options": {...}, "tied": bool, "bias": bool}``.
    length
        L, the longest history it reads; of a longer one the newest L items count.
    dataset_fingerprint
        The dataset it was trained on.
    cold
        ``(n,)`` int64, items that training never saw. They can be recommended for what they are only if the
        student forms item vectors from text.
    text
        How a title becomes an item vector; None: item vectors do not come from text, or nothing of it was kept.
    popularity
        ``(I,)`` int64, how often each item is a training target; None: not known here.
    added
        How many items at the end of the catalogue came after training, by `recdistill.export.extend_export`.
    """

    model: SequenceModel
    catalogue: Catalogue
    spec: Mapping[str, Any]
    length: int
    dataset_fingerprint: str
    cold: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    text: TextPath | None = None
    popularity: Ints | None = None
    added: int = 0

    @classmethod
    def from_model(
        cls, model: SequenceModel, dataset: SequenceDataset, spec: Mapping[str, Any], length: int
    ) -> Recommender:
        """Take a folded copy of a model in training."""
        spec = {**spec, "tied": model.tied, "bias": model.item_bias is not None}
        cold = np.flatnonzero(dataset.cold_items)
        text, counts = TextPath.of(model), dataset.popularity
        return cls(fold(model), dataset.catalogue, spec, length, dataset.fingerprint, cold, text, counts)

    def scorer(self) -> Callable[[Ints], Tensor]:
        """Return a function from histories ``(B, L)`` to scores ``(B, I)``."""
        device = next(self.model.parameters()).device

        def score(histories: Ints) -> Tensor:
            return self.model.score(torch.from_numpy(histories).to(device))

        return score

    def evaluate(
        self, dataset: SequenceDataset, split: Split, *, filter_seen: bool, name: str = "student"
    ) -> Evaluation:
        """Rank the target of every row of a split among all items.

        Raises
        ------
        FingerprintError
            The recommender was trained on another dataset.
        """
        require_fingerprint(self.dataset_fingerprint, dataset.fingerprint, name)
        rows = dataset.rows(split)
        ranks = target_ranks(self.scorer(), dataset, rows, length=self.length)
        chosen = ranks.of(filter_seen=filter_seen)
        return Evaluation(
            name,
            split,
            dataset.row_ids[rows],
            chosen,
            dataset.item_count,
            filter_seen,
            dataset=dataset.fingerprint,
        )

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        *,
        exclude_seen: bool = True,
        candidates: Sequence[str] | None = None,
        batch_size: int = 256,
    ) -> pl.DataFrame:
        """Return the k best items after each history.

        Parameters
        ----------
        histories
            Raw ids or titles, oldest first; at least one item each.
        k
            Items a history, 1..I.
        exclude_seen
            Leave out the items of the history.
        candidates
            Rank only these (raw ids or titles), or all items if None.
        batch_size
            Histories scored at once.

        Returns
        -------
        pl.DataFrame
            Columns ``history`` (0-based), ``rank`` (1-based), ``item_id``, ``title``, ``score``.

        Raises
        ------
        ConfigError
            `k` is out of range.
        DataError
            A history is empty, or names an item that the catalogue does not have.
        """
        if not 1 <= k <= len(self.catalogue):
            raise ConfigError(f"k is {k}. Allowed: 1 to {len(self.catalogue)}, the number of items.")
        allowed = None if candidates is None else torch.from_numpy(self.catalogue.index_of(candidates))
        frames = [
            self._recommend(histories[start : start + batch_size], start, k, exclude_seen, allowed)
            for start in range(0, len(histories), batch_size)
        ]
        return pl.concat(frames) if frames else _answer(self.catalogue, *_nothing())

    def _recommend(
        self,
        histories: Sequence[Sequence[str]],
        start: int,
        k: int,
        exclude_seen: bool,
        allowed: Tensor | None,
    ) -> pl.DataFrame:
        known = [self.catalogue.index_of(list(history)) for history in histories]
        if empty := [start + row for row, items in enumerate(known) if not len(items)]:
            raise DataError(
                f"history {empty[0]} is empty. A history needs at least one item: --history TITLE."
            )
        scores = self.scorer()(pad_histories(known, self.length)).float()  # (B, I)
        if exclude_seen:
            owner = torch.from_numpy(np.repeat(np.arange(len(known)), [len(items) for items in known]))
            scores[owner, torch.from_numpy(np.concatenate(known))] = -torch.inf
        if allowed is not None:
            keep = torch.full((len(self.catalogue),), -torch.inf, device=scores.device)
            keep[allowed] = 0.0
            scores = scores + keep
        best = scores.topk(k, dim=1)
        values, items = best.values.cpu().numpy(), best.indices.cpu().numpy()
        row, rank = np.nonzero(np.isfinite(values))
        return _answer(self.catalogue, row + start, rank, items[row, rank], values[row, rank])

    def save(self, folder: Path | str, *, overwrite: bool = True) -> None:
        """Write ``model.safetensors``, ``config.json``, ``items.parquet`` and ``manifest.json``, or nothing."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.model.state_dict().items()}
        if self.spec["tied"]:
            tensors = {k: v for k, v in tensors.items() if not k.startswith("output_encoder.")}
        with atomic_folder(Path(folder), overwrite=overwrite) as out:
            save_file(tensors, out / "model.safetensors")
            write_json(out / "config.json", {**self.spec, "length": self.length, "cold": self.cold.tolist()})
            self.catalogue.frame.write_parquet(out / "items.parquet")
            if self.text is not None:
                self.text.save(out / "text.safetensors")
            write_manifest(out, "recommender", {"dataset_fingerprint": self.dataset_fingerprint})

    @classmethod
    def load(cls, folder: Path | str) -> Recommender:
        """Read a recommender folder, an exported one, or the best student of a run folder (of several: the first).

        Raises
        ------
        RunError
            The folder is none of them, or its files are damaged.
        """
        folder = Path(folder)
        if is_export(folder):
            from recdistill.export.reading import read_export

            return read_export(folder)
        folder = min(folder.glob("seed-*"), key=lambda path: int(path.name.split("-")[1]), default=folder)
        if (folder / "best").is_dir():
            folder = folder / "best"
        manifest = read_manifest(folder, "recommender")
        spec = read_json(folder / "config.json")
        catalogue = Catalogue(pl.read_parquet(folder / "items.parquet"))
        try:
            tensors = load_file(folder / "model.safetensors")
            model = _rebuild(spec, tensors)
        except (SafetensorError, OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise RunError(f"{folder} is damaged: {error}. Export it, or train it, anew.") from error
        spec_only = {key: value for key, value in spec.items() if key not in ("length", "cold")}
        cold = np.array(spec.get("cold", []), dtype=np.int64)
        fingerprint = str(manifest["dataset_fingerprint"])
        text = TextPath.load(folder / "text.safetensors")
        return cls(model, catalogue, spec_only, int(spec["length"]), fingerprint, cold, text)

    @classmethod
    def from_pretrained(
        cls, name: Path | str, *, revision: str | None = None, token: str | None = None
    ) -> Recommender:
        """Read a folder, or a recommender that ``recdistill push`` left on a Hugging Face Hub.

        Parameters
        ----------
        name
            A folder, or ``user/name``.
        revision
            Branch, tag or commit of the Hub's copy; None: its main branch.
        token
            For a private one; None: what ``hf auth login`` kept.

        Raises
        ------
        RunError
            It is neither a folder nor on the Hub, or its files are damaged.
        MissingExtraError
            huggingface_hub is not installed.
        """
        from recdistill.export.hub import pull

        folder = Path(name)
        return cls.load(folder if folder.is_dir() else pull(str(name), revision=revision, token=token))


def _rebuild(spec: Mapping[str, Any], tensors: dict[str, Tensor]) -> SequenceModel:
    student = STUDENTS[spec["student"]](**spec["options"])
    table = Ids.from_table(tensors["item_encoder.weight"])
    output = table if spec["tied"] else Ids.from_table(tensors["output_encoder.weight"])
    model = SequenceModel(student, table, output, bias=spec["bias"])
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [name for name in missing if not (spec["tied"] and name.startswith("output_encoder."))]
    if missing or unexpected:
        raise ValueError(f"missing {missing}, unexpected {unexpected}")
    return model.eval()


def load_scorer(folder: Path | str) -> tuple[Callable[[Ints], Tensor], int]:
    """Return the scorer of a run or recommender folder, and the history length it reads."""
    recommender = Recommender.load(folder)
    return recommender.scorer(), recommender.length


def pad_histories(histories: Sequence[Ints], length: int) -> Ints:
    """Return ``(B, L)``: the newest `length` items of each history, padded on the right."""
    width = min(length, max(len(items) for items in histories))
    grid = np.full((len(histories), width), PAD, dtype=np.int64)
    for row, items in enumerate(histories):
        newest = items[-width:]
        grid[row, : len(newest)] = newest
    return grid


def _answer(
    catalogue: Catalogue, owner: Ints, rank: Ints, items: Ints, scores: npt.NDArray[Any]
) -> pl.DataFrame:
    chosen = catalogue.frame[items]
    return pl.DataFrame(
        {
            "history": owner,
            "rank": rank + 1,
            "item_id": chosen["item_id"],
            "title": chosen["title"],
            "score": scores.astype(np.float32),
        }
    )


def _nothing() -> tuple[Ints, Ints, Ints, npt.NDArray[np.float32]]:
    none = np.zeros(0, dtype=np.int64)
    return none, none, none, np.zeros(0, dtype=np.float32)
