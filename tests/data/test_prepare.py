from __future__ import annotations

import polars as pl
import pytest

from recdistill.data import Interactions, prepare
from recdistill.errors import ConfigError

LOG = {
    "user_id": [1, 1, 1, 2, 2, 2],
    "item_id": [7, 8, 9, 9, 8, 7],
    "timestamp": [1, 2, 3, 1, 2, 3],
    "rating": [5.0] * 6,
}
ITEMS = pl.DataFrame({"item_id": [7, 8, 9, 10], "title": ["A", "B &amp; C", "D", "E"]})


def test_catalogue_holds_the_met_items_or_all() -> None:
    log = Interactions.from_frame(LOG)
    assert prepare(log, ITEMS).catalogue.titles == ["A", "B & C", "D"]
    assert prepare(log, ITEMS, all_items=True).catalogue.raw_ids == ["7", "8", "9", "10"]
    assert prepare(log).catalogue.titles == ["", "", ""]


def test_provenance_tells_the_whole_story() -> None:
    log = Interactions.from_frame(LOG, provenance={"format": "test"})
    told = prepare(log, ITEMS, name="n", min_rating=4, min_length=3, split="global-time", window=1).provenance
    assert told["name"] == "n"
    assert told["source"] == {"format": "test"}
    assert told["read"] == {"users": 2, "items": 3, "interactions": 6}
    assert [record["filter"] for record in told["filters"]] == ["min_rating", "min_length"]
    assert told["split"]["kind"] == "global-time"
    assert told["counts"]["rows"] == {"train": 3, "valid": 0, "test": 1, "prefix": 0}
    assert told["titles"]["missing"] == 0


def test_unknown_split() -> None:
    with pytest.raises(ConfigError, match=r"split is 'random'\. Allowed: leave-one-out, global-time"):
        prepare(Interactions.from_frame(LOG), split="random")  # type: ignore[arg-type]
