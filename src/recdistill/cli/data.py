"""``recdistill data``: one command a source, all with the same options, and ``stats``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recdistill.cli.data_options import EXTRA, HELP, MORE, Text, shared

if TYPE_CHECKING:
    from recdistill.data import Interactions, SequenceDataset

app = typer.Typer(
    help="Turn logs and titles into a dataset folder: one command a source.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _register(source: str) -> None:
    """Add the command of a source: the shared options and its own, so that none is written twice."""
    templates = [shared, *EXTRA.get(source, [])]

    def command(**options: Any) -> None:
        _make(source, options)

    parameters = [p for t in templates for p in inspect.signature(t, eval_str=True).parameters.values()]
    vars(command)["__signature__"] = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    app.command(source, help="\n\n".join([HELP[source], MORE.get(source, "")]).strip())(command)


for _source in HELP:
    _register(_source)


def _make(source: str, options: dict[str, Any]) -> None:
    """Read, then check or write."""
    from recdistill.data import SOURCES, prepare
    from recdistill.data.sources import ARCHIVES, download
    from recdistill.errors import ConfigError

    folder, out = options.pop("source"), options.pop("out")
    check, overwrite = options.pop("check"), options.pop("overwrite")
    _need_out(out, check, overwrite)
    if folder is None and source not in ARCHIVES:
        raise ConfigError(
            f"--source is missing: {source} is not downloaded. Pass --source DIR. {HELP[source]}"
        )
    reader: dict[str, Any] = {
        key: options.pop(key) for key in ("items", "category", "title_column", "separator") if key in options
    }
    if "user_column" in options:
        reader["columns"] = _renaming(options)
    reader = {key: value for key, value in reader.items() if value is not None}
    log, items = SOURCES[source](download(source) if folder is None else folder, **reader)
    if check:
        _report_check(log)
        return
    drawn = {split: options.pop(f"sample_{split}") for split in ("train", "valid", "test")}
    options["sample"] = {split: count for split, count in drawn.items() if count is not None}
    options["name"] = options["name"] or _default_name(source, folder)
    _write(prepare(log, items, **options), out, overwrite)


def _need_out(out: Path | None, check: bool, overwrite: bool) -> None:
    """Refuse early what could not be written after minutes of reading."""
    from recdistill.errors import ConfigError, RunError

    if check:
        return
    if out is None:
        raise ConfigError("--out is missing. Pass --out DIR, or --check to only read the source.")
    if out.exists() and not overwrite and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} already exists. Choose another --out, or pass --overwrite to replace it.")


def _default_name(source: str, folder: Path | None) -> str:
    if folder is None or source.startswith("movie"):
        return source
    return folder.resolve().name.split(".")[0] or source


def _renaming(options: dict[str, Any]) -> dict[str, str]:
    """Return ours → theirs for the columns that were named."""
    named = {
        ours: options.pop(f"{ours.removesuffix('_id')}_column")
        for ours in ("user_id", "item_id", "timestamp", "rating")
    }
    return {ours: theirs for ours, theirs in named.items() if theirs is not None}


def _report_check(log: Interactions) -> None:
    """Tell what a readable source holds; an unreadable one has ended in an error that names the row."""
    from rich.console import Console

    from recdistill.data import find_duplicate

    say = Console(highlight=False, soft_wrap=True).print
    counts = log.counts()
    say("no bad row: " + ", ".join(f"{value:,} {key}" for key, value in counts.items()))
    say("time: " + ("timestamps" if log.has_time else "the order of the rows (leave-one-out only)"))
    say("ratings: " + ("yes" if "rating" in log.frame.columns else "no"))
    if duplicate := find_duplicate(log.frame, origin=str(log.provenance.get("format"))):
        say("note: " + duplicate)


def _write(dataset: SequenceDataset, out: Path, overwrite: bool) -> None:
    from rich.console import Console

    dataset.save(out, overwrite=overwrite)
    console = Console(highlight=False, soft_wrap=True)
    for record in dataset.provenance.get("filters", []):
        before, after = record["before"], record["after"]
        changes = ", ".join(f"{key} {before[key]:,} → {after[key]:,}" for key in before)
        console.print(f"{record['filter']} {record['value']}: {changes}")
    _print_statistics(dataset)
    console.print(f"dataset {dataset.name!r} in {out}, fingerprint {dataset.fingerprint[:12]}")


@app.command("dllm2rec-windows")
def windows(
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder in which the files below are looked for, also one folder down."),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(help="Train windows.", show_default="train_data.csv, train_reconstructed.csv"),
    ] = None,
    valid: Annotated[Path | None, typer.Option(help="Valid windows.", show_default="val_data.csv")] = None,
    test: Annotated[Path | None, typer.Option(help="Test windows.", show_default="test_data.csv")] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="Titles: an id column, title, maybe support.", show_default="item_map.tsv"),
    ] = None,
    more_items: Annotated[Path | None, typer.Option(help="Titles of ids that --items does not name.")] = None,
    n_items: Annotated[
        int | None, typer.Option(min=1, help="Number of items.", show_default="the padding id")
    ] = None,
    min_support: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out titles with less support.")
    ] = 0.8,
    user_column: Annotated[
        Text, typer.Option(help="Users of the train windows.", show_default="the column named user*")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the dataset in tables.")] = "dllm2rec-windows",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset in --out.")] = False,
) -> None:
    """DLLM2Rec's own window files, split already.

    csv files with the columns seq, len_seq and next; the index of an item is its official id.
    """
    from recdistill.data import read_windows
    from recdistill.data.sources.windows import find_window_files
    from recdistill.errors import ConfigError

    _need_out(out, False, overwrite)
    found = find_window_files(source) if source is not None else {}
    train, valid, test = train or found.get("train"), valid or found.get("valid"), test or found.get("test")
    if train is None or valid is None or test is None:
        raise ConfigError("--source is missing. Pass --source DIR, or --train, --valid and --test.")
    dataset = read_windows(
        train,
        valid,
        test,
        items=items or found.get("items"),
        more_items=more_items,
        item_count=n_items,
        min_support=min_support,
        user_column=user_column,
        name=name,
    )
    _write(dataset, out, overwrite)


@app.command("stats")
def stats(
    folder: Annotated[Path, typer.Argument(help="Dataset folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Table 4 of the paper for a dataset, beside the published row where there is one."""
    import json

    from recdistill.data import SequenceDataset, describe

    dataset = SequenceDataset.load(folder)
    if as_json:
        print(json.dumps(describe(dataset), indent=2, ensure_ascii=False))
    else:
        _print_statistics(dataset)


def _print_statistics(dataset: SequenceDataset) -> None:
    from rich.console import Console
    from rich.table import Table

    from recdistill.data import describe, published_row

    figures, published = describe(dataset), published_row(dataset)
    console = Console(highlight=False, soft_wrap=True)
    table = Table("dataset", "users", "items", "interactions", "density")
    rows = [(figures["name"], *(figures[key] for key in ("users", "items", "interactions", "density")))]
    rows += [(f"paper: {published.name}", *published[1:])] if published else []
    for name, users, items, interactions, density in rows:
        table.add_row(name, _number(users), _number(items), _number(interactions), _percent(density, 4))
    console.print(table)
    splits = Table(
        "split", "rows", "history: mean", "median", "longest", "target unseen in train", "target in history"
    )
    for name, part in figures["splits"].items():
        cells = (
            [f"{part['history_mean']:.1f}", f"{part['history_median']:.0f}", _number(part["history_max"])]
            if "history_max" in part
            else ["–"] * 3
        )
        shares = [_percent(part.get(key), 2) for key in ("unseen_targets", "repeated_targets")]
        splits.add_row(name, _number(part["rows"]), *cells, *shares)
    console.print(splits)
    titles = figures["titles"]
    console.print(
        f"titles: {titles['missing']:,} of {titles['items']:,} items have none; "
        f"{titles['duplicated_titles']:,} titles are shared by {titles['items_with_duplicated_title']:,} "
        "items"
    )


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _percent(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
