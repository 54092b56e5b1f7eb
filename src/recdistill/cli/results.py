"""What the verbs that read results share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recdistill.data import SequenceDataset
    from recdistill.evaluate import Report
    from recdistill.types import Split

DatasetOption = Annotated[
    Path | None, typer.Option(help="Dataset folder; else the first run's own.", show_default=False)
]
SplitOption = Annotated[str, typer.Option(help="test or valid.")]
FilterOption = Annotated[
    bool | None,
    typer.Option(
        "--filter-seen/--keep-seen", help="Rank without the items of the history.", show_default=False
    ),
]
SliceOption = Annotated[
    str | None,
    typer.Option(
        "--slice",
        help="One slice alone: head, tail, cold (targets that training never saw), 1-5, '2 hops', ...",
        show_default=False,
    ),
]


def open_dataset(folders: Sequence[Path], dataset: Path | None) -> tuple[SequenceDataset, Path]:
    """Return the dataset given, or the one that the first run among the folders was trained on, and its folder.

    Raises
    ------
    ConfigError
        None is given, and there is no run that names one.
    """
    from recdistill.config import read_config
    from recdistill.data import SequenceDataset
    from recdistill.errors import ConfigError

    if dataset is None:
        configs = [
            path
            for folder in folders
            for path in (folder / "config.yaml", *folder.glob("seed-*/config.yaml"))
        ]
        found = next((path for path in configs if path.is_file()), None)
        if found is None:
            raise ConfigError(
                f"none of {', '.join(map(str, folders))} is a run folder, which would name its dataset. "
                "Pass --dataset d/, or make a run: recdistill distill --out r/."
            )
        dataset = Path(read_config(found).dataset)
    return SequenceDataset.load(dataset), dataset


def protocol(dataset: SequenceDataset, split: str, filter_seen: bool | None) -> tuple[Split, bool]:
    """Return the checked split and whether seen items are left out; None: as is usual for the dataset's split.

    Raises
    ------
    ConfigError
        The split is neither test nor valid.
    """
    from recdistill.config import default_filter_seen
    from recdistill.errors import unknown_name

    if split not in ("test", "valid"):
        raise unknown_name("split", split, ["test", "valid"])
    chosen: Split = "test" if split == "test" else "valid"
    return chosen, default_filter_seen(dataset) if filter_seen is None else filter_seen


def print_report(report: Report) -> None:
    """Print a report's tables."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else 140  # a file or a pipe has no width of its own
    Console(width=wide).print(report.to_rich())
