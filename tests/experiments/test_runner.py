from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recdistill.cli.main import app
from recdistill.errors import RunError, TrainingError
from recdistill.experiments.jobs import OUTCOME, read_failure
from recdistill.experiments.runner import run_jobs
from recdistill.runs import exclusive, read_json


@dataclass(frozen=True)
class Deed:
    """A job that does what its name says."""

    title: str
    folder: Path

    @property
    def done(self) -> bool:
        return (self.folder / "result").is_file()

    def work(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.title == "unstable":
            raise TrainingError("the loss became nan")
        if self.title == "faulty":
            raise ZeroDivisionError("a fault of the program")
        if self.title == "stopped":
            raise KeyboardInterrupt
        if self.title == "greedy":
            os.kill(os.getpid(), signal.SIGKILL)
        with (self.folder / "result").open("a") as file:
            file.write("x")


def deeds(root: Path, *titles: str) -> list[Deed]:
    return [Deed(title, root / title) for title in titles]


def test_a_failure_is_recorded_and_the_others_go_on(tmp_path):
    jobs = deeds(tmp_path, "first", "unstable", "faulty", "last")
    events = []
    run_jobs(jobs, 1, events.append)
    assert [job.done for job in jobs] == [True, False, False, True]
    assert [read_failure(job) for job in jobs] == [
        None,
        "the loss became nan",
        "ZeroDivisionError: a fault of the program",
        None,
    ]
    assert "Traceback" in read_json(jobs[2].folder / OUTCOME)["detail"]
    assert [event.kind for event in events if event.kind != "started"] == [
        "finished",
        "failed",
        "failed",
        "finished",
    ]
    assert (events[-1].done, events[-1].total) == (4, 4)


def test_finished_jobs_are_passed_over_and_doubles_done_once(tmp_path):
    jobs = deeds(tmp_path, "first", "last")
    run_jobs([*jobs, *jobs], 1, lambda event: None)
    events = []
    run_jobs(jobs, 1, events.append)
    assert [event.kind for event in events] == ["skipped", "skipped"]
    assert all((job.folder / "result").read_text() == "x" for job in jobs)


def test_an_interruption_is_no_failure(tmp_path):
    jobs = deeds(tmp_path, "stopped", "last")
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, 1, lambda event: None)
    assert read_failure(jobs[0]) is None
    assert not jobs[1].done


def test_a_killed_process_takes_no_other_with_it(tmp_path):
    jobs = deeds(tmp_path, "greedy", "first", "unstable")
    run_jobs(jobs, 2, lambda event: None)
    assert [job.done for job in jobs] == [False, True, False], [read_failure(job) for job in jobs]
    assert "exit code -9" in str(read_failure(jobs[0]))
    assert read_failure(jobs[2]) == "the loss became nan"


def test_one_command_at_a_time_works_in_a_folder(tmp_path):
    with (
        exclusive(tmp_path / "rep", "reproduce"),
        pytest.raises(RunError, match="another recdistill reproduce"),
        exclusive(tmp_path / "rep", "reproduce"),
    ):
        pass
    with exclusive(tmp_path / "rep", "reproduce"):
        pass
    assert not list(tmp_path.iterdir())


def test_two_trainings_do_not_share_a_run_folder(shop, tmp_path):
    out = tmp_path / "r"
    words = ["distill", "--dataset", str(shop.dataset), "--strategy", "none", "--out", str(out), *shop.words]
    with exclusive(out, "distill"):
        refused = CliRunner().invoke(app, words)
    assert isinstance(refused.exception, RunError)
    assert "another recdistill distill works in" in str(refused.exception)
    assert not out.exists()
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (out / "manifest.json").is_file()
