"""``recdistill demo``: the whole way on a simulated shop, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: A small student that learns fast: minutes, not the best figures.
_TRAINING = ("student.embedding_size=32", "train.learning_rate=0.01", "train.patience=4")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each student.")] = 3,
    users: Annotated[int, typer.Option(min=50, help="Users of the simulated shop.")] = 2000,
    items: Annotated[int, typer.Option(min=50, help="Its items.")] = 800,
    epochs: Annotated[int, typer.Option(min=1, help="Largest number of epochs.")] = 30,
) -> None:
    """Simulate a shop, teach two teachers, distil students with and without them, and compare them all.

    One teacher reads titles and transitions; the other is a small language model, trained on the shop's own titles and
    histories. The data are simulated: what the table shows is that the pipeline works, not how well it works in a real
    shop. A demo that was stopped goes on when the command is given again.
    """
    from rich.console import Console

    from recdistill.cli import compare as verb_compare
    from recdistill.cli import distill as verb_distill
    from recdistill.runs import MANIFEST

    say = Console(highlight=False).print
    data, model, teachers = (
        out / "data",
        out / "language-model",
        (out / "knowledge", out / "knowledge-language-model"),
    )
    if not (data / MANIFEST).is_file():
        say(f"[bold]1. A simulated shop[/bold]: {users} users, {items} items")
        _simulate(data, users, items)
    if not (teachers[0] / MANIFEST).is_file():
        say("[bold]2. A teacher[/bold] that reads titles and transitions")
        _teach(data, teachers[0])
    if not (teachers[1] / MANIFEST).is_file():
        say("   and one that is a language model: first the model, then its teaching")
        _teach_language_model(data, model, teachers[1])
    say("[bold]3. Students[/bold], without a teacher and taught by each")
    runs = []
    for name, strategy, knowledge in (
        ("none", "none", None),
        ("dllm2rec-corrected", "dllm2rec-corrected", teachers[0]),
        ("dllm2rec-language-model", "dllm2rec-corrected", teachers[1]),
        ("best", None, teachers[0]),
    ):
        runs.append(out / f"sasrec-{name}")
        verb_distill.distill(
            arguments=[*_TRAINING, f"train.epochs={epochs}", f"label=SASRec + {name}"],
            out=runs[-1],
            dataset=data,
            knowledge=knowledge,
            student="sasrec",
            variant="modern",
            loss=None,
            strategy=strategy,
            recipe=None if strategy else "best",
            seed=0,
            seeds=seeds,
            overwrite=False,
            dry_run=False,
        )
    say("[bold]4. The comparison[/bold], on test rows that nothing was chosen on")
    verb_compare.compare(
        folders=[*runs, *teachers],
        dataset=data,
        split="test",
        filter_seen=None,
        reference=None,
        baselines=True,
        slices=True,
        out=out / "report",
    )
    say(f"[bold]5. A recommendation[/bold]: recdistill recommend {runs[-1]} --history TITLE ...")
    say(f"the picture: {out / 'report' / 'comparison.png'}")


def _simulate(folder: Path, users: int, items: int) -> None:
    from recdistill.cli.simulate import simulated

    simulated(out=folder, users=users, items=items)


def _teach(data: Path, knowledge: Path) -> None:
    from recdistill.cli.teach import graph

    graph(dataset=data, out=knowledge)


def _teach_language_model(data: Path, model: Path, knowledge: Path) -> None:
    """Train a small language model on the shop's histories, and let it answer with a head over items."""
    from recdistill.cli.lm import train
    from recdistill.cli.teach_item_head import item_head
    from recdistill.runs import MANIFEST

    if not (model / MANIFEST).is_file():
        train(dataset=data, out=model, hidden_size=64, layers=2, vocabulary=1500, context=256, epochs=1.0)
    item_head(dataset=data, model=str(model), out=knowledge, folds=2, epochs=6)
