"""``recdistill data``: one command a source, all with the same options, and ``stats``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from recdistill.data import Interactions, SequenceDataset

app = typer.Typer(
    help="Turn logs and titles into a dataset folder: one command a source.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: One line a source; the readers are ``recdistill.data.SOURCES``, which is not imported before a command runs.
HELP = {
    "movielens-100k": "MovieLens 100K: u.data and u.item.",
    "movielens-1m": "MovieLens 1M: ratings.dat and movies.dat (or sequences.tsv, order only).",
    "movielens-10m": "MovieLens 10M: ratings.dat and movies.dat. As in the paper: --split global-time --only-full "
    "--all-items --sample-train 100000 --sample-valid 10000 --sample-test 10000.",
    "movielens-20m": "MovieLens 20M: ratings.csv and movies.csv.",
    "movielens-25m": "MovieLens 25M: ratings.csv and movies.csv.",
    "movielens-32m": "MovieLens 32M: ratings.csv and movies.csv.",
    "movielens-latest-small": "MovieLens latest-small: ratings.csv and movies.csv.",
    "movietweetings": "MovieTweetings: ratings.dat and movies.dat.",
    "amazon-2014": "Amazon reviews 2014: reviews_*_5.json.gz and meta_*.json.gz.",
    "amazon-2018": "Amazon reviews 2018: *_5.json.gz and meta_*.json.gz.",
    "amazon-2023": "Amazon reviews 2023: *.jsonl.gz and meta_*.jsonl.gz.",
    "recbole": "RecBole atomic files: *.inter and *.item.",
    "csv": "Your own csv, tsv or parquet files: interactions.csv and items.csv.",
    "sequences": "Sequences without timestamps: sequences.tsv and items.tsv.",
}

Text = str | None
_Columns = "Name of the column in your file."


def _shared(
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the files (csv, recbole, sequences: or the file). "
            "Without it, MovieLens is downloaded."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Dataset folder to write.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read, and explain the first bad row.")] = False,
    name: Annotated[
        Text, typer.Option(help="Name of the dataset in tables.", show_default="the source")
    ] = None,
    split: Annotated[
        Literal["leave-one-out", "global-time"], typer.Option(help="How rows are split.")
    ] = "leave-one-out",
    window: Annotated[int, typer.Option(min=1, help="global-time: length of the windows.")] = 10,
    only_full: Annotated[
        bool, typer.Option("--only-full", help="global-time: full windows only (MovieLens rule).")
    ] = False,
    tie_policy: Annotated[
        Literal["index", "push_to_later"], typer.Option(help="global-time: rows of one second at a border.")
    ] = "index",
    min_rating: Annotated[float | None, typer.Option(help="Drop lower ratings.")] = None,
    drop_untitled: Annotated[
        bool, typer.Option("--drop-untitled", help="Drop items without a title.")
    ] = False,
    k_core: Annotated[
        int, typer.Option(min=0, help="Keep users and items with at least k events, repeatedly.")
    ] = 0,
    min_length: Annotated[int, typer.Option(min=0, help="Keep users with at least so many events.")] = 0,
    all_items: Annotated[
        bool, typer.Option("--all-items", help="Number items that nobody met, too.")
    ] = False,
    sample_train: Annotated[
        int | None, typer.Option(min=1, help="Keep so many train rows, by chance.")
    ] = None,
    sample_valid: Annotated[int | None, typer.Option(min=1, help="The same for valid rows.")] = None,
    sample_test: Annotated[int | None, typer.Option(min=1, help="The same for test rows.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 42,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the dataset in --out.")] = False,
) -> None:
    """The options of every source."""


def _category(
    category: Annotated[
        Text, typer.Option(help="E.g. Toys_and_Games; needed if the folder holds several.")
    ] = None,
) -> None:
    """The option of Amazon."""


def _columns(
    user_column: Annotated[str, typer.Option(help=_Columns)] = "user_id",
    item_column: Annotated[str, typer.Option(help=_Columns)] = "item_id",
    timestamp_column: Annotated[
        Text, typer.Option(help=_Columns, show_default="timestamp, if there is one")
    ] = None,
    rating_column: Annotated[
        Text, typer.Option(help=_Columns, show_default="rating, if there is one")
    ] = None,
    title_column: Annotated[Text, typer.Option(help="Name of the title column of the items.")] = None,
) -> None:
    """Names of columns."""


def _items(
    items: Annotated[Path | None, typer.Option(help="Table of items: item_id, title, any others.")] = None,
) -> None:
    """The item table."""


def _separator(
    separator: Annotated[
        Text, typer.Option(help="Between fields.", show_default="comma; tab in .tsv")
    ] = None,
) -> None:
    """Of the csv file."""


_EXTRA: dict[str, list[Callable[..., None]]] = {
    **dict.fromkeys(("amazon-2014", "amazon-2018", "amazon-2023"), [_category]),
    "recbole": [_columns],
    "csv": [_items, _columns, _separator],
    "sequences": [_items],
}


def _register(source: str) -> None:
    """Add the command of a source: the shared options and its own, so that none is written twice."""
    templates = [_shared, *_EXTRA.get(source, [])]

    def command(**options: Any) -> None:
        _make(source, options)

    parameters = [p for t in templates for p in inspect.signature(t, eval_str=True).parameters.values()]
    vars(command)["__signature__"] = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    app.command(source, help=HELP[source])(command)


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
    reader = {
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
    """DLLM2Rec's own window files (seq, len_seq, next), split already; item index = official id."""
    from recdistill.data import read_windows
    from recdistill.data.files import find_file, need_file, need_folder
    from recdistill.errors import ConfigError

    _need_out(out, False, overwrite)
    if source is None and (train is None or valid is None or test is None):
        raise ConfigError("--source is missing. Pass --source DIR, or --train, --valid and --test.")
    if source is not None:
        folder, page = need_folder(source), "https://github.com/istarryn/DLLM2Rec (data/)"
        train = train or need_file(folder, "train_data.csv", "train_reconstructed.csv", where_from=page)
        valid = valid or need_file(folder, "val_data.csv", where_from=page)
        test = test or need_file(folder, "test_data.csv", where_from=page)
        items = items or find_file(folder, "item_map.tsv")
    assert train is not None and valid is not None and test is not None  # told above
    dataset = read_windows(
        train, valid, test, items=items, more_items=more_items, item_count=n_items,
        min_support=min_support, user_column=user_column, name=name,
    )  # fmt: skip
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
        f"titles: {titles['missing']:,} of {titles['items']:,} items have none; {titles['duplicated_titles']:,} titles "
        f"are shared by {titles['items_with_duplicated_title']:,} items"
    )


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _percent(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"
