"""``recdistill refit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def refit(
    run: Annotated[
        Path, typer.Argument(help="A finished run of recdistill distill, of one seed or several.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    rows: Annotated[
        Literal["valid", "all"],
        typer.Option(
            help="valid: learn from the training and validation rows. all: from those of the test too, to be deployed."
        ),
    ] = "valid",
    knowledge: Annotated[
        Path | None,
        typer.Option(
            help="The teacher's answers when it has counted these rows, too (recdistill teach again); else those of "
            "the run.",
            show_default=False,
        ),
    ] = None,
    counts_only: Annotated[
        bool,
        typer.Option(
            "--counts-only",
            help="Do not train: let the item prior of a run with train.prior=pick count these rows. Seconds.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
) -> None:
    """Train a run's student once more, on the rows that picked its settings as well.

    Epochs, the rule for items of the history, the length of cold items' vectors and the item prior are those that
    validation picked in the run. The teacher's knowledge must cover the new rows. A refit that was stopped goes on when
    the same command is given again.
    """
    from recdistill.cli.distill import carry_out
    from recdistill.config.refit import refit_config
    from recdistill.experiments.results import seed_folders
    from recdistill.runs import first_process

    folders = seed_folders(run)
    for folder in folders:
        carry_out(
            refit_config(folder, rows, knowledge=knowledge, counts_only=counts_only),
            out if folder == run else out / folder.name,
            overwrite,
        )
    if first_process():
        print(f"next: recdistill {f'compare {run} {out}' if rows == 'valid' else f'export {out} --out rec/'}")
