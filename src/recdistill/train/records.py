"""What a run wrote about its epochs, and whether it was given enough of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

#: What a run writes about the length of cold items' vectors that validation picked after the last epoch.
COLD_ITEMS: Final = "cold_items.json"
#: The same about the prior of the items.
ITEM_PRIOR: Final = "item_prior.json"
#: A run whose best epoch is in this last share of those allowed was cut short.
_LAST_SHARE: Final = 0.1


def epoch_records(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's ``metrics.jsonl``; none where there is no such file."""
    path = folder / "metrics.jsonl"
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:  # a line that a killed process left unfinished
            break
    return records


def kept_metrics(folder: Path) -> dict[str, float]:
    """Return the validation metrics of the student that a run kept; empty where it has not kept one.

    Where validation picked something after the last epoch, there is one alone, `settled_metric`.
    """
    settled = settled_metric(folder)
    if settled is not None:
        return dict([settled])
    best = [record for record in epoch_records(folder) if record.get("best")]
    return dict(best[-1].get("valid", {})) if best else {}


def settled_metric(folder: Path) -> tuple[str, float] | None:
    """Return by what validation picked the length of cold items' vectors or a prior, and the kept student's value.

    None where it picked neither. The metrics of the epochs are those of short vectors and of no prior: lower, and not
    the student's.
    """
    if (folder / ITEM_PRIOR).is_file():  # it is picked last
        told = json.loads((folder / ITEM_PRIOR).read_text(encoding="utf-8"))
        return told["metric"], told["value"]
    if (folder / COLD_ITEMS).is_file():
        told = json.loads((folder / COLD_ITEMS).read_text(encoding="utf-8"))
        return told["metric"], next(one["all"] for one in told["tried"] if one["factor"] == told["chosen"])
    return None


def best_epoch(folder: Path) -> int | None:
    """Return the epoch that was kept, from 0; None where no epoch was (mutual teaching has rounds instead)."""
    best = [
        int(record["epoch"]) for record in epoch_records(folder) if record.get("best") and "epoch" in record
    ]
    return best[-1] if best else None


def still_rising(best: int | None, allowed: int) -> bool:
    """Return whether a run was stopped by its number of epochs, and not by validation: it may have had more to learn.

    Parameters
    ----------
    best
        The epoch that was kept, from 0, or None.
    allowed
        Epochs that the run was allowed.
    """
    return best is not None and best + 1 > (1 - _LAST_SHARE) * allowed
