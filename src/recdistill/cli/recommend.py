"""``recdistill recommend``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recommend(
    folder: Annotated[Path, typer.Argument(help="Run folder or recommender folder.")],
    history: Annotated[list[str], typer.Option(help="Raw ids or titles, oldest first.", show_default=False)],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[ITEM ...]", help="Further items of the history.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    seen: Annotated[bool, typer.Option("--keep-seen", help="Items of the history may come back.")] = False,
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Recommend the next items: recdistill recommend r/ --history "Toy Story (1995)" "Jumanji (1995)" -k 10."""
    from rich.console import Console
    from rich.table import Table

    from recdistill.errors import ConfigError
    from recdistill.export import Recommender

    recommender = Recommender.load(folder)
    candidates = None
    if cold:
        if not len(recommender.cold):
            raise ConfigError(
                f"training of {folder} saw every item: there is no cold one. Allowed: --only-cold where the "
                "catalogue holds items that were bought later. Leave it out, or see recdistill data stats DATASET."
            )
        candidates = [recommender.catalogue.raw_ids[item] for item in recommender.cold]
        k = min(k, len(candidates))
    answer = recommender.recommend(
        [[*history, *(more or [])]], k, exclude_seen=not seen, candidates=candidates, users=[user]
    )
    if as_json:
        print(answer.drop("history").write_ndjson(), end="")
        return
    table = Table("rank", "item", "title", "score")
    for row in answer.iter_rows(named=True):
        table.add_row(str(row["rank"]), row["item_id"], row["title"], f"{row['score']:.3f}")
    Console().print(table)
