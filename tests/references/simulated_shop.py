"""The simulated shop's next-item distribution, item by item and taste path by taste path."""

from __future__ import annotations

from itertools import pairwise, product

from recdistill.data.simulator import SimulatedShop
from recdistill.data.simulator_items import GENRES, PLATFORMS


def follow_probability(rows: list[dict], item: int, last: int) -> float:
    """f(item | last): prefers the next instalment, and the same platform."""

    def kernel(other: int) -> float:
        if other == last or rows[other]["franchise"] != rows[last]["franchise"]:
            return 0.0
        step = rows[other]["instalment"] - rows[last]["instalment"]
        value = 0.3 ** (step - 1) if step > 0 else 0.05 if step == 0 else 0.1
        return value * (1.0 if rows[other]["platform"] == rows[last]["platform"] else 0.3)

    total = sum(kernel(other) for other in range(len(rows)))
    return kernel(item) / total if total else 0.0


def next_item(shop: SimulatedShop, taste: tuple[str, str], history: list[int], now: int) -> list[float]:
    """p(x | taste, history, time) of every item, normalised; `taste` is a genre and a platform by name."""
    rows = shop.items.to_dicts()
    config = shop.config
    genres = list(GENRES)[: config.genres]
    weight = shop.model.weight
    genre, platform = taste

    def cell(wanted: str) -> list[int]:
        return [i for i, row in enumerate(rows) if row["genre"] == wanted and row["platform"] == platform]

    here = genres.index(genre)
    neighbours = [genres[(here + side) % len(genres)] for side in (-1, 1)]
    result = []
    for item in range(len(rows)):
        if item in history or shop.model.released[item] > now:
            result.append(0.0)
            continue
        p = config.popularity * weight[item]
        if item in cell(genre):
            p += config.taste * weight[item] / sum(weight[i] for i in cell(genre))
        for neighbour in neighbours:
            if item in cell(neighbour):
                p += config.explore * 0.5 * weight[item] / sum(weight[i] for i in cell(neighbour))
        for memory, last in zip((4 / 7, 2 / 7, 1 / 7), reversed(history), strict=False):
            p += config.follow * memory * follow_probability(rows, item, last)
        result.append(p)
    total = sum(result)
    return [p / total for p in result]


def next_item_from_history(
    shop: SimulatedShop, history: list[int], times: list[int], now: int
) -> list[float]:
    """p(x | history) by summing over every path that the hidden taste may have taken."""
    config = shop.config
    genres = list(GENRES)[: config.genres]
    weight, rows = shop.model.weight, shop.items.to_dicts()
    known = [next_item_by_taste(shop, history[:t], time) for t, time in enumerate([*times, now])]
    mixed = [0.0] * len(rows)
    total = 0.0
    for platform in PLATFORMS[: config.platforms]:
        for path in product(range(len(genres)), repeat=len(history) + 1):
            first = [
                i for i, r in enumerate(rows) if (r["genre"], r["platform"]) == (genres[path[0]], platform)
            ]
            p = 0.5 * sum(weight[i] for i in first) + 0.5 / (config.genres * config.platforms)
            for before, after in pairwise(path):
                moves = [before, (before + 1) % len(genres), (before - 1) % len(genres)]
                chances = [1 - config.taste_drift, config.taste_drift / 2, config.taste_drift / 2]
                p *= sum(chance for move, chance in zip(moves, chances, strict=True) if move == after)
            for t, item in enumerate(history):
                p *= known[t][genres[path[t]], platform][item]
            total += p
            final = known[-1][genres[path[-1]], platform]
            mixed = [m + p * f for m, f in zip(mixed, final, strict=True)]
    return [m / total for m in mixed]


def next_item_by_taste(
    shop: SimulatedShop, history: list[int], now: int
) -> dict[tuple[str, str], list[float]]:
    """`next_item` for every taste."""
    tastes = product(list(GENRES)[: shop.config.genres], PLATFORMS[: shop.config.platforms])
    return {taste: next_item(shop, taste, history, now) for taste in tastes}


def rank(scores: list[float], target: int) -> int:
    """Number of other items that score at least as much."""
    return sum(1 for item, score in enumerate(scores) if item != target and score >= scores[target])
