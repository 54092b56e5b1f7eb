import numpy as np
import pytest
import torch

from recdistill.errors import ConfigError
from recdistill.teachers.grounding import grounder as grounding
from recdistill.teachers.grounding.beams import TitleIndex, check_beam_rule
from recdistill.teachers.grounding.grounder import METRICS, Grounder
from references.grounding import beams_first, distances, rankings, target_ranks

N, COUNT, D, K = 30, 50, 12, 7


@pytest.fixture
def shop():
    """Vectors with a large common mean, duplicates, items without a title, exact hits and whole histories."""
    rng = np.random.default_rng(0)
    items = (rng.standard_normal((COUNT, D)) + 40).astype(np.float32)
    items[[9, 30, 44]] = items[3]
    usable = np.ones(COUNT, dtype=bool)
    usable[[5, 17]] = False
    items[~usable] = 0
    queries = (rng.standard_normal((N, D)) + 40).astype(np.float32)
    queries[4], queries[5] = items[3], items[20]
    targets = rng.integers(0, COUNT, N)
    targets[:6] = [5, 9, 3, 44, 30, 20]
    histories = [rng.integers(0, COUNT, 8).tolist() for _ in range(N)]
    histories[4] = [3, 9, 9, 12]
    histories[5] = [20, 5]
    histories[1], histories[6] = [20, 7], [1, 2, 4, 8]
    owners = np.repeat(np.arange(N), [len(h) for h in histories])
    return queries, items, usable, targets, histories, (owners, np.concatenate(histories))


def naive(shop, metric):
    queries, items, usable, targets, histories, _ = shop
    exact = distances(queries, items, metric)
    exact[:, [9, 30, 44]] = exact[:, [3]]  # one vector, one distance
    return exact, rankings(exact, usable), target_ranks(exact, usable, targets, histories, 1e-12)


@pytest.mark.parametrize("chunk", [1, 170, 1 << 20])
@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_agrees_with_its_definition(shop, metric, chunk, monkeypatch):
    monkeypatch.setattr(grounding, "CHUNK_ELEMENTS", chunk)
    monkeypatch.setattr(grounding, "DIFFERENCE_ELEMENTS", 200)
    queries, items, usable, targets, _, seen = shop
    exact, lists, (kept, unseen) = naive(shop, metric)
    found = Grounder(items, usable, metric=metric, device="cpu").ground(queries, targets, seen, top_k=K)
    np.testing.assert_array_equal(found.ranking, [row[:K] for row in lists])
    expected = np.take_along_axis(exact, found.ranking.astype(int), axis=1)
    np.testing.assert_allclose(found.ranking_distance, expected, rtol=2e-5, atol=1e-7)
    assert (np.diff(found.ranking_distance) >= 0).all()
    titled = usable[targets]
    np.testing.assert_allclose(
        found.target_distance[titled], exact[np.arange(N), targets][titled], rtol=2e-5, atol=1e-7
    )
    assert np.isnan(found.target_distance[~titled]).all()
    np.testing.assert_array_equal(found.target_rank, kept)
    np.testing.assert_array_equal(found.target_rank_unseen, unseen)
    assert found.ranking.dtype == found.target_rank.dtype == np.int32
    assert found.ranking_distance.dtype == np.float32


def test_a_generated_title_ranks_its_item_first_at_distance_zero(shop):
    queries, items, usable, targets, _, seen = shop
    found = Grounder(items, usable, device="cpu").ground(queries, targets, seen, top_k=K)
    np.testing.assert_array_equal(found.ranking[4, :4], [3, 9, 30, 44])  # duplicates tie, by item
    np.testing.assert_array_equal(found.ranking_distance[4, :4], 0)
    assert found.target_distance[4] == 0
    assert found.target_rank[4] == 3  # the target is 30: all four tie, and ties count against it
    assert found.target_rank_unseen[4] == 1  # 3 and 9 are in the history
    assert found.ranking[5, 0] == 20
    assert found.ranking_distance[5, 0] == 0
    assert found.target_rank[5] == found.target_rank_unseen[5] == 0


def test_a_target_without_title_stands_last(shop):
    queries, items, usable, targets, histories, seen = shop
    found = Grounder(items, usable, device="cpu").ground(queries, targets, seen, top_k=COUNT)
    assert targets[0] == 5
    assert found.target_rank[0] == COUNT - 1
    assert found.target_rank_unseen[0] == COUNT - 1 - len(set(histories[0]) - {5})
    assert (found.ranking[:, -2:] == -1).all()  # the list ends where the titles end
    assert np.isnan(found.ranking_distance[:, -2:]).all()
    assert not np.isin(found.ranking, [5, 17]).any()


def test_half_precision_digits_are_not_lost_to_a_large_mean():
    rng = np.random.default_rng(1)
    items = (rng.standard_normal((400, 64)) * 0.05 + 30).astype(np.float32)
    queries = items[:100] + (rng.standard_normal((100, 64)) * 0.01).astype(np.float32)
    seen = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    found = Grounder(items, device="cpu").ground(queries, np.arange(100), seen, top_k=10)
    exact = distances(queries, items, "l2")
    np.testing.assert_array_equal(found.ranking, np.argsort(exact, axis=1)[:, :10])
    np.testing.assert_array_equal(found.target_rank, (exact < np.diagonal(exact[:, :100])[:, None]).sum(1))


def test_more_ties_than_the_margin_are_still_in_order(monkeypatch):
    monkeypatch.setattr(grounding, "MARGIN", 1)
    rng = np.random.default_rng(2)
    items = np.repeat(rng.standard_normal((3, 6)), 30, axis=0).astype(np.float32)[rng.permutation(90)]
    queries = rng.standard_normal((5, 6)).astype(np.float32)
    seen = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    found = Grounder(items, device="cpu").ground(queries, np.arange(5), seen, top_k=4)
    for query, row, rank in zip(queries, found.ranking, found.target_rank, strict=True):
        exact = ((query - items) ** 2).sum(1)
        nearest = np.flatnonzero(np.isclose(exact, exact.min()))
        np.testing.assert_array_equal(row, nearest[:4])
        assert (rank + 1) % 30 == 0


def test_beams_come_first_in_their_order(shop):
    queries, items, usable, targets, histories, seen = shop
    targets = targets.copy()
    named = np.full((N, 3), -1)
    beams = np.full((N, 3), -1)
    named[1], beams[1] = [20, 3, 9], [0, 1, 1]  # a title that 3 and 9 share
    named[2, :1], beams[2, :1] = [11], [2]
    named[6], beams[6] = [1, 2, 4], [0, 1, 2]
    targets[[1, 2, 6]] = [3, 11, 40]
    exact, lists, (kept, unseen) = naive((queries, items, usable, targets, histories, seen), "l2")
    plain = Grounder(items, usable, device="cpu").ground(queries, targets, seen, top_k=K)
    found = Grounder(items, usable, device="cpu").ground(
        queries, targets, seen, top_k=K, beams=(named, beams)
    )
    for row in (1, 2, 6):
        items_, values = beams_first(lists[row], exact[row], [i for i in named[row] if i != -1])
        np.testing.assert_array_equal(found.ranking[row], items_[:K])
        np.testing.assert_allclose(found.ranking_distance[row], values[:K], rtol=1e-5)
        assert (np.diff(found.ranking_distance[row]) >= 0).all()
    assert found.target_rank[1] == 2  # 3 and 9 tie behind 20
    assert found.target_rank_unseen[1] == 1  # 20 is in the history
    assert found.target_rank[2] == 0
    behind = [i for i in (1, 2, 4) if exact[6, i] > exact[6, 40]]
    assert behind
    assert found.target_rank[6] == kept[6] + len(behind)
    assert found.target_rank_unseen[6] == unseen[6] + len(set(behind) - set(histories[6]))
    others = [row for row in range(N) if row not in (1, 2, 6)]
    for name, array in plain.arrays.items():
        np.testing.assert_array_equal(found.arrays[name][others], array[others])


def test_titles_are_found_exactly_and_loosely():
    index = TitleIndex(["Zelda", "", "Mario Kart", "Zelda", "ICO"])
    assert index.exact("Zelda") == [0, 3]
    assert index.exact("zelda") == index.exact("") == []
    assert index.valid("mario-kart!")
    assert not index.valid("")
    assert not index.valid("Mario")
    items, beams = index.named([["ICO", "nonsense", "Zelda", "ICO"], ["?"], ["Zelda"]])
    np.testing.assert_array_equal(items, [[4, 0, 3], [-1, -1, -1], [0, 3, -1]])
    np.testing.assert_array_equal(beams, [[0, 2, 2], [-1, -1, -1], [0, 0, -1]])


def test_mistakes_are_explained(shop):
    queries, items, _, targets, _, seen = shop
    with pytest.raises(ConfigError, match="Did you mean 'cosine'"):
        Grounder(items, metric="cosin")
    with pytest.raises(ConfigError, match="at least one item with a title"):
        Grounder(items, np.zeros(COUNT, dtype=bool))
    with pytest.raises(ConfigError, match="one encoder"):
        Grounder(items).ground(queries[:, :3], targets, seen)
    with pytest.raises(ConfigError, match="--top-k"):
        Grounder(items).ground(queries, targets, seen, top_k=0)
    queries[0, 0] = np.nan
    with pytest.raises(ConfigError, match="not finite"):
        Grounder(items).ground(queries, targets, seen)
    with pytest.raises(ConfigError, match="beam rule"):
        check_beam_rule("best")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_gives_the_same_ranking(shop):
    queries, items, usable, targets, _, seen = shop
    on_cpu, on_gpu = (
        Grounder(items, usable, device=device).ground(queries, targets, seen, top_k=K)
        for device in ("cpu", "cuda")
    )
    np.testing.assert_array_equal(on_cpu.ranking, on_gpu.ranking)
    np.testing.assert_array_equal(on_cpu.target_rank, on_gpu.target_rank)
