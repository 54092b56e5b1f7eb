"""Tuning on validation rows with a stated budget of trials (optuna: TPE, median pruning, a sqlite study).

Every trial is an ordinary run with the tuning seed, in a folder of its own; the test rows are not touched. The
first trial is the untuned config, so that tuning never loses to it on validation. A trial that was killed goes
on where it was: which values trial n tries depends on the finished trials before it alone.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from recdistill.config import RunConfig, run
from recdistill.data import SequenceDataset
from recdistill.errors import RecdistillError, RunError
from recdistill.experiments.space import Parameter, with_values
from recdistill.extras import extra
from recdistill.runs import read_json, write_json
from recdistill.train.records import epoch_records

__all__ = ["TUNING_SEED", "Tuned", "read_tuned", "tune_config"]

#: Seed of every trial; final runs have other seeds.
TUNING_SEED: Final = 0
#: Trials that are never pruned: the median of fewer says little.
_STARTUP: Final = 5


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes
    ----------
    values
        Key → value of the best trial.
    metric, value, first
        Validation metric, its best value, and its value with the untuned config (None: that trial failed).
    trials, pruned, failed
        Counts; `trials` is the budget that was used, pruned and failed ones among them.
    seconds
        Training time of all trials.
    """

    values: dict[str, float] = field(default_factory=dict)
    metric: str = ""
    value: float = 0.0
    first: float | None = None
    trials: int = 0
    pruned: int = 0
    failed: int = 0
    seconds: float = 0.0


def tune_config(
    config: RunConfig,
    space: Sequence[Parameter],
    folder: Path,
    *,
    budget: int,
    epochs: int | None = None,
    dataset: SequenceDataset | None = None,
) -> Tuned:
    """Search the space within `budget` trials; an earlier search in the folder is continued.

    Parameters
    ----------
    config
        The run before tuning.
    space
        What may change.
    folder
        Holds ``study.db``, a folder for each trial and the answer.
    budget
        Number of trials, at least 1; pruned and failed ones count.
    epochs
        Largest number of epochs of a trial, or None: that of the config.
    dataset
        The dataset that the config names, where it is loaded already.

    Raises
    ------
    MissingExtraError
        optuna is not installed.
    RunError
        Every trial failed.
    """
    with extra("tune"):
        import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = _trial_config(config, epochs)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / 'study.db').resolve()}",
        study_name="recdistill",
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(_STARTUP, n_warmup_steps=config.train.patience),
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # it was killed; it does not count
    data = dataset or SequenceDataset.load(config.dataset)
    while (done := len(_counted(study))) < budget:
        _one_trial(study, done, config, space, folder / f"trial-{done:03d}", data)
    found = _summary(study, config.train.metric, folder, budget)
    write_json(_answer(folder, budget), vars(found))
    return found


def read_tuned(folder: Path, budget: int) -> Tuned | None:
    """Return what an earlier `tune_config` found with this budget, or None: it is not finished."""
    path = _answer(folder, budget)
    return Tuned(**read_json(path)) if path.is_file() else None


def _answer(folder: Path, budget: int) -> Path:
    return folder / f"best-{budget}.json"


def _trial_config(config: RunConfig, epochs: int | None) -> RunConfig:
    changed = config.model_copy(update={"seed": TUNING_SEED})
    if epochs is None:
        return changed
    return changed.model_copy(
        update={"train": config.train.model_copy(update={"epochs": min(epochs, config.train.epochs)})}
    )


def _counted(study: Any) -> list[Any]:
    """Return the trials that used up budget: all but those that were killed."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in ("COMPLETE", "PRUNED")
        or (trial.state.name == "FAIL" and "error" in trial.user_attrs)
    ]


def _one_trial(
    study: Any,
    number: int,
    config: RunConfig,
    space: Sequence[Parameter],
    folder: Path,
    dataset: SequenceDataset,
) -> None:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(seed=number, n_startup_trials=_STARTUP)
    if number == 0 and not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial({p.key: p.default for p in space if p.holds_default})
    trial = study.ask()
    trial.set_user_attr("number", number)
    values = {parameter.key: _suggest(trial, parameter) for parameter in space}
    watcher = _Watcher(trial, config.train.metric, folder)
    try:
        run(with_values(config, values), folder, dataset=dataset, reporter=watcher)
        study.tell(trial, watcher.best)
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except RecdistillError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    for heavy in ("best", "checkpoints", "failure"):  # metrics.jsonl stays
        shutil.rmtree(folder / heavy, ignore_errors=True)


def _suggest(trial: Any, parameter: Parameter) -> float:
    if parameter.choices:
        return float(trial.suggest_categorical(parameter.key, parameter.choices))
    found = trial.suggest_float(
        parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log
    )
    return round(float(found), 10)


class _Watcher:
    """Tells a trial the best validation value so far after every epoch, and stops it where that is hopeless."""

    def __init__(self, trial: Any, metric: str, folder: Path) -> None:
        self.trial, self.metric, self.best = trial, metric, 0.0
        for record in epoch_records(folder):  # of a trial that was killed: the study has forgotten them
            self._report(record)

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Say nothing."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Report, and stop a trial that is behind the median of the earlier ones."""
        import optuna

        if self._report(record) and self.trial.should_prune():
            raise optuna.TrialPruned

    def _report(self, record: dict[str, Any]) -> bool:
        if "valid" not in record:
            return False
        self.best = max(self.best, float(record["valid"][self.metric]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an epoch that is run again after a kill is reported twice
            self.trial.report(self.best, int(record["epoch"]))
        return True


def _summary(study: Any, metric: str, folder: Path, budget: int) -> Tuned:
    """Sum up the first `budget` trials: a study that once had more of them answers as it did then."""
    trials = _counted(study)[:budget]
    states = [trial.state.name for trial in trials]
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    if not complete:
        raise RunError(
            f"all {len(trials)} trials in {folder} failed, the first with: {trials[0].user_attrs.get('error')} "
            "At least one must train. Correct the cause, remove the folder and give the same command again."
        )
    best = max(complete, key=lambda trial: trial.value)  # the earliest of equals
    records = [record for k in range(len(trials)) for record in epoch_records(folder / f"trial-{k:03d}")]
    return Tuned(
        values={key: round(float(value), 10) for key, value in best.params.items()},
        metric=metric,
        value=float(best.value),
        first=trials[0].value if states[0] == "COMPLETE" else None,
        trials=len(trials),
        pruned=states.count("PRUNED"),
        failed=states.count("FAIL"),
        seconds=round(sum(float(record["seconds"]) for record in records), 3),
    )
