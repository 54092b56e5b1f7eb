from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.feature_extraction.text import TfidfVectorizer
from typer.testing import CliRunner

from recdistill.cli.simulate import simulated
from recdistill.data import SequenceDataset
from recdistill.data.simulator import ShopConfig, SimulatedShop, simulate, simulated_dataset, write_simulated
from recdistill.data.simulator_items import GENRES, PLATFORMS, coined, make_items
from recdistill.data.simulator_oracle import pessimistic_ranks, ranking_metrics, taste_beliefs
from recdistill.errors import ConfigError, DataError, RunError
from recdistill.types import PAD
from references import simulated_shop as naive

TINY = ShopConfig(
    users=30,
    items=40,
    events_per_user=5,
    min_events=4,
    genres=3,
    platforms=2,
    seed=3,
    cold_share=0.2,
    taste_drift=0.3,
)
MIDDLE = ShopConfig(users=1200, items=400, seed=5)


@pytest.fixture(scope="module")
def tiny() -> SimulatedShop:
    return simulate(TINY)


@pytest.fixture(scope="module")
def middle() -> SimulatedShop:
    return simulate(MIDDLE)


def taste_names(shop: SimulatedShop, taste: int) -> tuple[str, str]:
    genre, platform = divmod(taste, shop.config.platforms)
    return list(GENRES)[genre], PLATFORMS[platform]


def user_events(shop: SimulatedShop, user: int) -> slice:
    return slice(int(shop.log.offsets[user]), int(shop.log.offsets[user + 1]))


# ---- the log and the catalogue


def test_equal_configs_give_equal_shops_and_another_seed_another_one() -> None:
    first, again, other = simulate(TINY), simulate(TINY), simulate(ShopConfig(**{**vars(TINY), "seed": 4}))
    assert first.interactions.equals(again.interactions)
    assert first.items.equals(again.items)
    assert not first.interactions.equals(other.interactions)
    assert not first.items.equals(other.items)


def test_more_users_keep_the_catalogue(tiny: SimulatedShop) -> None:
    assert simulate(ShopConfig(**{**vars(TINY), "users": 60})).items.equals(tiny.items)


def test_nobody_buys_twice_or_before_the_release(middle: SimulatedShop) -> None:
    log = middle.interactions
    assert not log.select(pl.struct("user_id", "item_id").is_duplicated().any()).item()
    assert (middle.log.timestamps >= middle.model.released[middle.log.events]).all()
    inside = np.ones(len(log), dtype=bool)
    inside[middle.log.offsets[:-1]] = False
    assert (np.diff(middle.log.timestamps, prepend=0)[inside] > 0).all()


def test_numbers_of_events(middle: SimulatedShop) -> None:
    lengths = np.diff(middle.log.offsets)
    assert lengths.min() == MIDDLE.min_events
    assert lengths.max() <= MIDDLE.max_events
    assert abs(lengths.mean() - MIDDLE.events_per_user) < 0.6


def test_long_tail(middle: SimulatedShop) -> None:
    weight = np.sort(middle.model.weight)[::-1]
    slope = np.polyfit(np.log(np.arange(400) + 2.0), np.log(weight), 1)[0]
    assert slope == pytest.approx(-MIDDLE.popularity_exponent)
    counts = np.sort(np.bincount(middle.log.events, minlength=400))[::-1]
    assert counts[:40].sum() > 0.25 * counts.sum() > counts[-200:].sum()


def test_franchise_members_have_similar_popularity(middle: SimulatedShop) -> None:
    frame = middle.items.with_columns(weight=np.log(middle.model.weight))
    within = frame.group_by("franchise").agg(pl.col("weight").var(ddof=0), pl.len()).filter(pl.col("len") > 1)
    assert (within["weight"] * within["len"]).sum() / within["len"].sum() < 0.75 * frame["weight"].var(ddof=0)


def test_titles_are_unique_but_for_the_share_asked_for(middle: SimulatedShop) -> None:
    assert middle.items["title"].n_unique() == 400 - round(0.01 * 400)
    assert (
        simulate(ShopConfig(**{**vars(TINY), "duplicate_title_share": 0.0})).items["title"].n_unique() == 40
    )
    halved = simulate(ShopConfig(**{**vars(TINY), "duplicate_title_share": 0.5})).items
    assert halved["title"].n_unique() == 20


def test_titles_tell_franchise_instalment_edition_and_platform() -> None:
    items = simulate(ShopConfig(**{**vars(MIDDLE), "duplicate_title_share": 0.0})).items
    for row in items.iter_rows(named=True):
        number = f" {row['instalment']}" if row["instalment"] > 1 else ""
        edition = "" if row["edition"] == "Standard Edition" else f": {row['edition']}"
        assert row["title"] == f"{row['franchise']}{number}{edition} ({row['platform']})"
    assert items.group_by("franchise").agg(pl.col("genre").n_unique())["genre"].max() == 1


def test_names_stay_unique_when_the_words_run_out() -> None:
    options = {
        "genres": 2,
        "platforms": 1,
        "franchise_size": 1.0,
        "largest_franchise": 12,
        "duplicate_titles": 0,
    }
    items = make_items(3000, np.random.default_rng(0), **options)
    assert len(set(items.names)) == len(items.names) == 3000
    assert len({coined(number) for number in range(9000)}) == 9000


def test_cold_items_have_few_or_no_training_events(middle: SimulatedShop) -> None:
    assert len(middle.cold_items) == round(MIDDLE.cold_share * MIDDLE.items)
    dataset = middle.dataset("global-time")
    in_train = dataset.popularity[middle.cold_items]
    in_test = np.bincount(dataset.targets(dataset.rows("test")), minlength=400)[middle.cold_items]
    assert in_train.mean() < 0.1 * dataset.popularity.mean()
    assert (in_train == 0).mean() > 0.5
    assert in_test.sum() > 0
    assert len(simulate(ShopConfig(**{**vars(TINY), "cold_share": 0.0})).cold_items) == 0


# ---- the distribution


@pytest.mark.parametrize("history", [[], [0], [3, 17], [5, 9, 30, 11]])
def test_scores_are_the_naive_distribution(tiny: SimulatedShop, history: list[int]) -> None:
    now = int(np.quantile(tiny.log.timestamps, 0.9))  # some late items are open, some are not
    tastes = tiny.model.taste_count
    recent = np.full((tastes, 3), PAD)
    recent[:, : len(history[-3:])] = history[::-1][:3]
    bought = np.tile(np.array([*history, PAD]), (tastes, 1))
    scores = tiny.model.scores(np.eye(tastes), recent, bought, np.full(tastes, now))
    for taste in range(tastes):
        expected = naive.next_item(tiny, taste_names(tiny, taste), history, now)
        assert sum(expected) == pytest.approx(1)
        np.testing.assert_allclose(scores[taste] / scores[taste].sum(), expected, rtol=1e-10, atol=1e-15)


def test_without_restrictions_the_mixture_sums_to_one(middle: SimulatedShop) -> None:
    model, none = middle.model, np.full((middle.model.taste_count, 3), PAD)
    far = np.full(model.taste_count, np.iinfo(np.int64).max)
    filled = model.cell_mass > 0
    complete = filled & ((model.related @ ~filled) == 0)  # tastes whose own and related cells have items
    scores = model.scores(np.eye(model.taste_count), none, none, far)[complete]
    assert complete.sum() > 20
    np.testing.assert_allclose(scores.sum(axis=1), 1 - MIDDLE.follow)
    _, terms = model.follow_terms(np.tile(np.arange(400)[:, None], 3))
    alone = np.bincount(model.items.franchise)[model.items.franchise] == 1
    np.testing.assert_allclose(terms.sum(axis=1), np.where(alone, 0, MIDDLE.follow))
    np.testing.assert_allclose(model.transition.sum(axis=1), 1)
    assert model.weight.sum() == pytest.approx(1) == pytest.approx(model.first_taste.sum())


def test_draws_follow_the_distribution(tiny: SimulatedShop) -> None:
    count, taste, history = 40_000, 2, [5, 9, 30, 11]
    now = int(np.quantile(tiny.log.timestamps, 0.9))
    expected = np.array(naive.next_item(tiny, taste_names(tiny, taste), history, now))
    items = tiny.model.draw(
        np.full(count, taste),
        np.tile(history[::-1][:3], (count, 1)),
        np.tile(history, (count, 1)),
        np.full(count, now),
        np.random.default_rng(1),
    )
    found = np.bincount(items, minlength=40)
    assert (found[expected == 0] == 0).all()
    assert (expected == 0).sum() > len(history)  # late items among them
    assert chisquare(found[expected > 0], count * expected[expected > 0]).pvalue > 1e-3


def test_tastes_drift_to_related_genres_and_keep_the_platform(middle: SimulatedShop) -> None:
    genre, platform = np.divmod(middle.log.tastes, MIDDLE.platforms)
    inside = np.ones(len(genre), dtype=bool)
    inside[middle.log.offsets[:-1]] = False
    step = np.diff(genre, prepend=0)[inside] % MIDDLE.genres
    assert set(step.tolist()) == {0, 1, MIDDLE.genres - 1}
    assert abs((step != 0).mean() - MIDDLE.taste_drift) < 0.01
    assert (np.diff(platform, prepend=0)[inside] == 0).all()


# ---- the oracle


@pytest.mark.parametrize("split", ["global-time", "leave-one-out"])
def test_taste_oracle_is_the_naive_one(tiny: SimulatedShop, split: str) -> None:
    dataset = tiny.dataset(split, window=3)
    for part in ("valid", "test"):
        rows = dataset.rows(part)
        row_ids, ranks = tiny.oracle_ranks(dataset, part)
        assert (row_ids == dataset.row_ids[rows]).all()
        for row, found in zip(rows[:10], ranks[:10], strict=True):
            event = dataset.row_events[row]
            start = dataset.offsets[dataset.row_sequences[row]]
            history = dataset.events[start:event].tolist()
            taste = taste_names(tiny, int(tiny.log.tastes[event]))
            expected = naive.next_item(tiny, taste, history, int(dataset.timestamps[event]))
            assert found == naive.rank(expected, int(dataset.events[event]))


def test_history_oracle_is_the_naive_one(tiny: SimulatedShop) -> None:
    """The forward algorithm against the sum over all taste paths, after 0 to 3 purchases."""
    released = tiny.model.released
    at_a_release = released[tiny.cold_items].max() + np.arange(-3, 1)
    cases = [(np.flatnonzero(released == 0)[[4, 9, 2, 7]], at_a_release)]
    for user in (0, int(np.argmax(tiny.log.timestamps[tiny.log.offsets[:-1]]))):
        mine = user_events(tiny, user)
        cases.append((tiny.log.events[mine][:4], tiny.log.timestamps[mine][:4]))
    for events, times in cases:
        for step, belief in enumerate(taste_beliefs(tiny.model, events[None], times[None])):
            history = events[:step]
            recent = np.full((1, 3), PAD)
            recent[0, :step] = history[::-1][:3]
            scores = tiny.model.scores(belief, recent, np.append(history, PAD)[None], times[step, None])[0]
            assert scores.sum() == pytest.approx(1)  # the weights make it a probability, not only a score
            expected = naive.next_item_from_history(
                tiny, history.tolist(), times[:step].tolist(), int(times[step])
            )
            np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-15)


def test_history_ranks_use_the_history_distribution(tiny: SimulatedShop) -> None:
    dataset = tiny.dataset("leave-one-out")
    rows = dataset.rows("test")
    short = np.flatnonzero(dataset.history_lengths(rows) == 3)[:2]
    _, ranks = tiny.oracle_ranks(dataset, "test", "history")
    assert len(short)
    for place in short:
        event = dataset.row_events[rows[place]]
        history, times = dataset.events[event - 3 : event], dataset.timestamps[event - 3 : event + 1]
        expected = naive.next_item_from_history(tiny, history.tolist(), times[:-1].tolist(), int(times[-1]))
        assert ranks[place] == naive.rank(expected, int(dataset.events[event]))


def scorers(shop: SimulatedShop, dataset: SequenceDataset) -> dict[str, np.ndarray]:
    """Return (n, I) scores of simple models on the test rows; items of the history score nothing."""
    rows, count = dataset.rows("test"), dataset.item_count
    histories = dataset.histories(rows, 10)
    last = histories[np.arange(len(rows)), (histories != PAD).sum(axis=1) - 1]
    mask = dataset.train_event_mask[1:] & (
        np.diff(shop.interactions["user_id"].rank("dense").to_numpy()) == 0
    )
    follows = np.zeros((count, count))
    np.add.at(follows, (dataset.events[:-1][mask], dataset.events[1:][mask]), 1.0)
    follows /= np.maximum(follows.sum(axis=1, keepdims=True), 1)
    text = TfidfVectorizer(token_pattern=r"\b\w+\b").fit_transform(dataset.catalogue.titles)
    similar = (text @ text.T).toarray()
    popularity = np.tile(dataset.popularity / dataset.popularity.sum(), (len(rows), 1))
    found = {
        "random": np.random.default_rng(0).random(popularity.shape),
        "popularity": popularity,
        "transitions": follows[last] + 1e-3 * popularity,
        "text": similar[last] + 1e-3 * popularity,
        "both": np.sqrt(follows[last]) + 0.25 * similar[last] + 1e-3 * popularity,
    }
    owners, items = dataset.seen(rows)
    for scores in found.values():
        scores[owners, items] = -1.0
    return found


@pytest.mark.parametrize("split", ["global-time", "leave-one-out"])
def test_oracles_beat_every_scorer_and_titles_carry_signal(middle: SimulatedShop, split: str) -> None:
    dataset = middle.dataset(split)
    targets = dataset.targets(dataset.rows("test"))
    found = {
        name: ranking_metrics(pessimistic_ranks(scores, targets))["ndcg@20"]
        for name, scores in scorers(middle, dataset).items()
    }
    taste = ranking_metrics(middle.oracle_ranks(dataset, "test", "taste")[1])["ndcg@20"]
    history = ranking_metrics(middle.oracle_ranks(dataset, "test", "history")[1])["ndcg@20"]
    assert taste > history > 1.15 * max(found.values())
    assert found["text"] > 2 * found["popularity"]
    assert found["both"] > found["transitions"] > 2 * found["popularity"]


@pytest.mark.parametrize("oracle", ["taste", "history"])
def test_realised_hit_rate_is_what_the_distribution_promises(middle: SimulatedShop, oracle: str) -> None:
    """The sum of the 10 largest probabilities is the chance of a hit: so the oracle is calibrated."""
    dataset = middle.dataset("leave-one-out")
    rows = dataset.rows("test")
    histories = dataset.histories(rows, 64)
    steps = dataset.history_lengths(rows)
    recent = np.full((len(rows), 3), PAD)
    for lag in range(3):
        recent[:, lag] = histories[np.arange(len(rows)), steps - 1 - lag]
    now = dataset.timestamps[dataset.row_events[rows]]
    if oracle == "taste":
        belief = np.eye(middle.model.taste_count)[middle.log.tastes[dataset.row_events[rows]]]
    else:
        width = int(steps.max()) + 1
        bought = np.hstack([histories, np.full((len(rows), 1), PAD)])[:, :width]
        bought[np.arange(len(rows)), steps] = dataset.targets(rows)
        times = np.full(bought.shape, PAD)
        for place, row in enumerate(rows):
            end = dataset.row_events[row] + 1
            times[place, : steps[place] + 1] = dataset.timestamps[end - steps[place] - 1 : end]
        belief = np.empty((len(rows), middle.model.taste_count))
        for step, weights in enumerate(taste_beliefs(middle.model, bought, times)):
            belief[steps == step] = weights[steps == step]
    scores = middle.model.scores(belief, recent, histories, now)
    if oracle == "history":
        np.testing.assert_allclose(scores.sum(axis=1), 1)
    chance = np.sort(scores / scores.sum(axis=1, keepdims=True), axis=1)[:, -10:].sum(axis=1)
    hits = middle.oracle_ranks(dataset, "test", oracle)[1] < 10
    deviation = np.sqrt((chance * (1 - chance)).sum())
    assert abs(hits.sum() - chance.sum()) < 4 * deviation


def test_oracle_refuses_a_dataset_of_another_shop(tiny: SimulatedShop) -> None:
    other = simulate(ShopConfig(**{**vars(TINY), "seed": 9})).dataset()
    with pytest.raises(DataError, match="not cut from this simulated shop"):
        tiny.oracle_ranks(other, "test")


@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_ties_are_pessimistic(rows: int, items: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = rng.integers(0, 3, (rows, items)).astype(float), rng.integers(0, items, rows)
    expected = [naive.rank(scores[r].tolist(), int(targets[r])) for r in range(rows)]
    assert pessimistic_ranks(scores, targets).tolist() == expected


def test_metrics_of_known_ranks() -> None:
    metrics = ranking_metrics(np.array([0, 3, 30]), ks=(1, 20))
    assert metrics["hr@1"] == pytest.approx(1 / 3)
    assert metrics["hr@20"] == pytest.approx(2 / 3)
    assert metrics["ndcg@20"] == pytest.approx((1 + 1 / np.log2(5)) / 3)
    assert metrics["mrr@20"] == pytest.approx((1 + 1 / 4) / 3)
    assert ranking_metrics(np.array([], dtype=np.int64)) == {}


# ---- datasets and folders


def test_dataset_is_labelled_as_simulated() -> None:
    dataset = simulated_dataset(TINY, "leave-one-out")
    assert dataset.provenance["simulated"] is True
    assert ShopConfig(**dataset.provenance["simulator"]) == TINY
    for split in ("valid", "test"):
        oracle = dataset.provenance["oracle"][split]
        assert set(oracle) == {"taste", "history"}
        assert 0 < oracle["taste"]["ndcg@20"] <= oracle["taste"]["hr@20"] <= 1
    json.dumps(dict(dataset.provenance), allow_nan=False)


def test_catalogue_holds_every_item_in_the_shops_order(tiny: SimulatedShop) -> None:
    catalogue = tiny.dataset().catalogue
    assert catalogue.raw_ids == tiny.items["item_id"].to_list()
    assert catalogue.titles == tiny.items["title"].to_list()


def test_folder_holds_the_ranks_behind_the_metrics(tmp_path: Path) -> None:
    written = write_simulated(TINY, tmp_path / "shop", "leave-one-out", name="shop")
    dataset = SequenceDataset.load(tmp_path / "shop")
    assert dataset.fingerprint == written.fingerprint
    table = pl.read_parquet(tmp_path / "shop" / "oracle.parquet")
    assert table.columns == ["row_id", "split", "rank", "rank_history"]
    test = table.filter(pl.col("split") == "test")
    assert test["row_id"].to_list() == dataset.row_ids[dataset.rows("test")].tolist()
    assert dataset.provenance["oracle"]["test"]["taste"] == ranking_metrics(test["rank"].to_numpy())
    with pytest.raises(RunError, match="already exists"):
        write_simulated(TINY, tmp_path / "shop")


def test_a_big_shop_takes_seconds() -> None:
    """0.6 s here; a step that built (users, items) would take minutes and gigabytes."""
    start = time.process_time()
    shop = simulate(ShopConfig(users=30_000, items=5_000))
    assert time.process_time() - start < 10
    assert len(shop.items) == 5_000
    assert len(shop.interactions) == pytest.approx(360_000, rel=0.02)


def test_command_writes_the_folder_and_names_the_ceiling(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(simulated)
    out = str(tmp_path / "shop")
    options = ["--users", "80", "--items", "60", "--events", "6", "--seed", "2", "--split", "leave-one-out"]
    result = CliRunner().invoke(app, ["--out", out, *options])
    assert result.exit_code == 0, result.output
    dataset = SequenceDataset.load(out)
    expected = ShopConfig(users=80, items=60, events_per_user=6, seed=2)
    assert ShopConfig(**dataset.provenance["simulator"]) == expected
    ceiling = dataset.provenance["oracle"]["test"]["taste"]["ndcg@20"]
    assert "SIMULATED" in result.output
    assert f"NDCG@20 {ceiling:.4f}" in result.output
    assert isinstance(CliRunner().invoke(app, ["--out", out, *options]).exception, RunError)
    assert CliRunner().invoke(app, ["--out", out, "--overwrite", *options]).exit_code == 0


# ---- wrong configs


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("users", 1, "users is 1. Allowed: a whole number from 2"),
        ("items", 39, "items is 39"),
        ("items", 100.5, "whole number"),
        ("genres", 13, "from 1 to 12"),
        ("platforms", 0, "from 1 to 4"),
        ("seed", -1, "seed is -1"),
        ("taste_drift", 1.2, "from 0 to 1"),
        ("popularity_exponent", float("nan"), "popularity_exponent is nan"),
        ("cold_share", 0.6, "from 0 to 0.5"),
        ("follow", 0.5, "sum 1.1"),
        ("events_per_user", 4.0, "below min_events 5"),
        ("events_per_user", 251.0, "quarter of the items. Use --items 1004"),
    ],
)
def test_wrong_options_are_refused(option: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShopConfig(**{option: value})


def test_popularity_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="popularity above 0"):
        ShopConfig(follow=0.5, taste=0.4, explore=0.1, popularity=0.0)


def test_unknown_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'global-time'"):
        simulated_dataset(TINY, "global_time")


@pytest.mark.parametrize(
    "options",
    [
        {"genres": 1, "platforms": 1},
        {"genres": 2, "platforms": 4},
        {"follow": 0.0, "popularity": 0.6},
        {"popularity_exponent": 0.0},
        {"popularity_exponent": 1.5},
        {"events_per_user": 10.0},
        {"events_per_user": 4.0},
        {"franchise_size": 1.0},
        {"cold_share": 0.5},
    ],
)
def test_extreme_shops_open(options: dict[str, float]) -> None:
    dataset = simulated_dataset(ShopConfig(**{**vars(TINY), **options}))
    assert len(dataset.rows("test")) > 0
    assert all(np.isfinite(list(m.values())).all() for m in dataset.provenance["oracle"]["test"].values())
