from __future__ import annotations

import polars as pl
import pytest

from recdistill.data import PUBLISHED, Interactions, describe, prepare, published_row


def dataset(name: str = "own"):  # type: ignore[no-untyped-def]
    log = Interactions.from_frame(
        {
            "user_id": [1, 1, 1, 1, 2, 2, 2],
            "item_id": [1, 2, 3, 4, 1, 2, 1],
            "timestamp": [1, 2, 3, 4, 1, 2, 3],
        }
    )
    items = pl.DataFrame({"item_id": [1, 2, 3, 4], "title": ["A", "A", "", "B"]})
    return prepare(log, items, name=name)


def test_figures() -> None:
    figures = describe(dataset())
    assert (figures["users"], figures["items"], figures["interactions"]) == (2, 4, 7)
    assert figures["density"] == pytest.approx(7 / 8)
    assert figures["splits"]["train"] == {
        "rows": 1,
        "history_mean": 1.0,
        "history_median": 1.0,
        "history_max": 1,
        "unseen_targets": 0.0,
        "repeated_targets": 0.0,
    }
    assert figures["splits"]["test"]["history_mean"] == 2.5
    assert figures["splits"]["test"]["unseen_targets"] == 0.5  # item 4 is met by nobody before
    assert figures["splits"]["test"]["repeated_targets"] == 0.5  # user 2 comes back to item 1
    assert figures["splits"]["prefix"] == {"rows": 0}
    assert figures["titles"]["missing"] == 1
    assert figures["titles"]["items_with_duplicated_title"] == 2


@pytest.mark.parametrize(
    ("key", "density"), [("games", 0.0005176), ("movielens-10m", 0.001769), ("toys", 0.0007241)]
)
def test_the_papers_densities_follow_from_its_counts(key: str, density: float) -> None:
    row = PUBLISHED[key]
    assert row.density == density
    assert row.interactions / (row.users * row.items) == pytest.approx(density, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("toys", "Toys"),
        ("amazon-toys-2014", "Toys"),
        ("Toys_and_Games", "Games"),
        ("dllm2rec-game", "Games"),
        ("ml-10m", "MovieLens-10M"),
        ("movielens-10m", "MovieLens-10M"),
        ("ml-1m", None),
        ("gamesome", None),
    ],
)
def test_the_published_row_is_found_by_name(name: str, expected: str | None) -> None:
    row = published_row(dataset(name))
    assert (row.name if row else None) == expected
