"""The config of a last training: on more rows, with what validation picked in a run before."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from recdistill.config.overrides import merge, validate
from recdistill.config.resolve import read_config
from recdistill.config.schema import RunConfig
from recdistill.errors import ConfigError, RunError
from recdistill.export import PRIOR, REPEATS, Recommender
from recdistill.train.checkpoints import read_progress
from recdistill.train.cold_items import STRETCH
from recdistill.train.records import best_epoch


def refit_config(
    folder: Path,
    rows: Literal["valid", "all"],
    *,
    knowledge: Path | None = None,
    counts_only: bool = False,
) -> RunConfig:
    """Return the config of a run's last training.

    The epochs, the rule for items of the history, the length of cold items' vectors and the item prior are those that
    validation picked in the run; the seed and all else stay.

    Parameters
    ----------
    folder
        A finished run of one seed.
    rows
        ``valid``: train on the training and validation rows. ``all``: on those of the test as well.
    knowledge
        Answers of the run's teacher when it has learned from these rows as well; None: those that the run had.
    counts_only
        Do not train: let the item prior of the run's student count the rows.

    Raises
    ------
    ConfigError
        The run is a last training itself, or one of mutual teaching; its student has no prior to count; or there is
        other knowledge for a run that had no teacher, or that is not trained.
    RunError
        It is not finished.
    """
    config = read_config(folder / "config.yaml")
    if config.refit.rows != "train":
        raise ConfigError(
            f"{folder} is a last training itself. Allowed: the run that it was made from, {config.refit.run}."
        )
    if (folder / "rounds").is_dir():
        raise ConfigError(
            f"{folder} is a run of mutual teaching, whose rounds have a training each. Allowed: a run of recdistill "
            "distill, such as one that learns from its language model: recdistill distill --knowledge "
            f"{folder / 'rounds' / '1' / 'teacher'}"
        )
    spec, train = Recommender.load(folder).spec, config.train.model_dump()
    if counts_only and PRIOR not in spec:
        raise ConfigError(
            f"the student of {folder} has no item prior whose counts could be made anew. Allowed: a run that was "
            "trained with train.prior=pick; others are trained anew by recdistill refit without --counts-only."
        )
    told = {} if knowledge is None else _told(config, folder, knowledge, counts_only)
    train |= {"epochs": _picked_epoch(folder) + 1, "repeats": "keep" if spec.get(REPEATS, True) else "drop"}
    picked = {"cold_stretch": spec.get(STRETCH), "prior": spec.get(PRIOR)}
    refit: dict[str, Any] = {"rows": rows, **picked, "counts_only": counts_only, "run": str(folder.resolve())}
    return validate(merge(config.model_dump(), {"train": train, "refit": refit, **told}))


def _told(config: RunConfig, folder: Path, knowledge: Path, counts_only: bool) -> dict[str, Any]:
    if config.knowledge is None or counts_only:
        why = "is not trained with --counts-only" if counts_only else "had no teacher"
        raise ConfigError(f"--knowledge {knowledge}: {folder} {why}. Allowed: refit without --knowledge.")
    return {"knowledge": str(knowledge.resolve())}


def _picked_epoch(folder: Path) -> int:
    """Return the number of the epoch that validation picked, from 0.

    Raises
    ------
    RunError
        The run was stopped before its end, or says of no epoch that it was the best.
    """
    checkpoint = folder / "checkpoints" / "last.safetensors"
    if checkpoint.is_file() and not read_progress(checkpoint)["progress"]["finished"]:
        raise RunError(
            f"{folder} was stopped before its end. Finish it first: the same recdistill distill again."
        )
    best = best_epoch(folder)
    if best is None:
        raise RunError(
            f"{folder / 'metrics.jsonl'} names no best epoch. Make the run anew: recdistill distill --overwrite."
        )
    return best
