"""``recdistill recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import polars as pl

    from recdistill.export import Recommender
    from recdistill.export.batch import Job
    from recdistill.knowledge import Words


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
    user: Annotated[
        str | None,
        typer.Option(
            help="Number of the user's sequence in the dataset: what is known of him counts too.",
            show_default=False,
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain", help="Show what was written about the user, and what moved each score most."
        ),
    ] = False,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            help="Rank another catalogue: .csv or .parquet with item_id and title (students without ids).",
            show_default=False,
        ),
    ] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(help="Folder of rationales; else that of the run.", show_default=False),
    ] = None,
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
    from recdistill.cli.words_of_run import words_of_run
    from recdistill.errors import ConfigError
    from recdistill.export import Recommender
    from recdistill.export import explain as reasons

    if source is not None or output is not None:
        if (
            source is None
            or output is None
            or history
            or more
            or cold
            or as_json
            or explain
            or user
            or catalogue
        ):
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
    words = words_of_run(folder, knowledge) if explain or catalogue is not None else None
    if catalogue is not None:
        recommender = _over(recommender, catalogue, words)
        k = min(k, len(recommender.catalogue))
    candidates = _cold_items(recommender, folder) if cold else None
    k = k if candidates is None else min(k, len(candidates))
    told = [*history, *(more or [])]
    answer = recommender.recommend([told], k, exclude_seen=not seen, candidates=candidates, users=[user])
    causes = reasons(recommender, told, answer["item_id"].to_list(), user=user) if explain else None
    said = _rationale(recommender, words, user) or _examples(recommender, words, told) if explain else None
    if as_json:
        _print_json(answer, causes, said)
    else:
        _print_table(answer, causes, said)


def _over(recommender: Recommender, path: Path, words: Words | None) -> Recommender:
    """Return the recommender for the items of a file.

    Raises
    ------
    ConfigError
        The student has ids, or what made its texts' vectors is not there, or the file cannot be read.
    """
    import polars as pl

    from recdistill.cli.words_of_run import over_texts
    from recdistill.data import Catalogue
    from recdistill.errors import ConfigError

    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
        items = Catalogue.from_items(frame, frame["item_id"].cast(pl.String))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ConfigError(
            f"{path} cannot be read ({str(error).splitlines()[0]}). Needed: .csv or .parquet with the columns item_id "
            "and title, and the other columns that the training's catalogue has. Mend the file."
        ) from None
    return over_texts(recommender, items, words, keep_users=True)


def _rationale(recommender: Recommender, words: Words | None, user: str | None) -> str | None:
    """Return the text about the user that the recommender uses, or None where there is none."""
    import numpy as np
    import polars as pl

    row = recommender.rows_of([user], 1)
    if words is None or row is None or row[0] < 0 or "places" not in words.arrays:
        return None
    at = int(np.searchsorted(words["row_ids"], row[0]))
    if at >= len(words["row_ids"]) or words["row_ids"][at] != row[0]:
        return None
    event = int(words["newest_event"][int(words["places"][at])])
    found = words.table("users").filter(pl.col("newest_event") == event)
    return str(found["text"][0]) if found.height else None


def _examples(recommender: Recommender, words: Words | None, history: list[str]) -> str | None:
    """Return what was written about similar decisions that the student reads, or None where it reads none."""
    import polars as pl
    import torch

    from recdistill.types import PAD
    from recdistill.user_encoders import InContextTokens

    users = recommender.model.user_encoder
    if words is None or words.maker != "llm-cf" or not isinstance(users, InContextTokens):
        return None
    items = torch.from_numpy(recommender.catalogue.index_of(history))
    shown = users.examples_of(items.unsqueeze(0))[0]
    table = words.table("examples").filter(pl.col("score") > 0)  # in the order of the examples
    lines = [
        f"{'took' if row['label'] else 'did not take'} {recommender.catalogue.titles[row['item']]!r}: {row['text']}"
        for row in table[shown[shown != PAD].tolist()].iter_rows(named=True)
    ]
    return "similar decisions\n" + "\n".join(lines) if lines else None


def _print_json(answer: pl.DataFrame, causes: pl.DataFrame | None, said: str | None) -> None:
    import json

    for row in answer.drop("history").iter_rows(named=True):
        if causes is not None:
            mine = causes.filter(causes["item_id"] == row["item_id"]).drop("item_id")
            row |= {"because": mine.to_dicts(), "rationale": said}
        print(json.dumps(row, ensure_ascii=False))


def _print_table(answer: pl.DataFrame, causes: pl.DataFrame | None, said: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    columns = ["rank", "item", "title", "score", *(["because of"] if causes is not None else [])]
    table = Table(*columns)
    for row in answer.iter_rows(named=True):
        cells = [str(row["rank"]), row["item_id"], row["title"], f"{row['score']:.3f}"]
        if causes is not None:
            mine = causes.filter(causes["item_id"] == row["item_id"])
            cells.append(
                "; ".join(
                    f"{one['because_title'] or one['because']} ({one['effect']:+.3f})"
                    for one in mine.iter_rows(named=True)
                )
            )
        table.add_row(*cells)
    console = Console()
    if causes is not None:
        console.print(f"about the user: {said or 'nothing is stored'}", markup=False, highlight=False)
    console.print(table)


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
