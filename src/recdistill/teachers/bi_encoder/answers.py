"""What trained bi-encoders answer together: each row by the models that may answer it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.knowledge.knowledge import Knowledge
from recdistill.teachers import base
from recdistill.teachers.bi_encoder.model import BiEncoder, add_repeats
from recdistill.teachers.item_head.space import joint_space
from recdistill.teachers.text_query import newest_first, newest_of
from recdistill.teachers.training_state import read_parameters

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_SCORE_ROWS = 512


class TrainedModels:
    """F models in one space (see `item_head_space`).

    Parameters
    ----------
    model
        Any of them; it is given the weights of the one that is asked.
    folders
        Where ``best.safetensors`` of each is.
    tables
        ``(I, D)`` item table of each.
    repeats
        ρ of each.

    Attributes
    ----------
    table
        ``(I, W)`` items in the joint space, W = F D.
    temperature
        Divides all scores; 1 at first.
    """

    def __init__(
        self, model: BiEncoder, folders: list[Path], tables: list[Tensor], repeats: list[float]
    ) -> None:
        self.model, self.folders, self.tables, self.repeats = model, folders, tables, repeats
        self.axes, self.table = joint_space(tables)
        self.temperature = 1.0

    @torch.no_grad()
    def queries(self, newest: Ints, weight: Floats) -> tuple[Tensor, Tensor]:
        """Return queries ``(n, W)`` in the joint space and ρ ``(n,)``.

        Parameters
        ----------
        newest
            ``(n, L)`` histories, newest first.
        weight
            ``(n, F)`` how much each model says.
        """
        queries = torch.zeros(len(newest), self.table.shape[1])
        repeat = torch.zeros(len(newest))
        for number, folder in enumerate(self.folders):
            some = np.flatnonzero(weight[:, number])
            if not len(some):
                continue
            read_parameters(folder / "best.safetensors", self.model)
            table = self.tables[number].to(self.model.vectors.device)
            chunks = np.array_split(some, -(-len(some) // _SCORE_ROWS))
            found = torch.cat([self.model.queries(newest[chunk], table).float().cpu() for chunk in chunks])
            share = torch.from_numpy(weight[some, number])
            queries[some] += share[:, None] * (found @ self.axes[number])
            repeat[some] += share * self.repeats[number]
        return queries / self.temperature, repeat / self.temperature

    def scores(self, history: Ints) -> Tensor:
        """Return the mean ``(B, I)`` scores of all models for ``(B, L)`` histories that run from old to new."""
        newest = newest_of(history, self.model.options.last_items)
        even = np.full((len(newest), len(self.folders)), 1 / len(self.folders), dtype=np.float32)
        queries, repeat = self.queries(newest, even)
        return add_repeats(queries @ self.table.T, torch.from_numpy(newest), repeat)

    def answer(self, dataset: SequenceDataset, rows: Ints, weight: Floats, top_k: int) -> Knowledge:
        """Return what is known of rows; the same whatever was answered before.

        Parameters
        ----------
        dataset
            The rows' own.
        rows
            ``(n,)`` positions, ascending.
        weight
            ``(n, F)`` how much each model says.
        top_k
            K, items kept of each row.
        """
        length = self.model.options.last_items
        queries, repeat = self.queries(newest_first(dataset, rows, length), weight)
        kept = queries.half().numpy()  # (n, W)

        def score(part: Ints, history: Ints) -> Tensor:
            at = np.searchsorted(rows, part)
            scores = torch.from_numpy(kept[at]).float() @ self.table.T
            return add_repeats(scores, torch.from_numpy(history), repeat[torch.from_numpy(at)])

        return base.knowledge_from_scorer(
            score, dataset, rows, length=length, top_k=top_k, batch_size=_SCORE_ROWS, query_embeddings=kept
        )
