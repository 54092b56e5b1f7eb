"""Cutting a log into train, valid and test rows.

`leave_one_out`: of each sequence the last event is a test row, the last but one a valid row.
`global_time`: BIGRec's rule, which DLLM2Rec follows. With n events and window L, a user's events at
positions ``min(L, n - 1) .. n - 1`` become targets; all windows are sorted by the time of their target; the
first 80 % are train, the next 10 % valid, the last 10 % test. A user can be in all three.

Both number the rows before anything is sampled, so a sample is joined with a teacher that saw more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from recdistill.data.catalogue import Catalogue, sorted_ids
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import SPLIT_NAMES, SequenceDataset
from recdistill.errors import DataError
from recdistill.types import SPLITS, Split

Ints = npt.NDArray[np.int64]
TiePolicy = Literal["index", "push_to_later"]

TRAIN, VALID, TEST, PREFIX_CODE = range(len(SPLIT_NAMES))


@dataclass(frozen=True, eq=False)
class Sequences:
    """The log as one table of events, sequence after sequence.

    Attributes
    ----------
    items, times
        ``(E,)`` item index; seconds, or None without timestamps.
    offsets
        ``(U + 1,)`` where each sequence starts. Users stand in the order of `sorted_ids`.
    """

    items: Ints
    offsets: Ints
    times: Ints | None

    @property
    def owners(self) -> Ints:
        """``(E,)`` the sequence of each event."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @property
    def positions(self) -> Ints:
        """``(E,)`` 0-based place of each event in its sequence."""
        return np.arange(len(self.items)) - self.offsets[self.owners]


def to_sequences(interactions: Interactions, catalogue: Catalogue) -> Sequences:
    """Sort each user's events by time; events of the same second keep the order of the log.

    Raises
    ------
    DataError
        An item of the log is not in the catalogue.
    """
    frame = interactions.frame
    users = _codes(frame["user_id"], sorted_ids(frame["user_id"]))
    names = pl.Series(catalogue.raw_ids, dtype=pl.String)
    items = _codes(frame["item_id"], names.cast(frame.schema["item_id"], strict=False))
    if items.null_count():
        raw = frame["item_id"].filter(items.is_null())[0]
        raise DataError(
            f"item {raw!r} of the log is not in the catalogue. Build it with Catalogue.from_items."
        )
    table = pl.DataFrame({"user": users, "item": items})
    keys = ["user"]
    if interactions.has_time:
        table = table.with_columns(time=frame["timestamp"])
        keys.append("time")
    table = table.sort(keys, maintain_order=True)
    counts = np.bincount(table["user"].to_numpy())
    return Sequences(
        items=table["item"].cast(pl.Int64).to_numpy().copy(),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        times=table["time"].to_numpy().copy() if interactions.has_time else None,
    )


def _codes(values: pl.Series, numbered: pl.Series) -> pl.Series:
    """Return each value's place in `numbered`, null where it has none."""
    table = pl.DataFrame({"id": numbered, "code": np.arange(len(numbered), dtype=np.int32)})
    return values.rename("id").to_frame().join(table, on="id", how="left", maintain_order="left")["code"]


def leave_one_out(
    interactions: Interactions,
    catalogue: Catalogue,
    *,
    sample: Mapping[Split, int] | None = None,
    seed: int = 42,
    provenance: Mapping[str, Any] | None = None,
) -> SequenceDataset:
    """Give each sequence's last event to test, the last but one to valid, all between to train.

    A sequence of two events gives one train row only, one of a single event none. Row ids count the rows in
    the order of the events.

    Parameters
    ----------
    interactions
        The log.
    catalogue
        Its items.
    sample
        Keep at most so many rows of a split, drawn without replacement.
    seed
        Of the sample.
    provenance
        Added to the dataset's manifest.
    """
    data = to_sequences(interactions, catalogue)
    sizes = np.diff(data.offsets)
    targets = np.flatnonzero(data.positions > 0)
    last = (data.offsets[1:] - 1)[data.owners[targets]]
    long_enough = (sizes >= 3)[data.owners[targets]]
    splits = np.full(len(targets), TRAIN, dtype=np.int8)
    splits[long_enough & (targets == last - 1)] = VALID
    splits[long_enough & (targets == last)] = TEST
    rule = {
        "kind": "leave-one-out",
        "sequences_without_rows": int((sizes == 1).sum()),
        "sequences_with_train_rows_only": int((sizes == 2).sum()),
    }
    rows = Rows(np.arange(len(targets)), targets, splits)
    return _dataset(data, catalogue, rows, rule, sample, seed, interactions, provenance)


def global_time(
    interactions: Interactions,
    catalogue: Catalogue,
    *,
    window: int = 10,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
    only_full: bool = False,
    tie_policy: TiePolicy = "index",
    sample: Mapping[Split, int] | None = None,
    seed: int = 42,
    provenance: Mapping[str, Any] | None = None,
) -> SequenceDataset:
    """Cut windows by BIGRec's rule and split them by the time of their target.

    Row ids are the positions in the chronological order of all windows. After them come the prefix rows: the
    events of a user with windows before his first target, as far as they happened strictly before the first
    valid or test target of the whole dataset; so what is learned from them lies before every question asked.

    Parameters
    ----------
    interactions
        The log, with timestamps.
    catalogue
        Its items.
    window
        L of the windowing rule. Longer histories can still be read from the dataset.
    ratios
        Shares of train, valid and test.
    only_full
        MovieLens rule: only users with more than L events, whose first L events are never targets.
    tie_policy
        ``"index"`` cuts by position, as the authors do, so that one second can lie on both sides of a border;
        ``"push_to_later"`` moves the rows of that second to the later split.
    sample
        Keep at most so many rows of a split, drawn without replacement. Prefix rows are sampled at the rate
        of the train rows.
    seed
        Of the sample.
    provenance
        Added to the dataset's manifest.

    Raises
    ------
    DataError
        There are no timestamps, an option is out of range, or no user has two events.
    """
    _check_options(window, ratios, tie_policy)
    data = to_sequences(interactions, catalogue)
    if data.times is None:
        raise DataError(
            "global-time needs timestamps, and this source gives only the order of each user's events. "
            "Allowed without them: --split leave-one-out."
        )
    sizes, owners, positions = np.diff(data.offsets), data.owners, data.positions
    first = np.full(len(sizes), window) if only_full else np.minimum(window, np.maximum(sizes - 1, 1))
    targets = np.flatnonzero(positions >= first[owners])
    if not len(targets):
        raise DataError(
            f"no user has more than {window if only_full else 1} events, so there are no windows."
        )
    targets = targets[np.argsort(data.times[targets], kind="stable")]
    cuts = _cuts(data.times[targets], ratios, tie_policy)
    splits = np.repeat(np.array([TRAIN, VALID, TEST], dtype=np.int8), np.diff([0, *cuts, len(targets)]))
    held_out = data.times[targets[cuts[0]]] if cuts[0] < len(targets) else np.iinfo(np.int64).max
    with_windows = sizes > first
    is_prefix = (positions > 0) & (positions < first[owners]) & with_windows[owners] & (data.times < held_out)
    prefixes = np.flatnonzero(is_prefix)
    rows = Rows(
        np.arange(len(targets) + len(prefixes)),
        np.concatenate([targets, prefixes]),
        np.concatenate([splits, np.full(len(prefixes), PREFIX_CODE, dtype=np.int8)]),
    )
    rule = {
        "kind": "global-time",
        "window": window,
        "ratios": list(ratios),
        "only_full": only_full,
        "tie_policy": tie_policy,
        "windows": len(targets),
        "sequences_without_rows": int((~with_windows).sum()),
    }
    return _dataset(data, catalogue, rows, rule, sample, seed, interactions, provenance)


def _check_options(window: int, ratios: tuple[float, float, float], tie_policy: str) -> None:
    if window < 1:
        raise DataError(f"window is {window}. Allowed: 1 or more. Pass --window 10.")
    if len(ratios) != 3 or min(ratios) < 0 or ratios[0] <= 0 or abs(sum(ratios) - 1) > 1e-6:
        raise DataError(f"ratios are {ratios}. Allowed: three shares that add up to 1, the first above 0.")
    if tie_policy not in ("index", "push_to_later"):
        raise DataError(f"tie_policy is {tie_policy!r}. Allowed: index, push_to_later.")


def _cuts(times: Ints, ratios: tuple[float, float, float], tie_policy: str) -> tuple[int, int]:
    """Return where valid and test begin in the ascending `times`."""
    count = len(times)
    cuts = [int(ratios[0] * count), int((ratios[0] + ratios[1]) * count)]
    if tie_policy == "push_to_later":
        cuts = [int(np.searchsorted(times, times[cut])) if cut < count else cut for cut in cuts]
    return cuts[0], cuts[1]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows before sampling: ``(R,)`` ascending ids, index of the target event, split code."""

    ids: Ints
    events: Ints
    splits: npt.NDArray[np.int8]


def _sampled(rows: Rows, sample: Mapping[Split, int] | None, seed: int) -> tuple[Rows, dict[str, int]]:
    """Keep at most ``sample[split]`` rows of each split; the draw of one split does not move another."""
    keep = np.ones(len(rows.ids), dtype=bool)
    wanted: dict[str, int] = {name: int(count) for name, count in (sample or {}).items()}
    for name, count in wanted.items():
        if name not in SPLITS or count < 1:
            raise DataError(f"sample {name}={count}. Allowed: 1 or more rows of train, valid or test.")
    for code, name in enumerate(SPLIT_NAMES):
        members = np.flatnonzero(rows.splits == code)
        if code == PREFIX_CODE and "train" in wanted:
            train = int((rows.splits == TRAIN).sum())
            wanted[name] = round(len(members) * min(1.0, wanted["train"] / max(train, 1)))
        if name in wanted and wanted[name] < len(members):
            chosen = np.random.default_rng([seed, code]).choice(len(members), wanted[name], replace=False)
            keep[members] = False
            keep[members[chosen]] = True
    return Rows(rows.ids[keep], rows.events[keep], rows.splits[keep]), wanted


def _dataset(
    data: Sequences,
    catalogue: Catalogue,
    rows: Rows,
    rule: dict[str, Any],
    sample: Mapping[Split, int] | None,
    seed: int,
    interactions: Interactions,
    provenance: Mapping[str, Any] | None,
) -> SequenceDataset:
    """Sample the rows and leave out the sequences that no row points into."""
    rows, drawn = _sampled(rows, sample, seed)
    owners = data.owners
    used = np.zeros(len(data.offsets) - 1, dtype=bool)
    used[owners[rows.events]] = True
    kept = used[owners]
    new_event = np.cumsum(kept) - 1
    new_sequence = np.cumsum(used) - 1
    if drawn:
        rule |= {"sample": drawn, "seed": seed}
    counts = {**interactions.counts(), "rows": _row_counts(rows.splits)}
    return SequenceDataset(
        catalogue=catalogue,
        events=data.items[kept],
        offsets=np.concatenate([[0], np.cumsum(np.diff(data.offsets)[used])]).astype(np.int64),
        row_ids=rows.ids,
        row_events=new_event[rows.events],
        row_sequences=new_sequence[owners[rows.events]],
        row_splits=rows.splits,
        provenance={
            "source": dict(interactions.provenance),
            "split": rule,
            "counts": counts,
            **(provenance or {}),
        },
        timestamps=None if data.times is None else data.times[kept],
    )


def _row_counts(splits: npt.NDArray[np.int8]) -> dict[str, int]:
    return dict(zip(SPLIT_NAMES, np.bincount(splits, minlength=len(SPLIT_NAMES)).tolist(), strict=True))
