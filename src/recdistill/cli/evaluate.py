"""``recdistill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.results import DatasetOption, FilterOption, SliceOption, SplitOption


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, of one seed or several.")],
    dataset: DatasetOption = None,
    split: SplitOption = "test",
    filter_seen: FilterOption = None,
    slice_name: SliceOption = None,
) -> None:
    """Rank the target of every row among all items: HR, NDCG and MRR at 1, 5, 10, 20, 50."""
    from recdistill.cli.results import open_dataset, print_report, protocol
    from recdistill.experiments.report import compare_results
    from recdistill.experiments.results import evaluate_run

    data, _ = open_dataset([run], dataset)
    chosen, filtered = protocol(data, split, filter_seen)
    result = evaluate_run(run, data, chosen, filter_seen=filtered)
    print_report(compare_results([result], data, reference=result.name, slice_name=slice_name))
    print(f"next: recdistill compare {run} OTHER_RUN")
