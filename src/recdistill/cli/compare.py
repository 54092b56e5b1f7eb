"""``recdistill compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.results import DatasetOption, FilterOption, SliceOption, SplitOption


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Run folders and knowledge folders (teachers).")],
    dataset: DatasetOption = None,
    split: SplitOption = "test",
    filter_seen: FilterOption = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Compare with this one; else the first student without a teacher.", show_default=False
        ),
    ] = None,
    baselines: Annotated[
        bool, typer.Option(help="Popularity, transitions and graph + text in the table.")
    ] = True,
    slices: Annotated[bool, typer.Option(help="Head and tail, history length, hop distance.")] = True,
    slice_name: SliceOption = None,
    rounds: Annotated[
        bool,
        typer.Option("--rounds", help="Student and language model of every round of recdistill mutual, too."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write Markdown, JSON and a picture here.", show_default=False)
    ] = None,
) -> None:
    """Put runs, teachers and free baselines into one table, with paired tests against a reference."""
    from recdistill.cli.results import open_dataset, print_report, protocol
    from recdistill.experiments.report import (
        baseline_results,
        choose_reference,
        compare_results,
        oracle_results,
    )
    from recdistill.experiments.results import evaluate_path, rising_runs, round_results

    data, data_folder = open_dataset(folders, dataset)
    chosen, filtered = protocol(data, split, filter_seen)
    results = [evaluate_path(folder, data, chosen, filter_seen=filtered) for folder in folders]
    if rounds:
        results += [
            line for folder in folders for line in round_results(folder, data, chosen, filter_seen=filtered)
        ]
    if baselines:
        results += baseline_results(data, data_folder, chosen, filter_seen=filtered, beside=results)
    results += oracle_results(data, data_folder, chosen, filter_seen=filtered)
    report = compare_results(
        results, data, reference=choose_reference(results, reference), slices=slices, slice_name=slice_name
    )
    print_report(report)
    if rising := rising_runs(folders):
        print(
            f"still rising when their epochs were used up: {', '.join(map(str, rising))}. What sets them apart may be "
            "how fast they learn alone; give all of them more: train.epochs=..."
        )
    if out is not None:
        report.save(out)
        print(f"written: {out}")
