"""``recdistill knowledge select``: which rows to ask a teacher about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def select(
    how: Annotated[
        str,
        typer.Argument(help="band, confidence, random, budget, or all.", metavar="HOW", show_default=False),
    ],
    dataset: Annotated[Path, typer.Option(help="Dataset folder.")],
    out: Annotated[Path, typer.Option(help="File of row ids to write: .parquet or .json.")],
    run: Annotated[
        Path | None,
        typer.Option(help="band, budget: run of a student without a teacher.", show_default=False),
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(
            help="confidence: a teacher's knowledge. band: keep rows that it ranks better than the student.",
            show_default=False,
        ),
    ] = None,
    share: Annotated[float, typer.Option(help="band, confidence, random: share of the rows.")] = 0.2,
    centre: Annotated[float, typer.Option(help="band: 0 is around the easiest rows, 1 the hardest.")] = 0.5,
    count: Annotated[int, typer.Option(help="budget: how many rows.")] = 500,
    effective: Annotated[
        float, typer.Option(help="budget: share of answers thought to correct the student.")
    ] = 0.1,
    similar: Annotated[float, typer.Option(help="budget: share thought to be what the student says.")] = 0.5,
    prefixes: Annotated[
        bool, typer.Option(help="Choose among the early positions of a user as well.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of random and budget.")] = 0,
) -> None:
    """Choose training rows to ask a teacher about, or to learn from: hard but solvable ones, a budget, ...

    The file goes into recdistill teach ... --select-row-ids FILE, or into recdistill distill --select FILE.
    """
    from recdistill.config.schema import SelectConfig
    from recdistill.config.selecting import select_rows
    from recdistill.data.sequences import SequenceDataset
    from recdistill.errors import ConfigError, unknown_name
    from recdistill.knowledge import load_knowledge, write_row_ids

    ways = ("all", "band", "budget", "confidence", "random")
    if how not in ways:
        raise unknown_name("way to select rows", how, ways)
    data = SequenceDataset.load(dataset)
    known = load_knowledge(knowledge, data) if knowledge else None
    try:
        chosen = SelectConfig.model_validate(
            {
                "how": how,
                "share": share,
                "centre": centre,
                "count": count,
                "effective": effective,
                "similar": similar,
                "seed": seed,
                "run": None if run is None else str(run),
            }
        )
    except ValueError as error:
        raise ConfigError(f"a value is out of range: {error}") from None
    rows = data.rows("train", prefixes=prefixes)
    ids = select_rows(chosen, data, known, rows)
    write_row_ids(out, ids)
    print(f"{len(ids):,} of {len(rows):,} training rows ({how}) written to {out}")
    print(f"next: recdistill teach ... --select-row-ids {out}, or recdistill distill --select {out}")
