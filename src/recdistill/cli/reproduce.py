"""``recdistill reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recdistill.experiments.runner import Event


def reproduce(
    table: Annotated[str, typer.Argument(help="table1 .. table8, figure2, best or levers.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE ...]", help="For every run that has the key.", show_default=False),
    ] = None,
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder.", show_default=False)] = None,
    knowledge: Annotated[
        list[Path] | None,
        typer.Option(help="Knowledge folder of a teacher; may be given several times.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for runs and reports.", show_default=False)] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Final runs of each line, with seeds 1, 2, ...")] = 3,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each with its share of threads.")] = 1,
    students: Annotated[
        str | None,
        typer.Option(help="With commas: sasrec, gru4rec, dros, ...; else the paper's.", show_default=False),
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(
            help="paper or modern students; else the paper's, for best and levers modern.", show_default=False
        ),
    ] = None,
    strategies: Annotated[
        str | None,
        typer.Option(
            help="With commas: recipes, strategies, item encoders, or several with +; all; else the paper's.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="Trials of each search on validation.")] = 20,
    trial_epochs: Annotated[
        int | None, typer.Option(min=1, help="Largest number of epochs of a trial.", show_default=False)
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune/--no-tune", help="Tune λ, weight decay, learning rate.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
) -> None:
    """A table of the paper on your data, or the preset best: tune, train every line with several seeds, write a report.

    A command that was stopped, at any point, goes on when it is given again. Tables share their runs in one --out.
    """
    from rich.console import Console

    from recdistill.errors import ConfigError
    from recdistill.experiments.planner import make_plan
    from recdistill.experiments.reproduction import describe_plan
    from recdistill.experiments.reproduction import reproduce as carry_out

    if dataset is None or out is None:
        raise ConfigError(
            "--dataset and --out are needed: recdistill reproduce table5 --dataset d/ --out rep/."
        )
    plan = make_plan(
        table,
        dataset,
        knowledge or [],
        variant=variant,
        students=_names(students),
        strategies=_names(strategies),
        seeds=seeds,
        budget=budget if tune else 0,
        trial_epochs=trial_epochs,
        words=words or [],
    )
    console = Console(highlight=False, soft_wrap=True)
    for line in describe_plan(plan, out):
        console.print(line, markup=False)
    if dry_run:
        return
    document = carry_out(plan, out, dataset, knowledge or [], workers=jobs, say=_tell)
    Console(width=None if console.is_terminal else 160).print(document.to_rich())
    print(f"written: {out / table}/report.md, .html, .tex, .json")
    if any(note.startswith("FAILED") for note in document.notes):
        print("some runs failed, see the notes; the same command tries them again")
        raise typer.Exit(1)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _tell(event: Event) -> None:
    """Print what happens to a job; what was finished before is not worth a line."""
    if event.kind != "skipped":
        text = f"[{event.done}/{event.total}] {event.title}: {event.kind}"
        print(f"{text}, {event.error}" if event.error else text, flush=True)
