"""An item-head model that is trained in phases and reads another model's item vectors (E4SRec, LLMD4Rec).

The soft token of an item is made from the vector that another model has for it, eq. 1 of `item_head.model` with that
vector as e_i: `push` brings new ones, training leaves them as they are. What else is learned comes in as a callable
over rows, queries and item vectors, so that this file knows nothing of the other model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import ConfigError
from recdistill.knowledge import Knowledge, load_knowledge
from recdistill.knowledge.shards import ShardWriter
from recdistill.knowledge.store import provenance
from recdistill.runs import MANIFEST
from recdistill.teachers import base
from recdistill.teachers.item_head.answers import answer
from recdistill.teachers.item_head.model import ItemHeadModel
from recdistill.teachers.item_head.options import ItemHeadOptions
from recdistill.teachers.item_head.parts import ItemHeadParts
from recdistill.teachers.item_head.plan import Plan
from recdistill.teachers.item_head.training import ItemHeadTraining, OnStep, Term
from recdistill.teachers.training_state import read_parameters

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

#: The best weights of a phase, in its folder.
BEST = "best.safetensors"
_VALID_ROWS = 2048


class ItemHeadPartner:
    """One item-head model, phase after phase.

    Parameters
    ----------
    lm
        A `LanguageModel`, or anything with its ``name``, ``fingerprint``, ``model`` and ``encode``. It is trained in
        place.
    vectors
        ``(I, d)`` the first item vectors that it reads; all that follow are multiplied by the number that brings these
        to root mean square 1.
    text
        ``(I, D_t)`` item text vectors for both ends, or None.
    options
        See `ItemHeadOptions`; its ``id_size`` and ``folds`` are not used here.
    seed
        Of start weights, order and dropout.
    instruction
        Words in front of every history.

    Raises
    ------
    ConfigError
        Histories are titles alone: no item vector would be read.
    """

    def __init__(
        self,
        lm: Any,
        vectors: Tensor,
        text: Floats | None = None,
        options: ItemHeadOptions | None = None,
        *,
        seed: int = 0,
        instruction: str = "",
    ) -> None:
        options = options or ItemHeadOptions()
        if options.history == "titles":
            raise ConfigError(
                "history is 'titles', which has no soft tokens, so the student's item vectors would not be read. "
                "Allowed: items, both. Pass teacher.history=both"
            )
        vectors = vectors.detach().float()
        self.scale = 1 / (float(vectors.square().mean().sqrt()) or 1.0)
        self.parts = ItemHeadParts(
            lm, text, options, seed=seed, instruction=instruction, given=self.scale * vectors
        )
        self.lm, self.seed = lm, seed

    @property
    def options(self) -> ItemHeadOptions:
        """The options, with what was chosen for the language model and the dataset."""
        return self.parts.options

    def prepare(self, dataset: SequenceDataset, rows: Ints) -> None:
        """Choose the batch of all phases, and refuse what the language model cannot read before anything is trained.

        Parameters
        ----------
        dataset
            All its rows must fit.
        rows
            ``(n,)`` positions of the training rows.

        Raises
        ------
        ConfigError
            A pass is longer than the language model reads.
        """
        self.parts.choose_batch(dataset, rows)
        self.parts.require_context(dataset, np.arange(len(dataset.row_ids)))

    def begin(self, dataset: SequenceDataset, vectors: Tensor, start: Path | None = None) -> ItemHeadModel:
        """Return the model as a phase begins it: with these ``(I, d)`` item vectors, and the weights of an earlier
        phase's file, or the start weights."""
        model = self.parts.fresh(dataset)
        model.push(self.scale * vectors.detach().float().to(model.input_free.device))
        if start is not None:
            read_parameters(start, model)
        return model

    def learn(
        self,
        dataset: SequenceDataset,
        rows: Ints,
        folder: Path,
        vectors: Tensor,
        *,
        start: Path | None = None,
        term: Term | None = None,
        phase: tuple[int, ...] = (0,),
        on_step: OnStep | None = None,
    ) -> tuple[ItemHeadModel, dict[str, Any]]:
        """Carry out one phase, with an optimiser of its own, to the best epoch on validation.

        Parameters
        ----------
        dataset
            Its valid rows pick the epoch.
        rows
            ``(n,)`` positions of the rows to learn from.
        folder
            For the state and, in `BEST`, the best weights; a phase that was stopped there goes on, one that is done
            is read.
        vectors, start
            See `begin`.
        term
            What is learned beside the true items.
        phase
            Numbers that tell this phase's random draws from those of others.
        on_step
            Hears how it goes.

        Returns
        -------
        tuple of ItemHeadModel and dict
            The model with its best weights, and the record of its epochs: ``best`` and ``history``.

        Raises
        ------
        TrainingError
            The loss is not finite.
        RunError
            A saved state is damaged or of another shape.
        """
        self.parts.choose_batch(dataset, rows)
        model = self.begin(dataset, vectors, start)
        valid = base.some_rows(dataset.rows("valid"), _VALID_ROWS)
        training = ItemHeadTraining(
            model,
            self._plan(dataset, rows),
            self._plan(dataset, valid),
            self.options,
            folder,
            held_out=self._plan(dataset, rows[:0]),  # no temperature is fitted: the divergence has its own
            seed=(self.seed, *phase),
            on_step=on_step,
            term=term,
        )
        return model, training.fit()

    def answer(
        self,
        model: ItemHeadModel,
        dataset: SequenceDataset,
        rows: Ints,
        out: Path,
        *,
        temperature: float = 1.0,
        top_k: int = 200,
        facts: Mapping[str, Any] | None = None,
        progress: base.Progress | None = None,
    ) -> Knowledge:
        """Answer rows and write the knowledge folder; one that was begun is continued.

        Parameters
        ----------
        model
            What `learn` returned.
        dataset
            Where the rows come from.
        rows
            ``(N,)`` positions, ascending.
        out
            The knowledge folder.
        temperature
            T > 0: distances are ``-log softmax(score / T)``, and the item vectors are divided by it.
        top_k
            M, items kept of each row; what their probabilities leave of 1 is the other items' mass.
        facts
            For the manifest.
        progress
            Called with the rows answered.
        """
        top_k = base.check_range(dataset, top_k, temperature)
        writer = ShardWriter(
            out, dataset.item_count, {**self._facts(dataset, temperature, top_k), **(facts or {})}
        )
        left = dataset.positions_of(np.sort(writer.pending(dataset.row_ids[rows])))
        if progress is not None:
            progress(len(rows) - len(left))
        table = model.table().detach().float().cpu() / temperature  # (I, d + 1)
        if len(left):
            same = torch.eye(table.shape[1])  # one model: its queries stay in their own space
            plan = self._plan(dataset, rows)
            answer(model, plan, left, same, table, writer, self.options, top_k=top_k, progress=progress)
        elif (out / MANIFEST).is_file():
            return load_knowledge(out, dataset)
        return writer.finish(table.numpy())

    def _plan(self, dataset: SequenceDataset, rows: Ints) -> Plan:
        return Plan.of(dataset, self.parts.segments(dataset), rows, self.options.max_items)

    def _facts(self, dataset: SequenceDataset, temperature: float, top_k: int) -> dict[str, Any]:
        return {
            "teacher": "item-head",
            "metric": "dot",
            "distance": "negative_log_probability",
            "model": self.lm.name,
            "model_fingerprint": self.lm.fingerprint,
            "temperature": temperature,
            "top_k": top_k,
            "seed": self.seed,
            "options": asdict(self.options),
            **provenance(dataset),
        }
