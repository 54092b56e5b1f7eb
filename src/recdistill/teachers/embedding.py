"""A text-only sequential teacher: whitened item text, and a learned query (`recdistill.teachers.text_query`).

A teacher that ranks rows it was trained on repeats their answers. The teacher is therefore cross-fitted:
sequences are dealt into F folds, one model is trained without each, and a training row is answered by the model
that never saw its sequence. Valid and test rows are answered by the mean of the F queries, which, as a score is the
product of query and item vector, is the mean of the F scores. Item vectors are shared by all folds, so queries of
different folds compare.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge.knowledge import Knowledge
from recdistill.teachers import base
from recdistill.teachers.order import ORDER, order_sensitivity
from recdistill.teachers.text_query import EmbeddingOptions, TextQuery, fit, newest_first, newest_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class EmbeddingTeacher:
    """The cross-fitted text-only teacher.

    Parameters
    ----------
    text
        ``(I, D)`` whitened item text vectors; they become the knowledge's item embeddings.
    options
        See `EmbeddingOptions`.
    seed
        Of folds, rows and samples.
    encoder
        Name of the text encoder, for the manifest.
    """

    name = "embedding"

    def __init__(
        self,
        text: Floats,
        options: EmbeddingOptions | None = None,
        *,
        seed: int = 0,
        encoder: str | None = None,
    ) -> None:
        self.text = np.ascontiguousarray(text, dtype=np.float32)
        self.options = options or EmbeddingOptions()
        self.seed = seed
        self.encoder = encoder
        self._models: list[TextQuery] = []

    def folds(self, dataset: SequenceDataset) -> Ints:
        """Return ``(U,)`` the fold of each sequence, 0..F-1."""
        count = len(dataset.offsets) - 1
        order = np.random.default_rng(self.seed).permutation(count)
        return order % self.options.folds

    def queries(
        self, dataset: SequenceDataset, rows: Ints, *, progress: base.Progress | None = None
    ) -> Floats:
        """Train the F models and return the ``(n, D)`` queries of the rows, each from models that may answer it."""
        table = torch.from_numpy(self.text)
        fold_of = self.folds(dataset)[dataset.row_sequences]  # (R,)
        trained = np.zeros(len(dataset.row_ids), dtype=bool)
        train = dataset.rows("train", prefixes=True)
        trained[train] = True
        queries = np.zeros((len(rows), table.shape[1]), dtype=np.float32)
        self._models = []
        for fold in range(self.options.folds):
            model = fit(
                dataset,
                table,
                train[fold_of[train] != fold],
                self.options,
                seed=self.seed + fold,
                progress=progress,
            )
            self._models.append(model)
            share = np.where(trained[rows], fold_of[rows] == fold, 1 / self.options.folds)  # (n,)
            asked = np.flatnonzero(share)
            for part in np.array_split(asked, max(1, len(asked) // 4096)):
                history = torch.from_numpy(newest_first(dataset, rows[part], self.options.last_items))
                with torch.no_grad():
                    queries[part] += share[part, None] * model(history).numpy()
        return queries

    def mean_scores(self, history: Ints) -> Tensor:
        """Return ``(B, I)`` scores of the models trained last, for ``(B, L)`` histories that run from old to new.

        Raises
        ------
        ConfigError
            No model has been trained.
        """
        if not self._models:
            raise ConfigError("the models are not trained yet. Call teach or queries first.")
        newest = torch.from_numpy(newest_of(history, self.options.last_items))
        query = torch.stack([model(newest) for model in self._models]).mean(0)  # (B, D)
        return query @ torch.from_numpy(self.text).T

    def teach(
        self,
        dataset: SequenceDataset,
        rows: Ints,
        *,
        top_k: int = 50,
        progress: base.Progress | None = None,
        on_epoch_rows: base.Progress | None = None,
    ) -> Knowledge:
        """Answer the rows; ``query_embeddings @ item_embeddings.T`` are the scores, exactly.

        Queries are kept in float16, and the answers are those of the rounded queries. Distances are negative
        log-probabilities under the softmax of the scores.

        Parameters
        ----------
        dataset
            Its training rows train the queries.
        rows
            ``(N,)`` positions, ascending.
        top_k
            K.
        progress
            Called with the rows answered.
        on_epoch_rows
            Called with the rows of each training step.
        """
        kept = self.queries(dataset, rows, progress=on_epoch_rows).astype(np.float16)  # (N, D)
        table = torch.from_numpy(self.text)

        def scorer(part: Ints, history: Ints) -> Tensor:
            return torch.from_numpy(kept[np.searchsorted(rows, part)]).float() @ table.T

        facts = {
            "teacher": self.name,
            "metric": "dot",
            "distance": "negative_log_probability",
            "encoder": self.encoder,
            "seed": self.seed,
            "options": asdict(self.options),
            "cross_fitting": "training rows by the model without their sequence's fold; others by the mean query",
            ORDER: order_sensitivity(self.mean_scores, dataset, length=self.options.last_items),
        }
        return base.knowledge_from_scorer(
            scorer,
            dataset,
            rows,
            length=1,
            top_k=top_k,
            progress=progress,
            query_embeddings=kept,
            item_embeddings=self.text,
            manifest=facts,
        )
