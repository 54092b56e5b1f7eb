"""A simulated shop: logs and titles of any size whose true next-item distribution is known.

Titles carry meaning (franchise, instalment, genre, platform, edition), shoppers follow franchises and drift
between tastes, popularity has a long tail, and some items appear only late (cold). The distribution is in
`recdistill.data.simulator_model`, the ceiling that follows from it in `recdistill.data.simulator_oracle`.
Everything made here says so: the provenance of a dataset carries ``"simulated": true``.

Examples
--------
>>> from recdistill.data.simulator import ShopConfig, simulate
>>> shop = simulate(ShopConfig(users=50, items=100, seed=1))
>>> shop.interactions.columns
['user_id', 'item_id', 'timestamp']
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recdistill.data.catalogue import Catalogue
from recdistill.data.interactions import Interactions
from recdistill.data.sequences import SequenceDataset
from recdistill.data.simulator_config import ShopConfig
from recdistill.data.simulator_items import make_items, numbered, popularity
from recdistill.data.simulator_model import Ints, NextItemModel, buy
from recdistill.data.simulator_oracle import Oracle, ShopLog, oracle_ranks, ranking_metrics
from recdistill.data.splits import global_time, leave_one_out
from recdistill.errors import DataError, unknown_name
from recdistill.runs import atomic_file
from recdistill.types import PAD, Split

__all__ = [
    "SHOP_SPLITS",
    "ShopConfig",
    "SimulatedShop",
    "simulate",
    "simulated_dataset",
    "write_simulated",
]

SHOP_SPLITS = ("global-time", "leave-one-out")
ORACLE_FILE = "oracle.parquet"
_JUDGED: tuple[Split, ...] = ("valid", "test")

_START = 1_577_836_800  # 2020-01-01
_DAY = 86_400


@dataclass(frozen=True, eq=False)
class SimulatedShop:
    """A shop after it closed: what was bought, and the distribution it was drawn from.

    Attributes
    ----------
    config
        How it was made.
    model
        The true next-item distribution.
    log
        The events with their hidden tastes; user u's raw id is ``u`` and its number.
    """

    config: ShopConfig
    model: NextItemModel
    log: ShopLog

    @cached_property
    def interactions(self) -> pl.DataFrame:
        """``user_id``, ``item_id``, ``timestamp``: user after user, oldest first."""
        users = np.repeat(np.array(numbered("u", self.config.users)), np.diff(self.log.offsets))
        item_ids = np.array(numbered("i", self.config.items))
        return pl.DataFrame(
            {"user_id": users, "item_id": item_ids[self.log.events], "timestamp": self.log.timestamps}
        )

    @cached_property
    def items(self) -> pl.DataFrame:
        """``item_id``, ``title``, ``franchise``, ``instalment``, ``genre``, ``platform``, ``edition``."""
        return self.model.items.frame()

    @property
    def cold_items(self) -> Ints:
        """Indices of the items that are released late."""
        return np.flatnonzero(self.model.released > 0)

    @property
    def provenance(self) -> dict[str, Any]:
        """``simulated``, and every parameter."""
        return {"simulated": True, "simulator": asdict(self.config)}

    def dataset(
        self, split: str = "global-time", *, window: int = 10, name: str = "simulated"
    ) -> SequenceDataset:
        """Cut the log into rows, as `recdistill.data.splits` does; the oracle is not asked yet.

        Parameters
        ----------
        split
            ``"global-time"`` or ``"leave-one-out"``.
        window
            L of the global-time rule.
        name
            How tables call the dataset.
        """
        if split not in SHOP_SPLITS:
            raise unknown_name("split", split, SHOP_SPLITS)
        interactions = Interactions.from_frame(self.interactions, provenance={"format": "simulated"})
        catalogue = Catalogue.from_items(self.items, self.items["item_id"])
        provenance = {"name": name, **self.provenance}
        if split == "leave-one-out":
            return leave_one_out(interactions, catalogue, provenance=provenance)
        return global_time(interactions, catalogue, window=window, provenance=provenance)

    def oracle_ranks(
        self, dataset: SequenceDataset, split: Split, oracle: Oracle = "taste"
    ) -> tuple[Ints, Ints]:
        """Return the ids of a split's rows and the oracle's 0-based rank of each target.

        Items bought before have probability 0, so the rank is the same whether seen items compete or not.
        Ties are pessimistic.

        Parameters
        ----------
        dataset
            Cut from this shop's interactions, all of them.
        split
            Which rows.
        oracle
            ``"taste"`` knows the hidden taste: an upper bound for every model. ``"history"`` knows the whole
            history and the generator's rules: what the best reader of histories reaches.

        Raises
        ------
        DataError
            The dataset was not cut from this shop.
        """
        index = self._own_indices(dataset)
        competing = np.zeros(self.config.items, dtype=np.bool_)
        competing[index] = True
        rows = dataset.rows(split)
        order = np.argsort(dataset.row_events[rows], kind="stable")
        ranks = np.empty(len(rows), dtype=np.int64)
        ranks[order] = oracle_ranks(self.model, self.log, oracle, dataset.row_events[rows][order], competing)
        return dataset.row_ids[rows], ranks

    def oracle_table(self, dataset: SequenceDataset) -> pl.DataFrame:
        """Return the oracles' ranks of the valid and test rows.

        Returns
        -------
        Columns ``row_id``, ``split``, ``rank`` (oracle ``taste``) and ``rank_history`` (oracle ``history``).
        """
        tables = []
        for split in _JUDGED:
            row_ids, ranks = self.oracle_ranks(dataset, split, "taste")
            _, by_history = self.oracle_ranks(dataset, split, "history")
            columns = {
                "row_id": row_ids,
                "split": [split] * len(ranks),
                "rank": ranks,
                "rank_history": by_history,
            }
            tables.append(pl.DataFrame(columns, schema_overrides={"split": pl.String}))
        return pl.concat(tables)

    def _own_indices(self, dataset: SequenceDataset) -> Ints:
        """Return the shop's index of each dataset item, after checking that the events are the same."""
        own = {raw: index for index, raw in enumerate(numbered("i", self.config.items))}
        index = np.array([own.get(raw, PAD) for raw in dataset.catalogue.raw_ids], dtype=np.int64)
        same = (
            bool((index != PAD).all())
            and np.array_equal(dataset.offsets, self.log.offsets)
            and np.array_equal(index[dataset.events], self.log.events)
        )
        if not same:
            raise DataError(
                f"dataset {dataset.name!r} was not cut from this simulated shop, or was filtered. Allowed: "
                "all events of the oracle's own shop. Make it with simulated_dataset(config)."
            )
        return index


def simulated_dataset(
    config: ShopConfig,
    split: str = "global-time",
    window: int = 10,
    *,
    name: str = "simulated",
) -> SequenceDataset:
    """Simulate a shop and return its dataset; ``provenance["oracle"]`` holds the ceiling of valid and test.

    Parameters
    ----------
    config
        The shop.
    split, window, name
        As in `SimulatedShop.dataset`.
    """
    shop = simulate(config)
    dataset = shop.dataset(split, window=window, name=name)
    return with_oracle(dataset, shop.oracle_table(dataset))


def write_simulated(
    config: ShopConfig,
    folder: Path | str,
    split: str = "global-time",
    window: int = 10,
    *,
    name: str = "simulated",
    overwrite: bool = False,
) -> SequenceDataset:
    """Write the dataset folder of `simulated_dataset` and, in it, ``oracle.parquet``; return the dataset.

    Raises
    ------
    RunError
        The folder exists and `overwrite` is False.
    """
    shop = simulate(config)
    dataset = shop.dataset(split, window=window, name=name)
    table = shop.oracle_table(dataset)
    dataset = with_oracle(dataset, table)
    dataset.save(folder, overwrite=overwrite)
    with atomic_file(Path(folder) / ORACLE_FILE) as temporary:
        table.write_parquet(temporary)
    return dataset


def with_oracle(dataset: SequenceDataset, table: pl.DataFrame) -> SequenceDataset:
    """Return the dataset with the metrics of its oracle table: ``provenance["oracle"][split][oracle]``."""
    columns: dict[str, Oracle] = {"rank": "taste", "rank_history": "history"}
    metrics = {
        split: {oracle: ranking_metrics(rows[column].to_numpy()) for column, oracle in columns.items()}
        for split in _JUDGED
        if (rows := table.filter(pl.col("split") == split)).height
    }
    return replace(dataset, provenance={**dataset.provenance, "oracle": metrics})


def simulate(config: ShopConfig) -> SimulatedShop:
    """Open a shop, let its shoppers buy, and close it.

    Time grows with users times events and memory with users times the longest history; no step builds a
    distribution over all items.
    """
    item_rng, time_rng, draw_rng = np.random.default_rng(config.seed).spawn(3)
    items = make_items(
        config.items,
        item_rng,
        genres=config.genres,
        platforms=config.platforms,
        franchise_size=config.franchise_size,
        largest_franchise=12,
        duplicate_titles=round(config.duplicate_title_share * config.items),
    )
    weight = popularity(items, config.popularity_exponent, item_rng)
    cold = item_rng.permutation(config.items)[: round(config.cold_share * config.items)]
    lengths, times = visits(config, time_rng)
    alive = np.arange(config.max_events) < lengths[:, None]  # (U, T)
    released = np.zeros(config.items, dtype=np.int64)
    released[cold] = np.quantile(times[alive], item_rng.uniform(0.8, 0.98, size=len(cold))).astype(np.int64)
    model = NextItemModel(
        items, weight, released, config.genres, config.platforms, config.mixture, config.taste_drift
    )
    bought, tastes = buy(model, lengths, times, draw_rng)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SimulatedShop(config, model, ShopLog(bought[alive], times[alive], tastes[alive], offsets))


def visits(config: ShopConfig, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Return ``(U,)`` numbers of purchases and ``(U, T)`` their times, strictly increasing in a row."""
    shape = (config.users, config.max_events)
    surplus = rng.geometric(1 / (1 + config.events_per_user - config.min_events), size=config.users) - 1
    lengths = np.minimum(config.min_events + surplus, config.max_events)
    arrival = rng.integers(0, max(int(config.days * _DAY), 1), size=config.users)
    gaps = 1 + (rng.exponential(config.days_between * _DAY, size=shape)).astype(np.int64)
    return lengths, _START + arrival[:, None] + np.cumsum(gaps, axis=1)
