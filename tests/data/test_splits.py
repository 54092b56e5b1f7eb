from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recdistill.data import SPLIT_NAMES, Catalogue, Interactions, SequenceDataset, global_time, leave_one_out
from recdistill.errors import DataError
from references import splits as reference

EVENTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 12)), min_size=2, max_size=60
)


def log_of(events: list[reference.Event]) -> tuple[Interactions, Catalogue]:
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row")
    log = Interactions.from_frame(frame)
    return log, Catalogue.from_items(None, frame["item_id"])


def rows_of(dataset: SequenceDataset) -> list[reference.Row]:
    names = [int(raw) for raw in dataset.catalogue.raw_ids]
    rows = []
    for place in range(len(dataset.row_ids)):
        where = np.array([place])
        _, seen = dataset.seen(where)
        target = names[dataset.targets(where)[0]]
        split = SPLIT_NAMES[dataset.row_splits[place]]
        rows.append((split, tuple(names[item] for item in seen), target, int(dataset.row_ids[place])))
    return rows


@given(EVENTS)
@settings(deadline=None)
def test_leave_one_out_is_the_naive_one(events: list[reference.Event]) -> None:
    dataset = leave_one_out(*log_of(events))
    assert rows_of(dataset) == reference.leave_one_out(events)


@given(EVENTS, st.integers(1, 4), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=200)
def test_global_time_is_the_naive_one(
    events: list[reference.Event], window: int, only_full: bool, later: bool
) -> None:
    expected = reference.global_time(events, window, only_full=only_full, later=later)
    policy = "push_to_later" if later else "index"
    if not any(split != "prefix" for split, *_ in expected):
        with pytest.raises(DataError, match="no user has more than"):
            global_time(*log_of(events), window=window, only_full=only_full, tie_policy=policy)  # type: ignore[arg-type]
        return
    dataset = global_time(*log_of(events), window=window, only_full=only_full, tie_policy=policy)  # type: ignore[arg-type]
    assert rows_of(dataset) == expected


@given(EVENTS, st.integers(1, 4))
@settings(deadline=None)
def test_what_training_may_learn_lies_before_every_question(
    events: list[reference.Event], window: int
) -> None:
    try:
        dataset = global_time(*log_of(events), window=window, tie_policy="push_to_later")
    except DataError:
        return
    assert dataset.timestamps is not None
    when = dataset.timestamps[dataset.row_events]
    learned = np.isin(dataset.row_splits, [SPLIT_NAMES.index("train"), SPLIT_NAMES.index("prefix")])
    if learned.any() and not learned.all():
        assert when[learned].max() < when[~learned].min()


def many(users: int = 30, seed: int = 0) -> tuple[Interactions, Catalogue]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 25, users)
    events = [
        (u, int(rng.integers(40)), int(rng.integers(10_000))) for u in range(users) for _ in range(sizes[u])
    ]
    return log_of(events)


def test_a_sample_keeps_the_ids_of_the_whole() -> None:
    log, catalogue = many()
    whole = global_time(log, catalogue)
    part = global_time(log, catalogue, sample={"train": 40, "test": 5}, seed=1)
    assert len(part.rows("train")) == 40
    assert len(part.rows("test")) == 5
    assert len(part.rows("valid")) == len(whole.rows("valid"))
    at = whole.positions_of(part.row_ids)
    rows = np.arange(len(part.row_ids))
    assert np.array_equal(whole.histories(at, 50), part.histories(rows, 50))
    assert np.array_equal(whole.targets(at), part.targets(rows))
    assert np.array_equal(whole.row_splits[at], part.row_splits)
    prefixes = [len(d.rows("train", prefixes=True)) - len(d.rows("train")) for d in (whole, part)]
    assert prefixes[1] == round(prefixes[0] * 40 / len(whole.rows("train")))
    assert len(np.unique(part.row_sequences)) == len(part.offsets) - 1  # no sequence without a row


def test_the_draw_of_a_split_depends_on_the_seed_alone() -> None:
    log, catalogue = many()
    one = global_time(log, catalogue, sample={"test": 5}, seed=1)
    two = global_time(log, catalogue, sample={"test": 5, "train": 10}, seed=1)
    other = global_time(log, catalogue, sample={"test": 5}, seed=2)
    assert np.array_equal(one.row_ids[one.rows("test")], two.row_ids[two.rows("test")])
    assert not np.array_equal(one.row_ids[one.rows("test")], other.row_ids[other.rows("test")])


def test_counts_of_what_gives_no_rows() -> None:
    log, catalogue = log_of([(1, 1, 1), (2, 1, 1), (2, 2, 2), (3, 1, 1), (3, 2, 2), (3, 3, 3)])
    rule = leave_one_out(log, catalogue).provenance["split"]
    assert rule["sequences_without_rows"] == 1
    assert rule["sequences_with_train_rows_only"] == 1
    dataset = global_time(log, catalogue)
    assert dataset.provenance["split"]["sequences_without_rows"] == 1
    assert dataset.provenance["counts"]["interactions"] == 6


def test_the_shuffled_log_gives_the_same_dataset() -> None:
    log, catalogue = many()
    unique_times = log.with_frame(log.frame.with_columns(timestamp=pl.int_range(pl.len()).cast(pl.Int64)))
    shuffled = unique_times.with_frame(unique_times.frame.sample(fraction=1.0, shuffle=True, seed=3))
    for split in (leave_one_out, global_time):
        assert split(unique_times, catalogue).fingerprint == split(shuffled, catalogue).fingerprint  # type: ignore[operator]


def test_without_timestamps_the_order_of_the_rows_counts() -> None:
    log = Interactions.from_frame({"user_id": ["b", "a", "b", "b"], "item_id": ["3", "1", "1", "2"]})
    dataset = leave_one_out(log, Catalogue.from_items(None, ["1", "2", "3"]))
    assert dataset.events.tolist() == [2, 0, 1]
    assert dataset.timestamps is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window is 0"),
        ({"ratios": (0.5, 0.1, 0.1)}, "ratios are"),
        ({"tie_policy": "random"}, "tie_policy is 'random'"),
        ({"sample": {"train": 0}}, "sample train=0"),
        ({"sample": {"prefix": 3}}, "sample prefix=3"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        global_time(*many(), **options)  # type: ignore[arg-type]


def test_wrong_logs() -> None:
    log, catalogue = many()
    with pytest.raises(DataError, match=r"global-time needs timestamps.*leave-one-out"):
        global_time(log.with_frame(log.frame.drop("timestamp")), catalogue)
    with pytest.raises(DataError, match="is not in the catalogue"):
        leave_one_out(log, Catalogue.from_items(None, ["0"]))
