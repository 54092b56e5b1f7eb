"""``recdistill data simulated``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def simulated(
    out: Annotated[Path, typer.Option(help="Dataset folder to write.")],
    users: Annotated[int, typer.Option(help="Shoppers.")] = 3000,
    items: Annotated[int, typer.Option(help="Items, 40 or more.")] = 1000,
    events: Annotated[float, typer.Option(help="Mean purchases of a shopper.")] = 12.0,
    min_events: Annotated[int, typer.Option(help="Every shopper has at least so many.")] = 5,
    seed: Annotated[int, typer.Option(help="Two equal commands give the same shop.")] = 0,
    split: Annotated[str, typer.Option(help="global-time or leave-one-out.")] = "global-time",
    window: Annotated[int, typer.Option(help="History length of the global-time rule.")] = 10,
    follow: Annotated[float, typer.Option(help="Weight of the franchise going on.")] = 0.4,
    taste: Annotated[float, typer.Option(help="Weight of the hidden taste's genre and platform.")] = 0.3,
    explore: Annotated[float, typer.Option(help="Weight of related genres.")] = 0.1,
    popularity: Annotated[float, typer.Option(help="Weight of anything, by popularity.")] = 0.2,
    taste_drift: Annotated[float, typer.Option(help="How often the taste moves before a purchase.")] = 0.1,
    popularity_exponent: Annotated[float, typer.Option(help="The long tail (rank + 2)^-s.")] = 0.8,
    genres: Annotated[int, typer.Option(help="1 to 12.")] = 12,
    platforms: Annotated[int, typer.Option(help="1 to 4.")] = 4,
    cold_share: Annotated[float, typer.Option(help="Share of items released near the end.")] = 0.05,
    duplicate_titles: Annotated[float, typer.Option(help="Share of items with another's title.")] = 0.01,
    name: Annotated[str, typer.Option(help="How tables call the dataset.")] = "simulated",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder.")] = False,
) -> None:
    """Simulate a shop of any size whose true next-item distribution, and so the ceiling, is known.

    Titles tell franchise, instalment, platform and often the genre; shoppers follow franchises and drift
    between tastes; popularity has a long tail; some items are released late. Besides the dataset, OUT gets
    oracle.parquet, the rank of each valid and test target under the true distribution: "rank" knows the
    hidden taste and is an upper bound, "rank_history" knows the history alone.
    """
    from rich.console import Console

    from recdistill.data.simulator import ShopConfig, write_simulated

    config = ShopConfig(
        users=users,
        items=items,
        events_per_user=events,
        min_events=min_events,
        seed=seed,
        follow=follow,
        taste=taste,
        explore=explore,
        popularity=popularity,
        taste_drift=taste_drift,
        popularity_exponent=popularity_exponent,
        genres=genres,
        platforms=platforms,
        cold_share=cold_share,
        duplicate_title_share=duplicate_titles,
    )
    dataset = write_simulated(config, out, split, window, name=name, overwrite=overwrite)
    say = Console(highlight=False, soft_wrap=True).print
    rows = ", ".join(
        f"{count} {kind}" for kind, count in dataset.provenance["counts"]["rows"].items() if count
    )
    say(f"{out}: SIMULATED, {users} users, {items} items, {len(dataset.events)} events; rows: {rows}")
    for oracle, metrics in dataset.provenance["oracle"].get("test", {}).items():
        say(f"ceiling on test, oracle that knows the {oracle}: {_ceiling(metrics)}")
    say(f"next: recdistill teach graph --dataset {out} --out KNOWLEDGE")


def _ceiling(metrics: dict[str, float]) -> str:
    return "  ".join(f"{name.upper()} {metrics[name]:.4f}" for name in ("hr@20", "ndcg@20", "mrr@20"))
