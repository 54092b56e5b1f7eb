"""``recdistill recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recdistill.export import Recommender
    from recdistill.export.batch import Job


def recommend(
    folder: Annotated[Path, typer.Argument(help="Run folder, recommender folder or exported folder.")],
    history: Annotated[
        list[str] | None, typer.Option(help="Raw ids or titles, oldest first.", show_default=False)
    ] = None,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[ITEM ...]", help="Further items of the history.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    seen: Annotated[
        bool | None,
        typer.Option(
            "--keep-seen/--exclude-seen",
            help="Whether items of the history may come back; else no with --history, yes with --input.",
            show_default=False,
        ),
    ] = None,
    cold: Annotated[
        bool, typer.Option("--only-cold", help="Only items that nobody had bought before training.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Parquet with a list column history: answer all of it.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Parquet to write, with --input.", show_default=False)
    ] = None,
    unknown: Annotated[
        str, typer.Option(help="Items that the catalogue does not have, with --input: refuse or skip.")
    ] = "refuse",
    batch_size: Annotated[int, typer.Option(help="Histories read at once, with --input.")] = 256,
    shard_rows: Annotated[int, typer.Option(help="Histories in memory at a time, with --input.")] = 65536,
    engine: Annotated[str, typer.Option(help="local or ray, with --input.")] = "local",
    workers: Annotated[int, typer.Option(help="Workers of --engine ray.")] = 2,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output.")] = False,
) -> None:
    """Recommend the next items: recdistill recommend r/ --history "Toy Story (1995)" "Jumanji (1995)" -k 10.

    A file of histories: recdistill recommend rec/ --input histories.parquet --output recs.parquet -k 20. A job that was
    stopped goes on when the same command is given again.
    """
    from recdistill.errors import ConfigError
    from recdistill.export import Recommender

    if source is not None or output is not None:
        if source is None or output is None or history or more or cold or as_json:
            raise ConfigError(
                "--input answers a file, and needs --output. Allowed beside them: -k, --exclude-seen, --unknown, "
                "--batch-size, --shard-rows, --engine, --workers, --overwrite. See recdistill recommend --help."
            )
        options = {"unknown": unknown, "batch_size": batch_size, "shard_rows": shard_rows, "engine": engine}
        exclude = False if seen is None else not seen
        _answer_file(
            folder, source, output, k=k, exclude_seen=exclude, workers=workers, overwrite=overwrite, **options
        )
        return
    if not history:
        raise ConfigError(
            'there is no history. Pass --history "TITLE OR ID" ..., or --input FILE --output FILE.'
        )
    recommender = Recommender.load(folder)
    candidates = _cold_items(recommender, folder) if cold else None
    k = k if candidates is None else min(k, len(candidates))
    answer = recommender.recommend(
        [[*history, *(more or [])]], k, exclude_seen=not seen, candidates=candidates
    )
    if as_json:
        print(answer.drop("history").write_ndjson(), end="")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("rank", "item", "title", "score")
    for row in answer.iter_rows(named=True):
        table.add_row(str(row["rank"]), row["item_id"], row["title"], f"{row['score']:.3f}")
    Console().print(table)


def _cold_items(recommender: Recommender, folder: Path) -> list[str]:
    from recdistill.errors import ConfigError

    if not len(recommender.cold):
        raise ConfigError(
            f"training of {folder} saw every item: there is no cold one. Allowed: --only-cold where the "
            "catalogue holds items that were bought later. Leave it out, or see recdistill data stats DATASET."
        )
    return [recommender.catalogue.raw_ids[item] for item in recommender.cold]


def _answer_file(folder: Path, source: Path, output: Path, **options: object) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from recdistill.export import recommend_file

    columns = (TextColumn("histories"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("histories", total=None)

        def started(job: Job, done: int) -> None:
            bar.update(task, total=job.rows, completed=min(job.rows, done * job.shard_rows))

        report = recommend_file(
            folder,
            source,
            output,
            progress=lambda rows: bar.advance(task, rows),
            on_start=started,
            **options,  # type: ignore[arg-type]
        )
    kept = f", {report.resumed_shards} shards of an earlier call were kept" if report.resumed_shards else ""
    print(f"written: {output}, {report.rows:,} histories{kept}")
