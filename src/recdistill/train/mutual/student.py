"""The student's side of mutual teaching: its phases are ordinary runs, its answers ordinary knowledge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.export import Recommender
from recdistill.export.as_teacher import knowledge_of
from recdistill.item_encoders import Ids
from recdistill.knowledge import Knowledge, load_knowledge, save_knowledge
from recdistill.losses import Loss
from recdistill.runs import MANIFEST
from recdistill.strategies import Strategy
from recdistill.students import SequenceModel
from recdistill.teachers.training_state import read_parameters, write_parameters
from recdistill.train.batches import Supervision
from recdistill.train.distill import distill
from recdistill.train.loop import Reporter, TrainOptions

Ints = npt.NDArray[np.int64]
#: In a phase's run folder: the best epoch's parameters, where item vectors are formed from others.
PARTS: Final = "best-parts.safetensors"


@dataclass(frozen=True)
class StudentSide:
    """What every phase of the student shares.

    Attributes
    ----------
    make
        Returns a new student with its start weights, always the same, with any item encoders.
    make_loss
        Returns L_r.
    spec
        What rebuilds the student, see `distill`.
    options
        How each phase is trained; its seed is that of round 0.
    supervision, length, batch_size, negatives, filter_seen
        See `distill`.
    """

    make: Callable[[], SequenceModel]
    make_loss: Callable[[], Loss]
    spec: Mapping[str, Any]
    options: TrainOptions
    supervision: Supervision = "last"
    length: int = 10
    batch_size: int = 256
    negatives: int = 1
    filter_seen: bool = False

    def rows(self, dataset: SequenceDataset) -> Ints:
        """Return the positions of the rows it learns from."""
        return dataset.rows("train", prefixes=self.supervision == "all")

    def learn(
        self,
        dataset: SequenceDataset,
        out: Path,
        *,
        start: Path | None = None,
        phase: int = 0,
        terms: Sequence[tuple[float, Strategy]] = (),
        knowledge: Knowledge | None = None,
        only: Ints | None = None,
        reporter: Reporter | None = None,
    ) -> Recommender:
        """Carry out one phase, with an optimiser of its own, to the best epoch on validation.

        Parameters
        ----------
        dataset
            Rows to learn from and to validate on.
        out
            The run folder; a phase that was stopped there goes on, one that is done is read.
        start
            The run folder of an earlier phase, whose best student is trained on; None: the start weights.
        phase
            0 for the seed of `options` itself; any other number for one made from both.
        terms, knowledge
            What is learned beside the targets, see `distill`.
        only
            Ids of the rows to learn from; None: all.
        reporter
            Hears how it goes.
        """
        model, forms = self._begin(start)
        seed = self.options.seed
        if phase:
            seed = int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])
        return distill(
            dataset,
            model,
            self.make_loss(),
            terms,
            knowledge,
            out=out,
            spec=self.spec,
            options=replace(self.options, seed=seed),
            supervision=self.supervision,
            length=self.length,
            batch_size=self.batch_size,
            negatives=self.negatives,
            only=only,
            filter_seen=self.filter_seen,
            reporter=reporter,
            on_best=(lambda: write_parameters(out / PARTS, model)) if forms else None,
        )

    def _begin(self, start: Path | None) -> tuple[SequenceModel, bool]:
        """Return the student as a phase begins it, and whether its item vectors are formed: then a saved student, whose
        vectors are plain tables, would forget what forms them, and its parts are kept besides."""
        model = self.make()
        forms = any(not isinstance(one, Ids) for one in (model.item_encoder, model.output_encoder))
        if start is None:
            return model, forms
        if not forms:
            return Recommender.load(start).model, False
        read_parameters(start / PARTS, model)
        return model, True


def answers_of(
    student: Recommender,
    dataset: SequenceDataset,
    rows: Ints,
    out: Path,
    *,
    temperature: float,
    top_k: int,
    progress: Callable[[int], None] | None = None,
) -> Knowledge:
    """Return a student's answers, from `out` if they are there; their distances are ``-log softmax(score / T)``.

    Parameters
    ----------
    student
        The student.
    dataset
        Where the rows come from.
    rows
        ``(N,)`` positions, ascending.
    out
        The knowledge folder.
    temperature
        T > 0; the item vectors are divided by it.
    top_k
        M.
    progress
        Called with the rows answered.
    """
    if not (out / MANIFEST).is_file():
        found = knowledge_of(
            [student], dataset, rows, weights=[1 / temperature], top_k=top_k, progress=progress
        )
        save_knowledge(found, out, dataset=dataset)
    return load_knowledge(out, dataset)
