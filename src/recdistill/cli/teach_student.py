"""``recdistill teach student``: trained students as the teacher of another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recdistill.cli.teaching import (
    Dataset,
    FilterSeen,
    Out,
    Overwrite,
    Prefixes,
    SelectRowIds,
    Splits,
    TopK,
    WalkCount,
    WalkSteps,
)


def student(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the scores of several are added.")],
    dataset: Dataset,
    out: Out,
    weights: Annotated[
        str | None, typer.Option(help="One for each run, with commas between; else 1.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the probabilities.")] = 1.0,
    top_k: TopK = 50,
    splits: Splits = "train,valid,test",
    prefixes: Prefixes = True,
    select_row_ids: SelectRowIds = None,
    walks: WalkCount = None,
    walk_steps: WalkSteps = 5,
    filter_seen: FilterSeen = False,
    overwrite: Overwrite = False,
) -> None:
    """Students that are trained already: a large one, or one of ids and one of text whose scores are added.

    A single student learns from it with: recdistill distill --strategy soft_labels --knowledge OUT
    """
    from recdistill.cli.teaching import (
        Bars,
        finish,
        refuse_existing,
        selected_rows,
        split_names,
        walks_of_teacher,
    )
    from recdistill.data.sequences import SequenceDataset
    from recdistill.errors import ConfigError
    from recdistill.export import Recommender
    from recdistill.export.as_teacher import knowledge_of, scorer_of
    from recdistill.teachers import rows_to_teach

    refuse_existing(out, overwrite)
    try:
        parts = None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError:
        raise ConfigError(
            f"--weights is {weights!r}. Allowed: numbers with commas between, one for each run. "
            "Write for two runs: --weights 1,0.5"
        ) from None
    data = SequenceDataset.load(dataset)
    rows = rows_to_teach(data, split_names(splits), prefixes=prefixes, select=selected_rows(select_row_ids))
    students = [Recommender.load(run) for run in runs]
    with Bars() as bars:
        knowledge = knowledge_of(
            students,
            data,
            rows,
            weights=parts,
            temperature=temperature,
            top_k=top_k,
            progress=bars.add("answering rows", len(rows)),
        )
        written = walks_of_teacher(bars, scorer_of(students, parts), data, knowledge, walks, walk_steps)
    finish(knowledge, data, dataset, out, filter_seen, overwrite, written)
