from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from recdistill.data import SPLIT_NAMES, SequenceDataset, read_windows
from recdistill.data.sources.windows import find_window_files
from recdistill.errors import DataError
from recdistill.types import PAD

ITEMS, WIDTH = 30, 4
Window = tuple[list[int], int, str]  # history, target, user


def bigrec_windows(seed: int = 0) -> tuple[list[Window], dict[str, list[int]]]:
    """Windows of random users in a random order of the users, each user's own in order."""
    rng = np.random.default_rng(seed)
    users = {f"u{k}": rng.integers(0, ITEMS, rng.integers(2, 12)).tolist() for k in range(15)}
    waiting = {
        u: [(s[max(0, i - WIDTH) : i], s[i], u) for i in range(min(WIDTH, len(s) - 1), len(s))]
        for u, s in users.items()
    }
    windows = []
    while any(waiting.values()):
        user = rng.choice([u for u, w in waiting.items() if w])
        windows.append(waiting[user].pop(0))
    return windows, users


def write(
    path: Path, windows: list[Window], *, users: bool, float_target: bool = False, pad: int = ITEMS
) -> Path:
    lines = ["seq,len_seq,next" + (",user_id_of_shop" if users else "")]
    for history, target, user in windows:
        padded = [*history, *[pad] * (WIDTH - len(history))]
        lines.append(
            f'"{padded}",{len(history)},{float(target) if float_target else target}'
            + (f",{user}" if users else "")
        )
    path.write_text("\n".join(lines) + "\n")
    return path


HELD_OUT: list[Window] = [([1, 2], 3, "x"), ([4, 5, 6, 7], 29, "y")]


def dataset(
    tmp_path: Path, windows: list[Window], *, users: bool = True, **options: object
) -> SequenceDataset:
    train = write(tmp_path / "train_data.csv", windows, users=users)
    valid = write(tmp_path / "val_data.csv", HELD_OUT, users=False, float_target=True)
    test = write(tmp_path / "test_data.csv", HELD_OUT[::-1], users=False)
    return read_windows(train, valid, test, **options)  # type: ignore[arg-type]


def padded(windows: list[Window]) -> list[list[int]]:
    return [[*history, *[PAD] * (WIDTH - len(history))] for history, _, _ in windows]


@pytest.mark.parametrize("users", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_rows_are_the_windows_of_the_files(tmp_path: Path, users: bool, seed: int) -> None:
    windows, _ = bigrec_windows(seed)
    data = dataset(tmp_path, windows, users=users)
    assert data.item_count == ITEMS
    expected = {"train": windows, "valid": HELD_OUT, "test": HELD_OUT[::-1]}
    for split, of_file in expected.items():
        rows = data.rows(split)  # type: ignore[arg-type]
        assert data.histories(rows, WIDTH).tolist() == padded(of_file)
        assert data.targets(rows).tolist() == [target for _, target, _ in of_file]
    assert data.row_ids.tolist() == list(range(len(data.row_ids)))
    assert data.rows("train").tolist() == list(range(len(windows)))


@pytest.mark.parametrize("seed", range(4))
def test_windows_of_a_user_are_joined_and_events_occur_once(tmp_path: Path, seed: int) -> None:
    windows, users = bigrec_windows(seed)
    data = dataset(tmp_path, windows)
    train_sequences = len(users)
    assert len(data.offsets) - 1 == train_sequences + 2 * len(HELD_OUT)
    joined = [data.events[a:b].tolist() for a, b in zip(data.offsets, data.offsets[1:], strict=False)]
    assert sorted(joined[:train_sequences]) == sorted(users.values())
    learned = defaultdict(list)  # every event but a user's first is learned from once
    for row in data.rows("train", prefixes=True):
        learned[int(data.row_sequences[row])].append(int(data.history_lengths(np.array([row]))[0]))
    assert all(sorted(learned[k]) == list(range(1, len(joined[k]))) for k in range(train_sequences))
    assert not any(k >= train_sequences for k in learned)


def sequences_of(data: SequenceDataset) -> list[list[int]]:
    return [data.events[a:b].tolist() for a, b in zip(data.offsets, data.offsets[1:], strict=False)]


def test_windows_that_share_too_little_start_a_new_sequence_without_prefix_rows(tmp_path: Path) -> None:
    windows: list[Window] = [
        ([1, 2, 3, 4], 5, "u"),
        ([2, 3, 4, 5], 6, "u"),
        ([5, 6, 9, 8], 7, "u"),  # two shared items could be chance
        ([1, 2], 3, "v"),
        ([1, 2, 3], 4, "v"),
    ]
    data = dataset(tmp_path, windows)
    assert sequences_of(data)[:3] == [[1, 2, 3, 4, 5, 6], [5, 6, 9, 8, 7], [1, 2, 3, 4]]
    prefixes = np.flatnonzero(data.row_splits == SPLIT_NAMES.index("prefix"))
    assert data.row_sequences[prefixes].tolist() == [0, 0, 0, 2]
    assert data.targets(prefixes).tolist() == [2, 3, 4, 2]


def test_windows_are_joined_across_missing_ones_and_shortened_histories(tmp_path: Path) -> None:
    windows: list[Window] = [
        ([1, 2, 3, 4], 5, "u"),
        ([3, 4, 5, 6], 7, "u"),  # the window with the target 6 is missing
        ([5, 6, 7], 8, "u"),  # an older item was dropped from this history
        ([1, 2], 3, "v"),
        ([1, 2, 3, 9], 4, "v"),  # all that is known of v overlaps
    ]
    data = dataset(tmp_path, windows)
    assert sequences_of(data)[:2] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9, 4]]
    rows = data.rows("train")
    assert data.targets(rows).tolist() == [5, 7, 8, 3, 4]
    assert data.histories(rows, WIDTH).tolist()[2] == [4, 5, 6, 7]
    assert 6 not in data.targets(data.rows("train", prefixes=True))  # no window asked for it


def test_a_repeated_item_is_read_as_the_smallest_step(tmp_path: Path) -> None:
    data = dataset(tmp_path, [([1, 1, 1, 1], 1, "u"), ([1, 1, 1, 1], 2, "u")])
    assert sequences_of(data)[0] == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("seed", range(6))
def test_lost_windows_cost_no_event_twice(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = {f"u{k:02}": rng.permutation(ITEMS)[: rng.integers(6, 14)].tolist() for k in range(12)}
    windows = [(s[max(0, i - WIDTH) : i], s[i], u) for u, s in users.items() for i in range(4, len(s))]
    kept = [w for k, w in enumerate(windows) if k % 3 != 1]  # never two lost ones in a row
    data = dataset(tmp_path, kept)
    for sequence, (user, events) in zip(sequences_of(data), users.items(), strict=False):
        targets = [target for _, target, who in kept if who == user]
        first, last = kept[[w[2] for w in kept].index(user)], events.index(targets[-1])
        assert sequence == events[events.index(first[0][0]) : last + 1]


def test_without_users_nothing_is_joined(tmp_path: Path) -> None:
    windows, _ = bigrec_windows()
    data = dataset(tmp_path, windows, users=False)
    assert len(data.offsets) - 1 == len(windows) + 2 * len(HELD_OUT)
    assert len(data.rows("train", prefixes=True)) == len(windows)


def test_titles_need_support(tmp_path: Path) -> None:
    (tmp_path / "item_map.tsv").write_text(
        "dllm2rec_id\tasin\ttitle\tsupport\n0\tA\tZero\t1.000\n10\tB\tTen\t0.500\n2\tC\t\t0.9\n"
    )
    (tmp_path / "more.tsv").write_text("dllm2rec_id\ttitle\n3\tThree\n0\tnot this one\n10\tnor this\n")
    windows, _ = bigrec_windows()
    items, more = tmp_path / "item_map.tsv", tmp_path / "more.tsv"
    data = dataset(tmp_path, windows, items=items, more_items=more)
    assert data.catalogue.raw_ids == [str(k) for k in range(ITEMS)]
    assert [data.catalogue.titles[k] for k in (0, 2, 3, 10)] == ["Zero", "", "Three", ""]
    assert data.catalogue.frame["asin"][0] == "A"
    assert dataset(tmp_path, windows, items=items, min_support=0.4).catalogue.titles[10] == "Ten"
    assert find_window_files(tmp_path)["items"] == items


def test_item_count(tmp_path: Path) -> None:
    windows, _ = bigrec_windows()
    assert dataset(tmp_path, windows, item_count=40).item_count == 40
    full: list[Window] = [([1, 2, 3, 4], 5, "u")]
    paths = [write(tmp_path / f"{k}.csv", full, users=False) for k in range(3)]
    assert read_windows(*paths).item_count == 6  # no padding: the greatest id + 1
    paths[2] = write(tmp_path / "3.csv", [([1], 2, "u")], users=False, pad=0)
    paths[1] = write(tmp_path / "4.csv", [([1], 2, "u")], users=False, pad=9)
    with pytest.raises(DataError, match="padded places hold 2 values"):
        read_windows(*paths)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('"[1, 2, 30, 30]",3,4', r"test_data\.csv, line 4: an item of seq is out of range. Allowed: 0\.\.29"),
        ('"[1, 2, 30, 30]",0,4', r"line 4: len_seq is out of range. Allowed: 1\.\.4"),
        ('"[1, 2, 30, 30]",2,30', "line 4: next is out of range"),
        ('"[1, 2, 30]",2,4', "every seq needs the same length"),
        ("\"__import__('os')\",2,4", "holds a row that is no window"),
        ('"[1, 2",2,4', "holds a row that is no window"),
        ('"[1, 2, 30, 30]",two,4', "holds a row that is no window"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    dataset(tmp_path, bigrec_windows()[0])
    with (tmp_path / "test_data.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        read_windows(*(tmp_path / f"{name}_data.csv" for name in ("train", "val", "test")), item_count=ITEMS)


def test_missing_parts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no train_data\.csv or train_reconstructed\.csv"):
        find_window_files(tmp_path)
    dataset(tmp_path, bigrec_windows()[0])
    paths = [tmp_path / f"{name}_data.csv" for name in ("train", "val", "test")]
    with pytest.raises(DataError, match="no column 'who'"):
        read_windows(*paths, user_column="who")
    (tmp_path / "test_data.csv").write_text("seq,next\n[1],2\n")
    with pytest.raises(DataError, match="no column 'len_seq'"):
        read_windows(*paths)
