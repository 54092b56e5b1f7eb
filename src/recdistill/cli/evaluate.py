"""``recdistill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, of one seed or several.")],
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset folder; else the run's own.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option(help="test or valid.")] = "test",
    filter_seen: Annotated[
        bool | None,
        typer.Option(
            "--filter-seen/--keep-seen", help="Rank without the items of the history.", show_default=False
        ),
    ] = None,
) -> None:
    """Rank the target of every row among all items: HR, NDCG and MRR at 1, 5, 10, 20, 50."""
    from recdistill.cli.results import open_dataset, print_report, protocol
    from recdistill.experiments.report import compare_results
    from recdistill.experiments.results import evaluate_run

    data, _ = open_dataset([run], dataset)
    chosen, filtered = protocol(data, split, filter_seen)
    result = evaluate_run(run, data, chosen, filter_seen=filtered)
    print_report(compare_results([result], data, reference=result.name))
    print(f"next: recdistill compare {run} OTHER_RUN")
