"""A student and a language model with a head over items teach each other in turns.

LLMD4Rec, 2025, https://arxiv.org/abs/2505.18120. With y_c the student's scores of all items, y_l the language
model's, i* the true item, and KL, T and w as in `term` and `weights`::

    L_l = CE(y_l, i*) + lambda_1 w_1 T_1^2 KL( softmax(y_c / T_1) || softmax(y_l / T_1) )      # (1) down
    L_c = CE(y_c, i*) + lambda_2 w_2 T_2^2 KL( softmax(y_l / T_2) || softmax(y_c / T_2) )      # (2) up

Round 0 trains the student alone. Each further round (a) brings the student's item vectors to the language model, whose
soft tokens are made from them, and trains it by (1); (b) lets it answer all training rows; (c) trains the student by
(2). The model that does not learn is read from disk: what it knows of the rows are M log-probabilities and the mass of
the rest. Each phase begins with the best weights of the one before and an optimiser of its own, and validation alone
ends it and picks its best epoch, and the best student over rounds 0 to R.

Where the paper is not known to us or leaves it open, the choice is an option
-----------------------------------------------------------------------------
1. lambda and T are 1 and 2; T^2 multiplies the divergence.
2. Ranks are pessimistic and over all items. ``ranks`` says of which models they are.
3. The divergence is over all items, the language model's own cross-entropy over those that are an answer in training,
   as in the teacher ``item-head``.
4. The language model is that of ``item-head``: item text may enter both of its ends; without it, it is E4SRec's.
5. The student may also be none of a round: if no round beats round 0 on validation, round 0 is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from recdistill.data.sequences import SequenceDataset
from recdistill.export import Recommender
from recdistill.knowledge import Knowledge, teacher_evaluation
from recdistill.runs import MANIFEST, remove_folder, require_one_process
from recdistill.teachers.item_head.partner import BEST, ItemHeadPartner
from recdistill.train.mutual.held_out import held_out_ranks
from recdistill.train.mutual.listener import Listener, Quiet
from recdistill.train.mutual.options import MutualOptions
from recdistill.train.mutual.records import epochs_of, weights_seen, write_records
from recdistill.train.mutual.student import StudentSide, answers_of
from recdistill.train.mutual.term import Partner, term_of
from recdistill.train.mutual.weights import RankWeights
from recdistill.train.run_folder import open_run, settings

Ints = npt.NDArray[np.int64]
_KS = (1, 10, 20)
_HELD_OUT = 1_000_000  # phases of students whose ranks weigh rows: beyond every round


def mutual(
    dataset: SequenceDataset,
    student: StudentSide,
    make_teacher: Callable[[Tensor], ItemHeadPartner],
    *,
    out: Path | str,
    options: MutualOptions | None = None,
    facts: dict[str, Any] | None = None,
    listener: Listener | None = None,
) -> Recommender:
    """Let a student and a language model teach each other; return the best student on validation.

    The test rows teach nothing and choose nothing; when all is chosen, each round's language model answers them, so
    that it can be compared.

    Parameters
    ----------
    dataset
        Rows to learn from and to validate on.
    student
        The student's side.
    make_teacher
        Makes the language model's side from the ``(I, d)`` item vectors of the student of round 0.
    out
        Run folder. One that was stopped goes on, inside a phase too; one of another make is refused.
    options
        How they teach each other.
    facts
        JSON-able: what `make_teacher` depends on, to tell one run's make from another's.
    listener
        Hears how it goes.

    Raises
    ------
    RunError
        `out` holds a run of another make, or it was launched on several processes.
    TrainingError
        A loss is not finite.
    """
    require_one_process("mutual")  # the language model's phase does not divide its batches
    options, folder = options or MutualOptions(), Path(out)
    make = {
        "mutual": asdict(options),
        "student": dict(student.spec),
        "loss": settings(student.make_loss()),
        "options": vars(student.options),
        "supervision": student.supervision,
        "length": student.length,
        "batch_size": student.batch_size,
        "filter_seen": student.filter_seen,
        "teacher": facts or {},
    }
    open_run(folder, dataset, make)
    if not (folder / "best" / MANIFEST).is_file():
        _Rounds(dataset, student, make_teacher, folder, options, listener or Quiet()).run()
    return Recommender.load(folder)


@dataclass(eq=False)
class _Rounds:
    dataset: SequenceDataset
    student: StudentSide
    make_teacher: Callable[[Tensor], ItemHeadPartner]
    folder: Path
    options: MutualOptions
    listener: Listener

    def run(self) -> None:
        data = self.dataset
        # The language model reads a sequence in one pass, so every row of it costs nothing more.
        self.rows = data.rows("train", prefixes=True)
        self.listener.on_phase("round 0: the student alone")
        first = self.student.learn(data, self._of(0, "student"), reporter=self.listener)
        self.first = _table(first)
        self.teacher = self.make_teacher(self.first)
        self.teacher.prepare(data, self.rows)
        records = [{"round": 0, "student": self._judged(first)}]
        self._write(records)
        self.held_out = self._held_out()
        before: Knowledge | None = None
        for number in range(1, self.options.rounds + 1):
            before, record = self._round(number, before)
            records.append(record)
            self._write(records)
        self._close(records)

    def _round(self, number: int, last: Knowledge | None) -> tuple[Knowledge, dict[str, Any]]:
        """Carry out a round after the one whose language model's answers are `last`."""
        before = Recommender.load(self._of(number - 1, "student"))
        told = self._told(number, before)
        answered, result = self._taught(number, before, told, last)
        after = self._learned(number, answered, told)
        record = {
            "round": number,
            "teacher": {**self._judged(answered), **epochs_of(result)},
            "student": self._judged(after),
            "weights": weights_seen(self._ranks(told), self._ranks(answered)),
        }
        return answered, record

    def _told(self, number: int, before: Recommender) -> Knowledge:
        """Return what the student of the round before answers to the training rows."""
        return answers_of(
            before,
            self.dataset,
            self.rows,
            self._of(number, "student-answers"),
            temperature=self.options.temperature_teacher,
            top_k=self.options.top_m,
            progress=self.listener.progress(f"round {number}: the student answers", len(self.rows)),
        )

    def _taught(
        self, number: int, before: Recommender, told: Knowledge, last: Knowledge | None
    ) -> tuple[Knowledge, dict[str, Any]]:
        """Train the language model; return its answers to training and valid rows, and the record of its epochs."""
        data, options, listener = self.dataset, self.options, self.listener
        listener.on_phase(f"round {number}: the language model learns")
        model, result = self.teacher.learn(
            data,
            self.rows,
            self._of(number, "teacher") / "models",
            _table(before) if options.refresh else self.first,
            start=None if number == 1 else self._of(number - 1, "teacher") / "models" / BEST,
            term=self._down(told, last),
            phase=(number,),
            on_step=listener.on_teacher_step,
        )
        asked = np.union1d(self.rows, data.rows("valid"))
        answered = self.teacher.answer(
            model,
            data,
            asked,
            self._of(number, "teacher-answers"),
            temperature=options.temperature_student,
            top_k=options.top_m,
            facts={"round": number},
            progress=listener.progress(f"round {number}: the language model answers", len(asked)),
        )
        return answered, result

    def _learned(self, number: int, answered: Knowledge, told: Knowledge) -> Recommender:
        """Train the student and return it."""
        self.listener.on_phase(f"round {number}: the student learns")
        term = self._up(answered, told)
        return self.student.learn(
            self.dataset,
            self._of(number, "student"),
            start=self._of(number - 1, "student"),
            phase=number,
            terms=[] if term is None else [(self.options.lambda_student, term)],
            knowledge=None if term is None else answered,
            reporter=self.listener,
        )

    def _down(
        self, told: Knowledge, last: Knowledge | None
    ) -> Callable[[Ints, Tensor, Tensor], Tensor] | None:
        """Return what the language model learns beside the true items, or None."""
        if not self.options.lambda_teacher:
            return None
        own = np.full(len(self.rows), self.dataset.item_count) if last is None else self._ranks(last)
        student = self._ranks(told)
        if self.held_out is not None:
            student, own = self.held_out
        partner = self._partner(self.options.temperature_teacher, other=student, own=own)
        return term_of(partner, self.options.lambda_teacher, told, self.dataset)

    def _up(self, answered: Knowledge, told: Knowledge) -> Partner | None:
        """Return what the student learns beside the true items, or None."""
        if not self.options.lambda_student:
            return None
        own, teacher = self._ranks(told), self._ranks(answered)
        if self.held_out is not None:
            own, teacher = self.held_out
        return self._partner(self.options.temperature_student, other=teacher, own=own)

    def _partner(self, temperature: float, *, other: Ints, own: Ints) -> Partner:
        weights = None
        if self.options.weights == "adaptive":
            live = self.options.ranks == "live"
            weights = RankWeights(self.dataset.row_ids[self.rows], other, None if live else own)
        return Partner(
            temperature=temperature, k=self.options.top_m, exact=self.options.exact, weights=weights
        )

    def _ranks(self, knowledge: Knowledge) -> Ints:
        """Return the ``(N,)`` 1-based ranks of the training rows' true items."""
        ids = self.dataset.row_ids[self.rows]
        ranks = np.asarray(knowledge.target_rank)[np.searchsorted(knowledge.row_ids, ids)]
        return ranks.astype(np.int64) + 1

    def _held_out(self) -> tuple[Ints, Ints] | None:
        options = self.options
        if options.weights == "none" or options.ranks not in ("folds", "positions"):
            return None
        return held_out_ranks(
            self.dataset,
            self.rows,
            self.folder / "ranks" / "ranks.parquet",
            self._pair,
            how=options.ranks,
            folds=options.folds,
            seed=self.student.options.seed,
        )

    def _pair(self, number: int, rows: Ints, asked: Ints) -> tuple[Ints, Ints]:
        """Train a student and a language model without the rows asked, and return how they rank those."""
        data, folder = self.dataset, self.folder / "ranks" / str(number)
        self.listener.on_phase(f"held-out ranks {number}: a student")
        ids = data.row_ids[rows]
        student = self.student.learn(
            data, folder / "student", phase=_HELD_OUT + number, only=ids, reporter=self.listener
        )
        self.listener.on_phase(f"held-out ranks {number}: a language model")
        model, _ = self.teacher.learn(
            data, rows, folder / "models", _table(student), phase=(0, number), on_step=self.listener.on_teacher_step
        )  # fmt: skip
        said = answers_of(student, data, asked, folder / "student-answers", temperature=1.0, top_k=1)
        heard = self.teacher.answer(model, data, asked, folder / "teacher-answers", top_k=1)
        return np.asarray(said.target_rank) + 1, np.asarray(heard.target_rank) + 1

    def _judged(self, model: Recommender | Knowledge) -> dict[str, Any]:
        """Return the metrics on validation."""
        filter_seen = self.student.filter_seen
        if isinstance(model, Recommender):
            return dict(model.evaluate(self.dataset, "valid", filter_seen=filter_seen).metrics(_KS))
        found = teacher_evaluation(model, self.dataset, "valid", filter_seen)
        return {} if found is None else dict(found.metrics(_KS))

    def _write(self, records: list[dict[str, Any]]) -> None:
        """Write the rounds so far, and tell the last."""
        write_records(self.folder, records, self.student.options.metric)
        self.listener.on_round(records[-1])

    def _close(self, records: list[dict[str, Any]]) -> None:
        """Let each round's language model answer valid and test rows, drop what is no longer needed, keep the best."""
        data = self.dataset
        rows = np.union1d(data.rows("valid"), data.rows("test"))
        for number in range(1, self.options.rounds + 1):
            before = Recommender.load(self._of(number - 1, "student"))
            place = self._of(number, "teacher")
            vectors = _table(before) if self.options.refresh else self.first
            model, _ = self.teacher.learn(data, self.rows, place / "models", vectors)  # read, not trained
            progress = self.listener.progress(f"round {number}: the language model on test rows", len(rows))
            self.teacher.answer(
                model, data, rows, place, top_k=self.options.top_m, facts={"round": number}, progress=progress
            )
        if not self.options.keep_answers:
            for path in (*self.folder.glob("rounds/*/*-answers"), *self.folder.glob("ranks/*/*-answers")):
                remove_folder(path)
        best = next(record["round"] for record in records if record["best"])
        Recommender.load(self._of(best, "student")).save(self.folder / "best")

    def _of(self, number: int, part: str) -> Path:
        return self.folder / "rounds" / str(number) / part


def _table(recommender: Recommender) -> Tensor:
    """Return the ``(I, d)`` vectors that a student reads."""
    table: Tensor = recommender.model.item_encoder(None)
    return table.detach()
