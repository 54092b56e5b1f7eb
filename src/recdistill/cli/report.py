"""``recdistill report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.results import DatasetOption, FilterOption, SplitOption


def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folders and knowledge folders (teachers).")],
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("report.html"),
    dataset: DatasetOption = None,
    split: SplitOption = "test",
    filter_seen: FilterOption = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="Compare with this one; else the first student without a teacher.", show_default=False
        ),
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Popularity, transitions and graph + text beside.")] = True,
    latency: Annotated[bool, typer.Option(help="Measure the time of one user's answer.")] = True,
) -> None:
    """One page: comparison with intervals, learning curves, slices, accuracy against latency, the teacher's audit.

    The page is one file that needs no other: pictures are inside, there is no script.
    """
    from recdistill.cli.results import open_dataset, protocol
    from recdistill.evaluate import Evaluation
    from recdistill.experiments.report import (
        baseline_results,
        choose_reference,
        compare_results,
        oracle_results,
    )
    from recdistill.experiments.results import evaluate_path
    from recdistill.experiments.run_report import (
        RunParts,
        is_run,
        run_document,
        single_user_times,
        write_page,
    )
    from recdistill.knowledge import audit_knowledge, load_knowledge

    data, data_folder = open_dataset(folders, dataset)
    chosen, filtered = protocol(data, split, filter_seen)
    results = [evaluate_path(folder, data, chosen, filter_seen=filtered) for folder in folders]
    free = (
        baseline_results(data, data_folder, chosen, filter_seen=filtered, beside=results) if baselines else []
    )
    others = [*free, *oracle_results(data, data_folder, chosen, filter_seen=filtered)]
    found = compare_results([*results, *others], data, reference=choose_reference(results, reference))
    names = [line.name for line in found.lines]  # those of equal names are told apart
    runs = [RunParts(name, folder) for name, folder in zip(names, folders, strict=False) if is_run(folder)]
    times = single_user_times(runs, data) if latency else {}
    teacher = next((folder for folder in folders if not is_run(folder)), None)
    audit = None
    if teacher is not None:
        rivals: dict[str, Evaluation] = {one.name: one.evaluations[0] for one in free}
        student = next((one.evaluations[0] for one in results if one.kind == "student"), None)
        audit = audit_knowledge(
            load_knowledge(teacher, data),
            data,
            split=chosen,
            filter_seen=filtered,
            other=student,
            baselines=rivals or None,
        )
    write_page(run_document(found, runs, times, audit), out)
    print(f"written: {out}")
