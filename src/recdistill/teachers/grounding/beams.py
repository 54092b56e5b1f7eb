"""Several answers a row: which items they name, and how they rank together with the nearest ones.

* ``first`` (BIGRec's code): only the best answer is grounded, the other beams are discarded.
* ``beams_first`` (for answers that are titles of the catalogue): the items that the beams name come first, in the
  order of the beams, then all others by their distance from the best answer. A title that several items share names
  all of them: they tie. A named item counts as no farther than the nearest item behind it in the list, so that
  distances never fall along a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recdistill.errors import unknown_name
from recdistill.teachers.grounding.result import Ranked
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]
BeamRule = Literal["first", "beams_first"]
BEAM_RULES: Final[tuple[str, ...]] = get_args(BeamRule)


def check_beam_rule(name: str) -> None:
    """Refuse a rule that does not exist.

    Raises
    ------
    ConfigError
        `name` is not one of `BEAM_RULES`.
    """
    if name not in BEAM_RULES:
        raise unknown_name("beam rule", name, BEAM_RULES)


class TitleIndex:
    """Which items have a title: all of them, for a title that several share.

    Parameters
    ----------
    titles
        The I titles, normalised as the answers are; empty where there is none.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        self.items: dict[str, list[int]] = {}
        for item, title in enumerate(titles):
            if title:
                self.items.setdefault(title, []).append(item)
        self._folded = {_folded(title) for title in self.items}

    def exact(self, text: str) -> list[int]:
        """Return the items, ascending, whose title is the text, letter by letter; none: empty."""
        return self.items.get(text, [])

    def valid(self, text: str) -> bool:
        """Tell whether the text is a title when case and everything but letters and digits do not count."""
        return _folded(text) in self._folded

    def named(self, answers: Sequence[Sequence[str]]) -> tuple[Ints, Ints]:
        """Return ``(n, F)`` the items that each row's texts name, in order and once, and each item's beam.

        Parameters
        ----------
        answers
            n rows of normalised texts, best first. Texts that are no title name nothing. Lists end in `PAD`.
        """
        rows = [self._row(texts) for texts in answers]
        width = max((len(row) for row in rows), default=0)
        items, beams = (np.full((len(rows), width), PAD, dtype=np.int64) for _ in range(2))
        for index, row in enumerate(rows):
            items[index, : len(row)] = list(row)
            beams[index, : len(row)] = list(row.values())
        return items, beams

    def _row(self, texts: Sequence[str]) -> dict[int, int]:
        """Return the beam of each named item, in the order of the beams."""
        found: dict[int, int] = {}
        for beam, text in enumerate(texts):
            for item in self.exact(text):
                found.setdefault(item, beam)
        return found


def _folded(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def put_first(
    ranked: Ranked,
    named: Tensor,
    beams: Tensor,
    distance: Tensor,
    target: Tensor,
    seen: Tensor,
) -> Ranked:
    """Move the named items to the front of the rankings.

    Parameters
    ----------
    ranked
        By distance alone.
    named
        ``(B, F)`` items, in the order of the beams, `PAD` at the end.
    beams
        ``(B, F)`` which beam named them.
    distance
        ``(B, F)`` their distances, of the same kind as those in `ranked`.
    target
        ``(B,)``.
    seen
        ``(B, F)`` bool: named items that are in the row's history.
    """
    listed = named != PAD  # (B, F)
    distance = distance.masked_fill(~listed, torch.inf)
    again = (ranked.items[:, :, None] == named[:, None]).any(2)  # (B, K)
    items = torch.cat([named, ranked.items.masked_fill(again, PAD)], dim=1)  # (B, F + K)
    values = torch.cat([distance, ranked.distance], dim=1).masked_fill(items == PAD, torch.inf)
    order = (items == PAD).int().argsort(dim=1, stable=True)
    items, values = items.gather(1, order), values.gather(1, order)
    values = values.flip(1).cummin(1).values.flip(1)  # no farther than the nearest behind
    own = (named == target[:, None]) & listed
    inside = own.any(1)
    last = beams.masked_fill(~own, -1).amax(1, keepdim=True)  # (B, 1) the beam that named the target
    ahead = torch.where(
        inside[:, None], listed & ~own & (beams <= last), listed & (distance > ranked.near[:, None])
    )
    added = torch.stack([ahead.sum(1), (ahead & ~seen).sum(1)])  # (2, B)
    place = own.int().argmax(1, keepdim=True)
    near = torch.where(inside, values.gather(1, place)[:, 0], ranked.near)
    width = ranked.items.shape[1]
    ranks = torch.where(inside, added, ranked.ranks + added)
    return Ranked(items[:, :width], values[:, :width], near, ranks)
