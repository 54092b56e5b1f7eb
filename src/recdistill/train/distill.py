"""From a dataset, a student and a teacher's knowledge to a recommender, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from recdistill.data import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.evaluate import Evaluation, ranks_of_new_items, target_ranks
from recdistill.export import REPEATS, ModelScorer, Recommender, fold
from recdistill.knowledge import Knowledge, Walks, WithWalks
from recdistill.losses import Loss
from recdistill.runs import file_checksum, fingerprint, require_fingerprint
from recdistill.strategies import Strategy
from recdistill.students import SequenceModel
from recdistill.train.batches import BatchLoader, Supervision
from recdistill.train.cold_items import (
    FACTORS,
    STRETCH,
    length_is_open,
    settle_cold_items,
    stretch,
    stretched,
)
from recdistill.train.item_prior import recounted, settle_prior
from recdistill.train.loop import Metrics, Reporter, Trainer, TrainOptions, make_accelerator
from recdistill.train.objective import Objective
from recdistill.train.run_folder import open_run, settings
from recdistill.types import LEARNED, Split, Task

Coverage = Literal["error", "skip", "mask"]


def distill(
    dataset: SequenceDataset,
    model: SequenceModel,
    loss: Loss,
    strategies: Sequence[tuple[float, Strategy]] = (),
    knowledge: Knowledge | None = None,
    *,
    walks: Walks | None = None,
    out: Path | str,
    spec: Mapping[str, Any],
    options: TrainOptions | None = None,
    supervision: Supervision = "last",
    length: int = 10,
    batch_size: int = 256,
    negatives: int = 1,
    coverage: Coverage = "error",
    only: npt.ArrayLike | None = None,
    filter_seen: bool = False,
    cold_stretch: float | None = None,
    prior: Literal["pick"] | tuple[float, float] | None = None,
    reporter: Reporter | None = None,
    on_best: Callable[[], None] | None = None,
) -> Recommender:
    """Train a student and return the best epoch on validation as a recommender. The test rows are not touched.

    Of a dataset without validation rows (`SequenceDataset.learning_from`), the last epoch.

    Parameters
    ----------
    dataset
        Rows to learn from and to validate on.
    model
        The student between its item tables.
    loss
        L_r of eq. 11.
    strategies
        Pairs (λ, strategy): what is learned from the teacher. None: a plain student.
    knowledge
        The teacher's knowledge; needed where there are strategies.
    walks
        Sequences that the teacher wrote itself, to be learned from like those of the users; None: none.
    out
        Run folder. A run that was stopped there goes on; one of another make is refused.
    spec
        What rebuilds the student: ``{"student": name, "options": {...}}``.
    options
        How to train.
    supervision, length, batch_size, negatives
        See `BatchLoader`.
    coverage
        What to do with training rows the teacher was not asked about: ``error``, ``skip`` them, or
        ``mask`` the strategies' terms there.
    only
        Ids of the dataset's training rows to learn from, prefix rows among them; None: all.
    filter_seen
        Whether validation leaves out the items of the history.
    cold_stretch
        Length of the vectors of cold items, see `recdistill.train.cold_items`; None: validation picks it.
    prior
        How much popularity, and being bought of late, count in the item biases, see `recdistill.train.item_prior`:
        ``"pick"``: validation says; None: nothing.
    reporter
        Hears how training goes.
    on_best
        Called whenever a better epoch was kept, with `model` as it is then.

    Raises
    ------
    KnowledgeError
        Strategies without knowledge, a missing field (in the walks too), uncovered rows with ``coverage="error"``, or
        a teacher that has learned from rows by which the student is judged.
    RunError
        `out` holds a run of another make.
    TrainingError
        The loss is not finite.
    """
    options = options or TrainOptions()
    folder = Path(out)
    accelerator = make_accelerator()
    if knowledge is not None:
        require_fingerprint(
            str(knowledge.manifest.get("dataset_fingerprint")), dataset.fingerprint, "the knowledge"
        )
        _require_judge(knowledge, dataset)
    check_strategies(strategies, knowledge)
    row_ids = (
        knowledge.select(coverage, dataset.row_ids[dataset.rows("train")])
        if strategies and knowledge
        else None
    )
    chosen = row_ids if coverage == "skip" else None
    if only is not None:
        chosen = np.asarray(only) if chosen is None else np.intersect1d(only, chosen)
    read, taught, chosen = _with_walks(walks, dataset, knowledge if strategies else None, strategies, chosen)
    loader = BatchLoader(
        read,
        supervision,
        length,
        batch_size,
        seed=options.seed,
        negatives=negatives if loss.needs_negatives else 0,
        knowledge=taught,
        row_ids=chosen,
        drawn_from=None if model.output_encoder.warm is None else np.flatnonzero(~dataset.cold_items),
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    objective = Objective(model, loss, strategies, describe_task(dataset, model, knowledge))

    repeats = options.repeats != "drop"

    def keep() -> None:
        made = dict(spec)
        if not repeats:
            made[REPEATS] = False
        if dataset.learned:
            made[LEARNED] = list(dataset.learned)
        Recommender.from_model(model, dataset, made, length).save(folder / "best")
        if on_best is not None:
            on_best()

    def validate() -> Metrics:
        nonlocal repeats
        ways = (True, False) if options.repeats == "pick" else (repeats,)
        found = validation(model, dataset, length, filter_seen=filter_seen, ways=ways)
        repeats = max(ways, key=lambda way: found[way][options.metric])  # of equals the first
        return found[repeats]

    if accelerator.is_main_process:
        open_run(
            folder,
            dataset,
            {
                "spec": dict(spec),
                "options": vars(options),
                "length": length,
                "supervision": supervision,
                "batch_size": batch_size,
                "filter_seen": filter_seen,
                **({"learned": dataset.learned, "cold_stretch": cold_stretch} if dataset.learned else {}),
                **({} if prior is None else {"prior": prior if prior == "pick" else list(prior)}),
                "terms": [[1.0, settings(loss)], *([weight, settings(part)] for weight, part in strategies)],
                **(
                    {}
                    if walks is None
                    else {"walks": [len(walks), walks.steps, *sorted(walks.manifest.items())]}
                ),
                **({} if only is None else {"only": fingerprint(np.asarray(only, dtype=np.int64).tobytes())}),
            },
        )
    accelerator.wait_for_everyone()
    trainer = Trainer(
        objective,
        loader,
        validate if len(dataset.rows("valid")) else None,
        keep,
        options,
        folder,
        accelerator=accelerator,
        reporter=reporter,
    )
    trainer.fit()
    if accelerator.is_main_process:
        if cold_stretch is None:
            settle_cold_items(model, folder, dataset, filter_seen, options.metric)
        elif STRETCH not in (best := Recommender.load(folder / "best")).spec:  # a finished run has it already
            stretched(best, cold_stretch).save(folder / "best")
        if prior is not None:
            settle_prior(prior, folder, dataset, filter_seen, options.metric)
    accelerator.wait_for_everyone()
    return Recommender.load(folder / "best")


def _require_judge(knowledge: Knowledge, dataset: SequenceDataset) -> None:
    """Refuse a teacher that has learned from rows by which its student would be judged.

    Raises
    ------
    KnowledgeError
        It has learned from a split that `dataset` does not learn from.
    """
    ahead = [split for split in knowledge.learned if split not in dataset.learned]
    if ahead:
        raise KnowledgeError(
            f"this teacher has learned from the {' and '.join(ahead)} rows (recdistill teach again), by which its "
            "student would be judged. Allowed: a teacher of training rows; or a run that was picked already, trained "
            "once more on the same rows: recdistill refit r/ --knowledge k/"
        )


def _with_walks(
    walks: Walks | None,
    dataset: SequenceDataset,
    knowledge: Knowledge | None,
    strategies: Sequence[tuple[float, Strategy]],
    row_ids: npt.NDArray[np.int64] | None,
) -> tuple[SequenceDataset, Knowledge | WithWalks | None, npt.NDArray[np.int64] | None]:
    """Return what batches are cut from: dataset, knowledge, ids of chosen rows (None: all), with any walks in them."""
    if walks is None:
        return dataset, knowledge, row_ids
    if knowledge is not None:
        told = replace(walks.answers, item_embeddings=knowledge.item_embeddings)
        check_strategies(strategies, told, "the teacher's answers along its walks")
    joined, taught, added = walks.join(dataset, knowledge)
    return joined, taught, None if row_ids is None else np.concatenate([row_ids, added])


def recount(run: Path, dataset: SequenceDataset, learned: Sequence[Split], out: Path) -> Recommender:
    """Write a run folder with the student of another, which has an item prior: it counts rows of further splits, too.

    Raises
    ------
    RunError
        `out` holds a run of another make.
    """
    student = run / "best" / "model.safetensors"
    made = recounted(Recommender.load(run), dataset, *learned)
    open_run(out, dataset, {"counts_only": file_checksum(student), "learned": list(learned)})
    made.save(out / "best")
    return made


def validation(
    model: SequenceModel,
    dataset: SequenceDataset,
    length: int,
    *,
    filter_seen: bool,
    ways: Sequence[bool] = (True,),
) -> dict[bool, Metrics]:
    """Evaluate a model in training on the validation rows: folded, in evaluation mode, without gradient.

    Returns for each way, True: the model may name items of the history, the metrics. The rows are scored once. Where
    the length of cold items' vectors is picked after training, they are short here: epochs are compared by what they
    have learned.
    """
    rows, folded = dataset.rows("valid"), fold(model)
    if length_is_open(model):
        stretch(folded, torch.from_numpy(dataset.cold_items), min(FACTORS))
    ranks = target_ranks(ModelScorer(folded), dataset, rows, length=length)
    found = {}
    for way in ways:
        chosen = ranks.of(filter_seen=filter_seen) if way else ranks_of_new_items(ranks, dataset, rows)
        asked = Evaluation("student", "valid", dataset.row_ids[rows], chosen, dataset.item_count, filter_seen)
        found[way] = asked.metrics((1, 10, 20))
    return found


def describe_task(dataset: SequenceDataset, model: SequenceModel, knowledge: Knowledge | None) -> Task:
    """Return what losses and strategies may know before the first batch."""
    vectors = None if knowledge is None else knowledge.item_embeddings
    return Task(
        item_count=dataset.item_count,
        embedding_size=model.student.embedding_size,
        hidden_size=model.student.hidden_size,
        popularity=torch.from_numpy(dataset.popularity.astype(np.float32)),
        item_embeddings=None if vectors is None else torch.from_numpy(np.array(vectors, dtype=np.float32)),
        scales={} if knowledge is None else knowledge.scales(dataset.row_ids[dataset.rows("train")]),
    )


def check_strategies(
    strategies: Sequence[tuple[float, Strategy]], knowledge: Knowledge | None, which: str = "this knowledge"
) -> None:
    """Refuse strategies whose knowledge is missing.

    Raises
    ------
    KnowledgeError
        There is no knowledge, or it lacks a field that a strategy requires.
    """
    for _, strategy in strategies:
        name = type(strategy).__name__.lower()
        if knowledge is None:
            raise KnowledgeError(f"strategy {name!r} needs a teacher's knowledge. Pass --knowledge k/.")
        missing = sorted(f for f in strategy.requires if getattr(knowledge, f) is None)
        if missing:
            raise KnowledgeError(
                f"strategy {name!r} needs {', '.join(missing)}, which {which} does not have. "
                "See what it has with: recdistill knowledge show k/."
            )
