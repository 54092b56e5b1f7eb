"""The time of a teacher's answers adds up over the runs that made them."""

import time

import pytest

from recdistill.teachers.answer_time import clocked, seconds_per_row


def test_runs_add_up(tmp_path):
    assert seconds_per_row(tmp_path) is None
    for rows in (10, 30, 0):
        with clocked(tmp_path, rows):
            time.sleep(0.02)
    assert 0.04 / 40 <= seconds_per_row(tmp_path) < 0.5


def test_a_broken_block_counts_nothing(tmp_path):
    with pytest.raises(RuntimeError), clocked(tmp_path, 5):
        raise RuntimeError
    assert seconds_per_row(tmp_path) is None
