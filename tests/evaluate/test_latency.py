from __future__ import annotations

import gc

import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.evaluate import compare_latency, measure_latency
from recdistill.evaluate.latency import single_thread


def work(count):
    def call():
        total = 0
        for k in range(count):
            total += k
        return total

    return call


def test_twice_the_work_takes_about_twice_the_time():
    found = compare_latency({"one": work(20_000), "two": work(40_000)}, repeats=60)
    assert found.reference == "one"
    assert found.ratios["one"] == found.wall_ratios["one"] == 1.0
    assert 1.5 < found.ratios["two"] < 2.7


def test_the_reference_can_be_chosen():
    found = compare_latency({"one": work(1000), "two": work(9000)}, repeats=20, reference="two")
    assert found.ratios["one"] < 0.5


def test_percentiles_are_ordered_and_positive():
    found = measure_latency(work(1000), repeats=50)
    assert 0 < found.p50 <= found.p99
    assert 0 < found.cpu_p50 <= found.cpu_p99
    assert found.repeats == 50


def test_every_call_runs_once_a_round():
    calls = []
    compare_latency({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=8, warmup=2)
    assert calls.count("a") == calls.count("b") == 10
    assert {tuple(calls[4:][k : k + 2]) for k in range(0, 16, 2)} == {("a", "b"), ("b", "a")}


def test_one_thread_within_and_all_restored_after():
    before = torch.get_num_threads()
    seen = []
    measure_latency(lambda: seen.append((torch.get_num_threads(), gc.isenabled())), repeats=3, warmup=0)
    assert seen == [(1, False)] * 3
    assert torch.get_num_threads() == before
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure_latency(lambda: 1 / 0, repeats=1)
    assert gc.isenabled()
    with single_thread():
        assert torch.get_num_threads() == 1


def test_wrong_arguments_are_refused():
    for arguments in (
        {"calls": {}},
        {"calls": {"a": work(1)}, "repeats": 0},
        {"calls": {"a": work(1)}, "reference": "b"},
    ):
        with pytest.raises(ConfigError, match="cannot compare"):
            compare_latency(**arguments)
