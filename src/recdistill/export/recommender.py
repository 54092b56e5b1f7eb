"""A student, its catalogue and its preprocessing as one saved folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from recdistill.data import Catalogue, SequenceDataset
from recdistill.errors import ConfigError, DataError
from recdistill.evaluate import Evaluation, ranks_of_new_items, target_ranks
from recdistill.export.best_items import best_items_of
from recdistill.export.fold import fold
from recdistill.export.kinds import is_export
from recdistill.export.other_catalogue import over_texts, text_maps_of
from recdistill.export.scorer import ModelScorer
from recdistill.export.text_path import TextPath
from recdistill.item_encoders import TextTable
from recdistill.runs import require_fingerprint
from recdistill.students import SequenceModel
from recdistill.types import HELD_OUT, LEARNED, PAD, Split

Ints = npt.NDArray[np.int64]
#: Where a spec keeps that validation left items of the history out (False); without it they are kept.
REPEATS: Final = "repeats"
#: Where a spec keeps how much popularity, and being bought of late, count in the item biases (`train.item_prior`).
PRIOR: Final = "prior"


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
    text_maps
        Of a student without ids: what forms the vectors of its ``input`` and ``output`` table from texts, so that
        `over` can rank another catalogue. Empty for any other.
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
    text_maps: Mapping[str, TextTable] = field(default_factory=dict)
    text: TextPath | None = None
    popularity: Ints | None = None
    added: int = 0

    @classmethod
    def from_model(
        cls, model: SequenceModel, dataset: SequenceDataset, spec: Mapping[str, Any], length: int
    ) -> Recommender:
        """Take a folded copy of a model in training."""
        spec, folded = {**spec, "tied": model.tied, "bias": model.item_bias is not None}, fold(model)
        if folded.user_encoder is not None:
            users = folded.user_encoder
            spec["user_encoder"] = {"saved_as": users.saved_as, "options": users.saved_options()}
        cold = np.flatnonzero(dataset.cold_items)
        return cls(
            folded,
            dataset.catalogue,
            spec,
            length,
            dataset.fingerprint,
            cold,
            text_maps_of(model),
            TextPath.of(model),
            dataset.popularity,
        )

    @property
    def learned(self) -> tuple[Split, ...]:
        """Splits that were learned from besides the training rows: nothing can be measured on them."""
        return tuple(split for split in HELD_OUT if split in self.spec.get(LEARNED, ()))

    def scorer(self) -> ModelScorer:
        """Return a function from histories ``(B, L)``, and row ids if wanted, to scores ``(B, I)``."""
        return ModelScorer(self.model)

    def evaluate(
        self, dataset: SequenceDataset, split: Split, *, filter_seen: bool, name: str = "student"
    ) -> Evaluation:
        """Rank the target of every row of a split among all items.

        Where training found on validation that items of the history are better left out (`REPEATS`), they are: then a
        target that the history has is missed.

        Raises
        ------
        FingerprintError
            The recommender was trained on another dataset.
        DataError
            It was trained on the rows of the split.
        """
        require_fingerprint(self.dataset_fingerprint, dataset.fingerprint, name)
        if split in self.learned:
            others = [one for one in HELD_OUT if one not in self.learned]
            raise DataError(
                f"{name} was trained on the {split} rows as well (recdistill refit), so that they say nothing of it. "
                f"Allowed: {'--split ' + others[0] if others else 'none, all rows were learned from'}."
            )
        rows = dataset.rows(split)
        ranks = target_ranks(self.scorer(), dataset, rows, length=self.length)
        if self.spec.get(REPEATS, True):
            chosen = ranks.of(filter_seen=filter_seen)
        else:
            chosen = ranks_of_new_items(ranks, dataset, rows)
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
        users: Sequence[str | None] | None = None,
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
        users
            Whose history each is, by the number of the sequence in the dataset (``"17"``): the newest that is
            known of a user counts beside the history. None, or a stranger: the history alone.
        batch_size
            Histories scored at once.

        Returns
        -------
        pl.DataFrame
            Columns ``history`` (0-based), ``rank`` (1-based), ``item_id``, ``title``, ``score``.

        Raises
        ------
        ConfigError
            `k` is out of range, or there is not one user a history.
        DataError
            A history is empty, or names an item that the catalogue does not have.
        """
        if not 1 <= k <= len(self.catalogue):
            raise ConfigError(f"k is {k}. Allowed: 1 to {len(self.catalogue)}, the number of items.")
        allowed = None if candidates is None else torch.from_numpy(self.catalogue.index_of(candidates))
        rows = self.rows_of(users, len(histories))
        frames = [
            best_items_of(
                self.scorer(),
                self.catalogue,
                histories[start : start + batch_size],
                k,
                length=self.length,
                exclude_seen=exclude_seen,
                allowed=allowed,
                rows=rows,
                start=start,
            )
            for start in range(0, max(1, len(histories)), batch_size)
        ]
        return pl.concat(frames)

    def rows_of(self, users: Sequence[str | None] | None, count: int) -> Ints | None:
        """Return ``(count,)`` the newest known row of each user, `PAD` for strangers; None where none is known.

        Raises
        ------
        ConfigError
            There is not one user a history.
        """
        if users is None:
            return None
        if len(users) != count:
            raise ConfigError(
                f"there are {len(users)} users for {count} histories. Allowed: one each, None for a stranger. "
                "Pass --user once."
            )
        if self.model.user_encoder is None:
            return None
        numbers = [
            int(user) if user is not None and user.isdecimal() and len(user) < 19 else PAD for user in users
        ]
        return self.model.user_encoder.rows_of(numbers)

    def over(
        self,
        catalogue: Catalogue,
        vectors: npt.NDArray[np.floating[Any]],
        *,
        dataset_fingerprint: str = "",
        keep_users: bool = False,
    ) -> Recommender:
        """Return a recommender for another catalogue, which training never saw.

        Parameters
        ----------
        catalogue
            Its J items.
        vectors
            ``(J, D)`` texts of the items, by the encoder of the training; a zero row: no text, never recommended.
        dataset_fingerprint
            Of the dataset it is to be evaluated on, if it is.
        keep_users
            Whether what is known of users of the training still counts.

        Raises
        ------
        ConfigError
            The student has numbers of its own for each item, so that it knows nothing of others; or there is not one
            vector an item.
        """
        if not self.text_maps:
            raise ConfigError(
                f"this {self.spec['student']} learned numbers for the {len(self.catalogue):,} items of its own "
                "catalogue, and has none for others. Allowed: a student without ids. Train one with "
                "--strategy slim-agnostic."
            )
        wanted = len(next(iter(self.text_maps.values())).mean)
        if vectors.shape != (len(catalogue), wanted):
            raise ConfigError(
                f"the vectors of the {len(catalogue):,} items have the shape {vectors.shape}. Needed: "
                f"({len(catalogue)}, {wanted}), by the encoder of the training: that of the folder of rationales."
            )
        model = over_texts(
            self.model, self.text_maps, torch.from_numpy(np.asarray(vectors, dtype=np.float32))
        )
        if not keep_users:
            model.user_encoder = None
        none = np.zeros(0, dtype=np.int64)
        return Recommender(
            model, catalogue, self.spec, self.length, dataset_fingerprint, none, self.text_maps
        )

    def save(self, folder: Path | str, *, overwrite: bool = True) -> None:
        """Write ``model.safetensors``, ``config.json``, ``items.parquet`` and ``manifest.json``, or nothing."""
        from recdistill.export.stored import write_recommender

        write_recommender(self, Path(folder), overwrite=overwrite)

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
        from recdistill.export.stored import read_recommender

        return read_recommender(folder)

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


def load_scorer(folder: Path | str) -> tuple[ModelScorer, int]:
    """Return the scorer of a run or recommender folder, and the history length it reads."""
    recommender = Recommender.load(folder)
    return recommender.scorer(), recommender.length
