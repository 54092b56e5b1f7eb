from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recdistill.data import Interactions, apply_filters, at_least_rating, core, with_title
from recdistill.errors import DataError

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def log(pairs: list[tuple[int, int]]) -> Interactions:
    users, items = zip(*pairs, strict=True)
    return Interactions.from_frame({"user_id": users, "item_id": items})


def naive_core(pairs: list[tuple[int, int]], users: int, items: int) -> list[tuple[int, int]]:
    """Remove one offending row after the other."""
    pairs = list(pairs)
    while True:
        for pair in pairs:
            of_user = sum(other[0] == pair[0] for other in pairs)
            of_item = sum(other[1] == pair[1] for other in pairs)
            if of_user < users or of_item < items:
                pairs.remove(pair)
                break
        else:
            return pairs


@given(PAIRS, st.integers(0, 4), st.integers(0, 4))
def test_core_is_the_one_that_single_removals_reach(
    pairs: list[tuple[int, int]], users: int, items: int
) -> None:
    assert sorted(core(log(pairs), users=users, items=items).frame.rows()) == sorted(
        naive_core(pairs, users, items)
    )


def test_min_rating() -> None:
    rated = Interactions.from_frame({"user_id": [1, 1], "item_id": [1, 2], "rating": [3.5, 4.0]})
    assert at_least_rating(rated, 4).frame["item_id"].to_list() == [2]
    with pytest.raises(DataError, match="needs ratings"):
        at_least_rating(log([(1, 1)]), 3)


def test_items_without_a_title_go() -> None:
    items = pl.DataFrame({"item_id": ["1", "2", "3", "4"], "title": ["A title", " x ", None, '""']})
    kept = with_title(log([(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]), items)
    assert kept.frame["item_id"].to_list() == [1]


def test_report_counts_before_and_after() -> None:
    kept, report = apply_filters(log([(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)]), k_core=2)
    assert report == [
        {
            "filter": "k_core",
            "value": 2,
            "before": {"users": 3, "items": 3, "interactions": 5},
            "after": {"users": 2, "items": 2, "interactions": 4},
        }
    ]
    assert len(kept) == 4


def test_core_and_length_hold_together() -> None:
    pairs = [(u, i) for u in range(3) for i in range(3)] + [(9, 0), (9, 1)]
    kept, _ = apply_filters(log(pairs), k_core=2, min_length=3)
    assert kept.counts() == {"users": 3, "items": 3, "interactions": 9}
    kept, report = apply_filters(log(pairs), min_length=3)
    assert report[0]["filter"] == "min_length"
    assert 9 not in kept.frame["user_id"]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match="k_core = 5 leaves no interaction"):
        apply_filters(log([(1, 1)]), k_core=5)
    with pytest.raises(DataError, match="needs an item table"):
        apply_filters(log([(1, 1)]), drop_untitled=True)
