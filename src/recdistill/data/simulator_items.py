"""The catalogue of the simulated shop: franchises, instalments, genres, platforms, and titles that say so."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import polars as pl

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Genre → (first words, second words) of its franchises. Neighbours in this order are related genres.
GENRES: dict[str, tuple[str, str]] = {
    "Adventure": (
        "Lantern Driftwood Hollow Amber Wander Ruin Compass Mosaic",
        "Harbor Isle Relic Path Tale Cove",
    ),
    "Role-Playing": (
        "Rune Dragon Ember Mythic Sable Oath Arcane Elder",
        "Chronicle Saga Legend Crown Prophecy Vale",
    ),
    "Strategy": (
        "Iron Empire Banner Siege Throne Marshal Frontier Consul",
        "Dominion Tactics Command Realm Conquest",
    ),
    "Simulation": (
        "Harvest Village Orchard Bakery Railway Airport Aquarium Ranch",
        "Manager Tycoon Builder Life Works",
    ),
    "Puzzle": (
        "Pixel Marble Riddle Tangle Cipher Domino Prism Jigsaw",
        "Garden Logic Blocks Match Maze Twist",
    ),
    "Party": (
        "Happy Disco Karaoke Carnival Picnic Balloon Confetti Bubble",
        "Party Dance Band Quiz Show Stage",
    ),
    "Platformer": ("Jumpy Bouncy Rocket Turnip Fuzzy Jelly Acorn Pogo", "Hop Dash Trail Bros Leap Hills"),
    "Racing": (
        "Turbo Nitro Asphalt Velocity Drift Grand Rally Piston",
        "Circuit Racers Speedway Cup Rush Laps",
    ),
    "Sports": (
        "Champion Stadium Premier Slam Varsity Goal Court Summit",
        "League Soccer Tennis Hoops Season Arena",
    ),
    "Fighting": (
        "Fist Savage Dojo Crimson Knuckle Fury Tiger Vendetta",
        "Brawl Fighters Tournament Combat Rivals",
    ),
    "Shooter": (
        "Steel Delta Phantom Bullet Sniper Recon Omega Havoc",
        "Squad Warfare Strike Ops Frontline Assault",
    ),
    "Horror": (
        "Silent Ashen Crypt Raven Midnight Grave Whisper Haunted",
        "Asylum Nightmare Manor Shadows Curse",
    ),
}
#: First words of any genre: a title tells its genre often, not always.
NEUTRAL = "Star Golden Lost Little Infinite Secret Wild Royal"
PLATFORMS = ("Console", "PC", "Handheld", "Mobile")
#: The first one is the plain release, without a suffix.
EDITIONS = ("Standard Edition", "Deluxe Edition", "Gold Edition", "Complete Edition", "Remastered")
_SYLLABLES = "ka lo ri ven mor dal tu sha bel nor zi gra fen ost ul mi ray cor tha wyn"


@dataclass(frozen=True, eq=False)
class ShopItems:
    """The I items in index order.

    Attributes
    ----------
    franchise, instalment, genre, platform, edition
        ``(I,)`` int64: franchise 0..F-1, instalment 1.., and positions in `GENRES`, `PLATFORMS`, `EDITIONS`.
    names
        The F names of the franchises.
    titles
        The ``I`` titles.
    """

    franchise: Ints
    instalment: Ints
    genre: Ints
    platform: Ints
    edition: Ints
    names: list[str]
    titles: list[str]

    def __len__(self) -> int:
        return len(self.franchise)

    def frame(self) -> pl.DataFrame:
        """Return ``item_id``, ``title``, and what the title was made from, one column each."""
        return pl.DataFrame(
            {
                "item_id": numbered("i", len(self)),
                "title": self.titles,
                "franchise": np.array(self.names)[self.franchise],
                "instalment": self.instalment,
                "genre": np.array(list(GENRES))[self.genre],
                "platform": np.array(PLATFORMS)[self.platform],
                "edition": np.array(EDITIONS)[self.edition],
            }
        )


def make_items(
    count: int,
    rng: np.random.Generator,
    *,
    genres: int,
    platforms: int,
    franchise_size: float,
    largest_franchise: int,
    duplicate_titles: int,
) -> ShopItems:
    """Make `count` items in random index order, so that an index says nothing about its item.

    Parameters
    ----------
    count
        I, at least 1.
    rng
        The source of every draw.
    genres, platforms
        How many of `GENRES` and `PLATFORMS` the shop carries.
    franchise_size, largest_franchise
        Mean of the geometric size of a franchise, and its limit.
    duplicate_titles
        How many items carry the title of another one (a relisting), at most ``count // 2``.
    """
    sizes = np.minimum(rng.geometric(1 / franchise_size, size=count), largest_franchise)
    franchise = np.repeat(np.arange(count), sizes)[:count]
    starts = np.flatnonzero(np.diff(franchise, prepend=-1))
    place = np.arange(count) - starts[franchise]  # 0, 1, .. within the franchise
    opens = (rng.random(count) < 0.75) | (place % len(EDITIONS) == 0)  # else: another edition of the last one
    runs = np.flatnonzero(opens)
    edition = np.arange(count) - runs[np.cumsum(opens) - 1]
    opened = np.cumsum(opens)
    instalment = opened - opened[starts][franchise] + 1

    franchise_genre = rng.choice(genres, size=len(starts), p=rng.dirichlet(np.full(genres, 6.0)))
    home = rng.choice(platforms, size=len(starts), p=rng.dirichlet(np.full(platforms, 6.0)))
    away = rng.random(count) < 0.25
    platform = np.where(away, rng.integers(platforms, size=count), home[franchise])
    names = franchise_names(franchise_genre, rng)
    titles = [
        title(names[f], n, e, p)
        for f, n, e, p in zip(*(a.tolist() for a in (franchise, instalment, edition, platform)), strict=True)
    ]
    # Only odd places copy, and only from even ones: a copied title is never copied away again.
    for copy in (1 + 2 * rng.permutation(count // 2)[:duplicate_titles]).tolist():
        titles[copy] = titles[copy - 1]

    order = rng.permutation(count)
    return ShopItems(
        franchise=franchise[order],
        instalment=instalment[order],
        genre=franchise_genre[franchise][order],
        platform=platform[order],
        edition=edition[order],
        names=names,
        titles=[titles[i] for i in order.tolist()],
    )


def popularity(items: ShopItems, exponent: float, rng: np.random.Generator) -> Floats:
    """Return ``(I,)`` weights ``∝ (rank + 2)^-exponent``, sum 1; a franchise's items have similar ranks."""
    appeal = rng.normal(size=len(items.names))[items.franchise] + rng.normal(size=len(items))
    rank = np.empty(len(items))
    rank[np.argsort(-appeal)] = np.arange(len(items))
    weight: Floats = np.power(rank + 2.0, -exponent)
    normalised: Floats = weight / weight.sum()
    return normalised


def title(name: str, instalment: int, edition: int, platform: int) -> str:
    """Return a title, e.g. ``"Star Harbor 3: Deluxe Edition (Handheld)"``."""
    number = f" {instalment}" if instalment > 1 else ""
    suffix = f": {EDITIONS[edition]}" if edition else ""
    return f"{name}{number}{suffix} ({PLATFORMS[platform]})"


def franchise_names(genre: Ints, rng: np.random.Generator) -> list[str]:
    """Return F different names; the words of a name come from its franchise's genre.

    When a genre's pairs of words are used up, a coined place follows: ``"Rune Saga of Kalori"``.
    """
    lists = []
    for firsts, seconds in GENRES.values():
        pairs = list(product((firsts + " " + NEUTRAL).split(), seconds.split()))
        lists.append([" ".join(pairs[i]) for i in rng.permutation(len(pairs))])
    used = [0] * len(lists)
    names = []
    for g in genre.tolist():
        lap, place = divmod(used[g], len(lists[g]))
        names.append(lists[g][place] + (f" of {coined(lap - 1)}" if lap else ""))
        used[g] += 1
    return names


def coined(number: int) -> str:
    """Return the `number`-th made-up place name; different numbers give different names."""
    syllables = _SYLLABLES.split()
    base = len(syllables)
    digits = [number % base, number // base % base]
    while number >= base**2:
        number //= base
        digits.append(number // base % base)
    return "".join(syllables[digit] for digit in digits).capitalize()


def numbered(letter: str, count: int) -> list[str]:
    """Return raw ids such as ``i007``, zero-padded: their sorted order is their numbering."""
    width = len(str(count - 1))
    return [f"{letter}{index:0{width}d}" for index in range(count)]
