"""Size and habits of a simulated shop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from recdistill.data.simulator_items import GENRES, PLATFORMS
from recdistill.errors import ConfigError


@dataclass(frozen=True)
class ShopConfig:
    """Size and habits of a simulated shop. Two equal configs give the same shop, bit by bit.

    Attributes
    ----------
    users
        U, 2 to 10⁸.
    items
        I, 40 to 10⁷.
    events_per_user
        Mean number of purchases of a shopper, from `min_events` to a quarter of the items. The numbers are
        geometric above `min_events` and end at `max_events`, which lowers the mean a little.
    min_events
        Every shopper has at least so many, 3 or more.
    seed
        Any whole number from 0. The catalogue depends on the seed and on the item options only.
    follow, taste, explore, popularity
        The mixture: the franchise goes on · items of the hidden taste (genre and platform) · items of a
        related genre · anything, by popularity. Each 0 to 1, `popularity` above 0, sum 1.
    taste_drift
        Probability that the taste moves to a related genre before a purchase, 0 to 1.
    popularity_exponent
        s of the long tail ``(rank + 2)^-s``, 0 (flat) to 1.5.
    genres, platforms
        1 to 12, and 1 to 4.
    franchise_size
        Mean number of items in a franchise, 1 to 12; none has more than 12.
    duplicate_title_share
        Share of items that carry the title of another one, 0 to 0.5.
    cold_share
        Share of items that are released only between 80 % and 98 % of all purchases, 0 to 0.5.
    days, days_between
        Shoppers arrive evenly over so many days (1 to 10⁵), and buy every so many days on average.
    """

    users: int = 3000
    items: int = 1000
    events_per_user: float = 12.0
    min_events: int = 5
    seed: int = 0
    follow: float = 0.4
    taste: float = 0.3
    explore: float = 0.1
    popularity: float = 0.2
    taste_drift: float = 0.1
    popularity_exponent: float = 0.8
    genres: int = 12
    platforms: int = 4
    franchise_size: float = 5.0
    duplicate_title_share: float = 0.01
    cold_share: float = 0.05
    days: float = 730.0
    days_between: float = 10.0

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) or name not in _WHOLE
            if not whole or isinstance(value, bool) or not low <= value <= high:
                kind = "a whole number" if name in _WHOLE else "a number"
                raise ConfigError(
                    f"the simulated shop's {name} is {value!r}. Allowed: {kind} from {low:g} to {high:g}. "
                    "See recdistill data simulated --help."
                )
        total = sum(self.mixture)
        if abs(total - 1) > 1e-6 or self.popularity <= 0:
            raise ConfigError(
                f"follow, taste, explore and popularity are {self.mixture}, sum {total:g}. Allowed: sum 1, "
                "popularity above 0 (else a shopper can run out of items). Change one of them."
            )
        if self.events_per_user < self.min_events:
            raise ConfigError(
                f"events_per_user is {self.events_per_user:g}, below min_events {self.min_events}. Allowed: "
                "the mean is at least the minimum. Raise --events or lower --min-events."
            )
        if self.events_per_user > self.items // 4:
            needed = math.ceil(4 * self.events_per_user)
            raise ConfigError(
                f"events_per_user is {self.events_per_user:g} and the shop has {self.items} items. Allowed: "
                f"up to a quarter of the items. Use --items {needed}, or fewer --events."
            )

    @property
    def mixture(self) -> tuple[float, float, float, float]:
        """The four weights, in the order of the distribution's terms."""
        return self.follow, self.taste, self.explore, self.popularity

    @property
    def max_events(self) -> int:
        """T, the most that one shopper buys: four times the mean, at most a quarter of the items."""
        return min(math.ceil(4 * self.events_per_user), self.items // 4)


_WHOLE = frozenset({"users", "items", "min_events", "seed", "genres", "platforms"})
_RANGES: dict[str, tuple[float, float]] = {
    "users": (2, 1e8),
    "items": (40, 1e7),
    "events_per_user": (3, 1e4),
    "min_events": (3, 1e4),
    "seed": (0, 2.0**63),
    "follow": (0, 1),
    "taste": (0, 1),
    "explore": (0, 1),
    "popularity": (0, 1),
    "taste_drift": (0, 1),
    "popularity_exponent": (0, 1.5),
    "genres": (1, len(GENRES)),
    "platforms": (1, len(PLATFORMS)),
    "franchise_size": (1, 12),
    "duplicate_title_share": (0, 0.5),
    "cold_share": (0, 0.5),
    "days": (1, 1e5),
    "days_between": (0.01, 1e4),
}
