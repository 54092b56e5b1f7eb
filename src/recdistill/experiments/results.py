"""Results on disk: the evaluation of a run (of one seed or several) or of a teacher's knowledge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from recdistill.config import describe, read_config
from recdistill.config.mutual import require_mutual_run
from recdistill.data import SequenceDataset
from recdistill.errors import KnowledgeError, RunError
from recdistill.evaluate import Evaluation
from recdistill.experiments.apart import settings_of
from recdistill.export import Recommender
from recdistill.knowledge import load_knowledge, require_unlearned, teacher_evaluation
from recdistill.runs import MANIFEST, file_checksum, read_json, write_json
from recdistill.train.mutual import round_folders
from recdistill.train.records import best_epoch, still_rising
from recdistill.types import Split

Kind = Literal["baseline", "teacher", "student", "distilled", "oracle"]


@dataclass(frozen=True)
class Result:
    """One line of a comparison.

    Attributes
    ----------
    name
        What it is called in tables.
    kind
        What it is.
    evaluations
        One a seed.
    settings
        What tells a run from others of its name: ``key -> value`` as in ``key=value`` words.
    learned
        Splits that it learned from besides the training rows.
    """

    name: str
    kind: Kind
    evaluations: Sequence[Evaluation]
    settings: Mapping[str, str] = field(default_factory=dict)
    learned: tuple[Split, ...] = ()


def seed_folders(run: Path) -> list[Path]:
    """Return the run folders of a run: its ``seed-*`` folders, or itself.

    Raises
    ------
    RunError
        It is no run folder.
    """
    seeds = sorted(run.glob("seed-*"), key=lambda path: int(path.name.split("-")[1]))
    folders = seeds or [run]
    for folder in folders:
        if not (folder / "config.yaml").is_file():
            raise RunError(
                f"{run} is no run folder (no config.yaml). Make one with recdistill distill --out {run}."
            )
        if not (folder / "best" / MANIFEST).is_file():
            raise RunError(
                f"{folder} has no trained student yet. Run the same recdistill distill command again."
            )
    return folders


def evaluate_run(run: Path, dataset: SequenceDataset, split: Split, *, filter_seen: bool) -> Result:
    """Evaluate a run on a split, or read what an earlier call left for the same student."""
    folders = seed_folders(run)
    config = read_config(folders[0] / "config.yaml")
    alone = config.recipe in (None, "none") and not config.words.name  # mutual teaching has no strategy
    plain = alone and not config.strategies and config.item_encoder.name == "ids"
    evaluations = [_evaluate_folder(folder, dataset, split, filter_seen) for folder in folders]
    kind: Kind = "student" if plain else "distilled"
    return Result(describe(config), kind, evaluations, settings_of(config), config.refit.learned)


def rising_runs(folders: Sequence[Path]) -> list[Path]:
    """Return the runs among the folders of which a seed was still rising when its epochs were used up."""
    runs = [folder for folder in folders if (folder / "config.yaml").is_file() or any(folder.glob("seed-*"))]
    return [run for run in runs if any(map(_rising, seed_folders(run)))]


def _rising(folder: Path) -> bool:
    config = read_config(folder / "config.yaml")
    asked = config.refit.rows == "train"  # a refit has the epochs that validation picked
    return asked and still_rising(best_epoch(folder), config.train.epochs)


def _evaluate_folder(folder: Path, dataset: SequenceDataset, split: Split, filter_seen: bool) -> Evaluation:
    config = read_config(folder / "config.yaml")
    cache = folder / "evaluation" / f"{split}-{'filtered' if filter_seen else 'kept'}"
    model = file_checksum(folder / "best" / "model.safetensors")
    if (cache / "model.json").is_file() and read_json(cache / "model.json") == model:
        kept = Evaluation.load(cache)
        if kept.dataset == dataset.fingerprint:
            return kept
    name = describe(config)
    evaluation = Recommender.load(folder).evaluate(dataset, split, filter_seen=filter_seen, name=name)
    evaluation = replace(evaluation, seed=config.seed)
    evaluation.save(cache, overwrite=True)
    write_json(cache / "model.json", model)
    return evaluation


def evaluate_knowledge(folder: Path, dataset: SequenceDataset, split: Split, *, filter_seen: bool) -> Result:
    """Return the evaluation of a teacher from the target ranks in its knowledge.

    Raises
    ------
    KnowledgeError
        The teacher was not asked about every row of the split, or has learned from it.
    """
    knowledge = load_knowledge(folder, dataset)
    require_unlearned(knowledge, split, folder)
    evaluation = teacher_evaluation(knowledge, dataset, split, filter_seen)
    rows = len(dataset.rows(split))
    if evaluation is None or len(evaluation) < rows:
        known = 0 if evaluation is None else len(evaluation)
        raise KnowledgeError(
            f"{folder} ranks the target of {known} of {rows} {split} rows, so the teacher cannot be compared. "
            "Make it with: recdistill teach ... --splits train,valid,test, or compare without it."
        )
    name = refit_on(f"{evaluation.name} (teacher)", knowledge.learned)
    return Result(name, "teacher", [evaluation], learned=knowledge.learned)


def refit_on(name: str, learned: Sequence[Split]) -> str:
    """Return the name of a line that learned from further splits, as `describe` has it for runs."""
    return f"{name}, refit on {' and '.join(learned)}" if learned else name


def round_results(run: Path, dataset: SequenceDataset, split: Split, *, filter_seen: bool) -> list[Result]:
    """Evaluate the student and the language model of every round of mutual teaching, each over all seeds.

    Raises
    ------
    RunError
        The run has no rounds, or is not finished.
    """
    seeds = seed_folders(run)
    for folder in seeds:
        require_mutual_run(folder)
    name = describe(read_config(seeds[0] / "config.yaml"))
    rounds = [round_folders(folder) for folder in seeds]
    results = []
    for number in range(min(map(len, rounds))):
        places = [folders[number] for folders in rounds]
        students = [
            evaluate_run(place / "student", dataset, split, filter_seen=filter_seen) for place in places
        ]
        found = [one for result in students for one in result.evaluations]
        results.append(Result(students[0].name, students[0].kind, found))
        if number:
            taught = [
                replace(
                    evaluate_knowledge(
                        place / "teacher", dataset, split, filter_seen=filter_seen
                    ).evaluations[0],
                    seed=one.seed,
                )
                for place, one in zip(places, found, strict=True)
            ]
            results.append(Result(f"{name}, round {number}, its LM (teacher)", "teacher", taught))
    return results


def evaluate_path(path: Path, dataset: SequenceDataset, split: Split, *, filter_seen: bool) -> Result:
    """Evaluate a run folder or a knowledge folder.

    Raises
    ------
    RunError
        It is neither.
    """
    kind = read_json(path / MANIFEST).get("kind") if (path / MANIFEST).is_file() else None
    if kind == "knowledge":
        return evaluate_knowledge(path, dataset, split, filter_seen=filter_seen)
    return evaluate_run(path, dataset, split, filter_seen=filter_seen)
