"""``recdistill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recdistill.cli.results import DatasetOption, FilterOption, SliceOption, SplitOption

if TYPE_CHECKING:
    from recdistill.data import SequenceDataset
    from recdistill.experiments.results import Result
    from recdistill.types import Split


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder, of one seed or several.")],
    dataset: DatasetOption = None,
    split: SplitOption = "test",
    filter_seen: FilterOption = None,
    slice_name: SliceOption = None,
    another: Annotated[
        bool,
        typer.Option(
            "--another-catalogue",
            help="--dataset has items that training never saw; their texts form their vectors (slim-agnostic).",
        ),
    ] = False,
) -> None:
    """Rank the target of every row among all items: HR, NDCG and MRR at 1, 5, 10, 20, 50."""
    from recdistill.cli.results import open_dataset, print_report, protocol
    from recdistill.experiments.report import compare_results
    from recdistill.experiments.results import evaluate_run

    data, _ = open_dataset([run], dataset)
    chosen, filtered = protocol(data, split, filter_seen)
    result = (
        _elsewhere(run, data, chosen, filtered)
        if another
        else evaluate_run(run, data, chosen, filter_seen=filtered)
    )
    print_report(compare_results([result], data, reference=result.name, slice_name=slice_name))
    print(f"next: recdistill compare {run} OTHER_RUN")


def _elsewhere(run: Path, data: SequenceDataset, split: Split, filter_seen: bool) -> Result:
    """Evaluate the students of a run on a dataset with other items and users: nothing of it was trained on."""
    from dataclasses import replace

    from recdistill.cli.words_of_run import over_texts, words_of_run
    from recdistill.config import describe, read_config
    from recdistill.experiments.results import Result, seed_folders
    from recdistill.export import Recommender

    evaluations = []
    for folder in seed_folders(run):
        config = read_config(folder / "config.yaml")
        student = over_texts(
            Recommender.load(folder),
            data.catalogue,
            words_of_run(folder),
            dataset_fingerprint=data.fingerprint,
        )
        name = f"{describe(config)}, trained elsewhere"
        found = student.evaluate(data, split, filter_seen=filter_seen, name=name)
        evaluations.append(replace(found, seed=config.seed))
    return Result(evaluations[0].name, "distilled", evaluations)
