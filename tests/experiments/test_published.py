from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recdistill.data.statistics import PUBLISHED
from recdistill.experiments.published import (
    STRATEGY_ROWS,
    TABLES,
    TEACHER,
    match_dataset,
    published_gain,
)
from shop import ring_dataset


@pytest.mark.parametrize(
    ("row", "gain"),
    [
        ("dllm2rec", 0.479),
        ("dcd", 0.286),
        ("rd", 0.272),
        ("rrd", 0.202),
        ("unkd", 0.167),
        ("cd", 0.030),
        ("hint", -0.057),
        ("htd", -0.082),
    ],
)
def test_mean_gains_are_those_recomputed_from_the_paper(row, gain):
    found = [published_gain(key, student, row) for key in TEACHER for student in TABLES["table5"]]
    assert np.mean(found) == pytest.approx(gain, abs=6e-4)


def test_every_student_has_every_line_and_the_ablations_end_in_the_line_of_table_5():
    for rows in TABLES["table5"].values():
        assert tuple(rows) == STRATEGY_ROWS
    for table in ("table7", "table8"):
        assert TABLES[table]["dros"]["DLLM2Rec"] == TABLES["table5"]["dros"]["dllm2rec"]


def test_printed_gains_over_the_student():
    """The line Gain.S of Table 5, HR on Games: 46.17 %, 73.55 %, 58.77 %."""
    for student, printed in (("gru4rec", 0.4617), ("sasrec", 0.7355), ("dros", 0.5877)):
        rows = TABLES["table5"][student]
        assert rows["dllm2rec"]["games"][0] / rows["none"]["games"][0] - 1 == pytest.approx(printed, abs=6e-3)


class _Counts:
    """A dataset of which only name, counts and split are asked."""

    def __init__(self, name, items, users, kind):
        self.name, self.item_count = name, items
        self.provenance = {"counts": {"users": users}, "split": {"kind": kind}, "source": {}}


@pytest.mark.parametrize(
    ("data", "seen", "key", "why"),
    [
        (_Counts("toys", 11_924, 19_412, "global-time"), False, "toys", "BIGRec"),
        (_Counts("toys", 11_758, 19_124, "global-time"), False, "toys", "here 11,758"),
        (_Counts("game", 17_408, 34_658, "official-windows"), False, "games", "training windows"),
        (_Counts("toys", 11_924, 19_412, "leave-one-out"), False, None, "leave-one-out"),
        (_Counts("toys", 11_924, 19_412, "global-time"), True, None, "filtered"),
        (_Counts("toys", 9_000, 19_412, "global-time"), False, None, "9,000 items"),
        (_Counts("toys", 11_924, 12_000, "global-time"), False, None, "12,000 users"),
        (_Counts("books", 11_924, 19_412, "global-time"), False, None, "none of the paper's"),
    ],
)
def test_published_figures_only_beside_the_same_question(data, seen, key, why):
    match = match_dataset(data, filter_seen=seen)
    assert match.key == key
    assert why in match.text
    pair = match.pair("table5", "sasrec", "rd")
    assert pair == (None if key is None else TABLES["table5"]["sasrec"]["rd"][key])


def test_a_dataset_of_ones_own_has_no_published_figures():
    assert match_dataset(ring_dataset(), filter_seen=True).key is None
    assert (
        replace(match_dataset(ring_dataset(), filter_seen=True), key="toys").pair("table5", "x", "rd") is None
    )
    assert set(TEACHER) == set(PUBLISHED)
