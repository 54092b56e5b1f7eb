"""Leave-one-out and BIGRec's global-time rule, one user and one window at a time."""

from __future__ import annotations

Event = tuple[object, object, int]  # user, item, time
Row = tuple[str, tuple[object, ...], object, int]  # split, history, target, row id


def by_user(events: list[Event]) -> dict[object, list[tuple[object, int]]]:
    """Each user's (item, time), oldest first, ties in the order of the log; users sorted."""
    users: dict[object, list[tuple[object, int]]] = {}
    for user, item, time in events:
        users.setdefault(user, []).append((item, time))
    return {user: sorted(users[user], key=lambda pair: pair[1]) for user in sorted(users)}


def leave_one_out(events: list[Event]) -> list[Row]:
    rows: list[Row] = []
    for sequence in by_user(events).values():
        items = [item for item, _ in sequence]
        for position in range(1, len(items)):
            split = "train"
            if len(items) >= 3 and position == len(items) - 1:
                split = "test"
            elif len(items) >= 3 and position == len(items) - 2:
                split = "valid"
            rows.append((split, tuple(items[:position]), items[position], len(rows)))
    return rows


def global_time(
    events: list[Event], window: int, *, only_full: bool = False, later: bool = False
) -> list[Row]:
    windows: list[tuple[int, tuple[object, ...], object]] = []
    early: list[tuple[int, tuple[object, ...], object]] = []
    for sequence in by_user(events).values():
        n = len(sequence)
        if n < 2 or (only_full and n <= window):
            continue
        first = window if only_full else min(window, n - 1)
        for position in range(1, n):
            row = (
                sequence[position][1],
                tuple(item for item, _ in sequence[:position]),
                sequence[position][0],
            )
            (windows if position >= first else early).append(row)
    windows.sort(key=lambda row: row[0])
    a, b = int(0.8 * len(windows)), int(0.9 * len(windows))
    if later:
        while 0 < a < len(windows) and windows[a - 1][0] == windows[a][0]:
            a -= 1
        while 0 < b < len(windows) and windows[b - 1][0] == windows[b][0]:
            b -= 1
    rows: list[Row] = []
    for place, (_, history, target) in enumerate(windows):
        rows.append(("train" if place < a else "valid" if place < b else "test", history, target, place))
    held_out = windows[a][0] if a < len(windows) else None
    number = len(windows)
    for time, history, target in early:
        if held_out is None or time < held_out:
            rows.append(("prefix", history, target, number))
            number += 1
    return rows
