from __future__ import annotations

import json

import optuna
import pytest

from recdistill.config import resolve
from recdistill.errors import RunError
from recdistill.experiments import tuning
from recdistill.experiments.space import Parameter, search_space, with_values
from recdistill.experiments.tuning import read_tuned, tune_config


@pytest.fixture
def config(shop):
    flags = {
        "dataset": str(shop.dataset),
        "knowledge": str(shop.knowledge),
        "student": {"variant": "paper"},
    }
    return resolve(flags, strategy="rd", file=None, words=[*shop.words, "train.epochs=2"])


@pytest.fixture
def space(config):
    return search_space(config)


def trials(folder):
    study = optuna.load_study(storage=f"sqlite:///{folder / 'study.db'}", study_name="recdistill")
    return study.get_trials(deepcopy=False)


def test_the_budget_is_respected_and_the_defaults_come_first(config, space, tmp_path):
    found = tune_config(config, space, tmp_path, budget=3)
    assert (found.trials, found.failed) == (3, 0)
    assert len(trials(tmp_path)) == 3
    assert sorted(path.name for path in tmp_path.glob("trial-*")) == ["trial-000", "trial-001", "trial-002"]
    assert trials(tmp_path)[0].params == {p.key: p.default for p in space}
    assert found.value >= found.first
    assert found.value == max(trial.value for trial in trials(tmp_path))
    assert set(found.values) == {p.key for p in space}
    assert not list(tmp_path.glob("trial-*/checkpoints"))
    assert read_tuned(tmp_path, 3) == found
    assert read_tuned(tmp_path, 4) is None


def test_the_value_of_a_trial_is_its_best_epoch_on_validation(config, space, tmp_path):
    tune_config(config, space, tmp_path, budget=1)
    records = [json.loads(x) for x in (tmp_path / "trial-000" / "metrics.jsonl").read_text().splitlines()]
    assert trials(tmp_path)[0].value == max(record["valid"]["ndcg@20"] for record in records)
    assert all("test" not in record for record in records)


class _Kill(BaseException):
    """Ends the process for all that the study can see."""


def test_a_killed_search_goes_on_and_finds_the_same(config, space, tmp_path, monkeypatch):
    whole = tune_config(config, space, tmp_path / "whole", budget=4)
    hear, heard = tuning._Watcher.on_epoch, []

    def killed(self, record):
        heard.append(record)
        if len(heard) == 6:  # the last epoch of the third trial, before its checkpoint
            raise _Kill
        hear(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(tuning._Watcher, "on_epoch", killed)
        with pytest.raises(_Kill):
            tune_config(config, space, tmp_path / "cut", budget=4)
    assert (tmp_path / "cut" / "trial-002" / "checkpoints").is_dir()
    cut = tune_config(config, space, tmp_path / "cut", budget=4)
    assert len(trials(tmp_path / "cut")) == 5  # the killed one does not count
    kept = [t for t in trials(tmp_path / "cut") if t.state.name == "COMPLETE"]
    assert [t.params for t in kept] == [t.params for t in trials(tmp_path / "whole")]
    assert [t.value for t in kept] == [t.value for t in trials(tmp_path / "whole")]
    assert cut.values == whole.values


def test_a_larger_budget_goes_on_and_a_smaller_one_answers_as_before(config, space, tmp_path):
    few = tune_config(config, space, tmp_path, budget=2)
    tune_config(config, space, tmp_path, budget=4)
    (tmp_path / "best-2.json").unlink()
    assert tune_config(config, space, tmp_path, budget=2) == few
    assert len(trials(tmp_path)) == 4


def test_trials_have_the_tuning_seed_and_their_own_epochs(config, space, tmp_path):
    tune_config(config.model_copy(update={"seed": 9}), space, tmp_path, budget=1, epochs=1)
    made = json.loads((tmp_path / "trial-000" / "manifest.json").read_text())
    assert (made["options"]["seed"], made["options"]["epochs"]) == (0, 1)


def test_hopeless_trials_are_pruned_after_the_warm_up(shop, tmp_path):
    """Five trials that learn, then two with a learning rate that cannot."""
    words = [*shop.words, "train.epochs=4", "train.patience=3", "train.batch_size=4"]
    config = resolve({"dataset": str(shop.dataset)}, strategy="none", file=None, words=words)

    def near(rate: float) -> list[Parameter]:
        return [Parameter("train.learning_rate", rate, low=rate, high=1.01 * rate, log=True)]

    tune_config(config, near(1e-2), tmp_path, budget=5)
    found = tune_config(config, near(1e-9), tmp_path, budget=7)
    *learnt, one, two = trials(tmp_path)
    assert [trial.state.name for trial in (one, two)] == ["PRUNED", "PRUNED"]
    assert found.pruned == 2
    assert found.values["train.learning_rate"] >= 1e-2
    assert max(one.intermediate_values) == 3  # epochs 0 .. 2 are the warm-up
    for trial in learnt:  # the best so far: it never falls
        assert list(trial.intermediate_values.values()) == sorted(trial.intermediate_values.values())


def test_failing_trials_are_counted_and_all_failing_is_an_error(config, tmp_path):
    wild = [Parameter("train.learning_rate", 1e-3, choices=(1e-3, 1e38))]
    found = tune_config(config, wild, tmp_path / "some", budget=6)
    assert found.trials == 6
    assert found.values == {"train.learning_rate": 1e-3}
    states = [t.state.name for t in trials(tmp_path / "some")]
    assert found.failed == states.count("FAIL") > 0
    with pytest.raises(RunError, match="all 2 trials"):
        tune_config(
            config, [Parameter("train.learning_rate", 1.0, choices=(1e38,))], tmp_path / "none", budget=2
        )


def test_values_of_absent_parts_are_passed_over(config):
    changed = with_values(config, {"rd.weight": 0.3, "importance.weight": 0.9, "train.weight_decay": 1e-05})
    assert changed.strategies[0].weight == 0.3
    assert changed.train.weight_decay == 1e-5
    assert [s.name for s in changed.strategies] == ["rd"]
