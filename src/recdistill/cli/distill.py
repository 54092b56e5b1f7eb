"""``recdistill distill``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recdistill.config import RunConfig


def distill(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG.yaml] [KEY=VALUE ...]", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write.", show_default=False)] = None,
    dataset: Annotated[Path | None, typer.Option(help="Dataset folder.", show_default=False)] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a teacher (recdistill teach) or of rationales (recdistill rationales).",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(help="gru4rec, sasrec, caser or twin.", show_default=False)
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="modern (default) or paper.", show_default=False)
    ] = None,
    loss: Annotated[str | None, typer.Option(help="bce, ce, bpr, gbce or dros.", show_default=False)] = None,
    strategy: Annotated[
        str | None,
        typer.Option(help="A recipe (none, dllm2rec, ...) or strategies: rd+hint.", show_default=False),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="best: student, loss, training and what is learned, as one preset. See recdistill strategies.",
            show_default=False,
        ),
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help="Rows that learn from the teacher: all, band, confidence, random, budget, or a file of row ids.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the run, or of the first of several.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds; each gets a folder seed-N/.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the resolved config and stop.")] = False,
) -> None:
    """Train a student, with a teacher's knowledge or without, and keep the best epoch on validation.

    A run that was stopped goes on when the same command is given again. Every key of the config can be set as
    KEY=VALUE, an option of a part by the part's name: train.epochs=50 importance.gamma_confidence=0.
    """
    import yaml

    from recdistill.config import resolve
    from recdistill.errors import ConfigError
    from recdistill.runs import first_process

    words = list(arguments or [])
    file = Path(words.pop(0)) if words and words[0].endswith((".yaml", ".yml")) else None
    flags: dict[str, Any] = {
        "dataset": str(dataset.resolve()) if dataset else None,
        **_knowledge(knowledge),
    }
    flags["student"] = {"name": student, "variant": variant}
    flags["loss"] = {"name": loss}
    flags["select"] = _selection(select)
    config = resolve(_given(flags), strategy=strategy, file=file, words=words, whole=recipe)
    if dry_run:
        print(yaml.safe_dump(config.model_dump(), sort_keys=False), end="")
        return
    if out is None:
        raise ConfigError("--out is missing. Name the run folder to write: --out r/.")
    folders = [out] if seeds == 1 else [out / f"seed-{seed + k}" for k in range(seeds)]
    for number, folder in enumerate(folders):
        carry_out(
            config.model_copy(update={"seed": seed + number if seeds > 1 or seed else config.seed}),
            folder,
            overwrite,
        )
    if first_process():
        print(f"next: recdistill evaluate {out}")


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Drop what the user did not say."""
    nested = {k: _given(v) if isinstance(v, dict) else v for k, v in flags.items()}
    return {k: v for k, v in nested.items() if v is not None and v != {}}


def _knowledge(folder: Path | None) -> dict[str, Any]:
    """Return the part of the config that ``--knowledge`` stands for: a teacher's folder, or knowledge in words."""
    from recdistill.knowledge import is_words

    if folder is None:
        return {}
    path = str(folder.resolve())
    return {"words": {"folder": path}} if is_words(folder) else {"knowledge": path}


def _selection(select: str | None) -> dict[str, Any]:
    """Return the section of the config that ``--select`` stands for: a way to choose, or a file of row ids."""
    if select is not None and Path(select).suffix in (".parquet", ".json"):
        return {"how": "file", "file": str(Path(select).resolve())}
    return {"how": select}


def carry_out(config: RunConfig, folder: Path, overwrite: bool) -> None:
    """Train what a config says in its folder, with a bar; a run that was stopped there goes on.

    Of the processes of one ``torchrun`` the first prepares the folder and speaks; the others only train.
    """
    from recdistill.cli.progress import TrainingProgress
    from recdistill.cli.run_folder import run_folder
    from recdistill.config import describe, run, write_config
    from recdistill.experiments.results import rising_runs
    from recdistill.export import REPEATS
    from recdistill.runs import first_process
    from recdistill.train.records import settled_metric

    if not first_process():
        run(config, folder)
        return
    with (
        run_folder(folder, config, "distill", overwrite=overwrite, divided=True),
        TrainingProgress(f"{describe(config)}, seed {config.seed}", config.train.epochs) as progress,
    ):
        write_config(config, folder / "config.yaml")
        made = run(config, folder, reporter=progress)
    settled = settled_metric(folder)
    if settled is not None:
        print("with what validation picked at the end: {} {:.4f}".format(*settled))
    if not made.spec.get(REPEATS, True):
        print("validation is better without the items of the history: this student never names them")
    if rising_runs([folder]):
        print(
            f"still rising: the best epoch was among the last of the {config.train.epochs} allowed. Before it is "
            "compared, give it more: train.epochs=..."
        )
