"""The numbers printed in "Distillation Matters" (Cui et al., RecSys 2024), and when they may stand beside ours.

Tables 1, 2, 3, 5, 6, 7 and 8 as data; Table 4 is `recdistill.data.statistics.PUBLISHED`; Figure 2 prints no
numbers. The paper's teacher is BIGRec with LLaMA2-7B. Ranking is over all items, those of the history included.
Its text does not say how many seeds an entry has; the published code has one, and picks the epoch on test rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from recdistill.data import SequenceDataset
from recdistill.data.statistics import PUBLISHED, published_row

__all__ = [
    "ABLATION_STUDENT",
    "OVERLAP",
    "STRATEGY_ROWS",
    "STRENGTH",
    "TABLES",
    "TEACHER",
    "TEACHER_SECONDS",
    "Match",
    "Pair",
    "match_dataset",
    "published_gain",
]

Pair = tuple[float, float]
"""HR@20 and NDCG@20."""
Column = Mapping[str, Pair]

#: Datasets in the order of the columns below, by their keys in `PUBLISHED`.
_SETS: Final = ("games", "movielens-10m", "toys")

TEACHER: Final[Column] = {
    "games": (0.0532, 0.0341),
    "movielens-10m": (0.0541, 0.0370),
    "toys": (0.0420, 0.0207),
}
"""BIGRec, the first line of Table 5 (and of Tables 1 and 6)."""

#: Table 6 (and 1): seconds for one pass over the test rows, on 4 A800 GPUs: teacher, student.
TEACHER_SECONDS: Final[Mapping[str, tuple[float, float]]] = {
    "games": (2.3e4, 1.8),
    "movielens-10m": (1.8e4, 1.7),
    "toys": (1.1e4, 1.6),
}

#: Table 2: share of the unequal cases in which BIGRec is better than DROS.
STRENGTH: Final[Mapping[str, float]] = {"games": 0.5390, "movielens-10m": 0.4090, "toys": 0.6667}

#: Table 3: (share of items, share of hits) of BIGRec alone, DROS alone, both, in the top 20.
OVERLAP: Final[Mapping[str, tuple[Pair, Pair, Pair]]] = {
    "games": ((0.9601, 0.0021), (0.9601, 0.0018), (0.0399, 0.0161)),
    "movielens-10m": ((0.9594, 0.0019), (0.9594, 0.0035), (0.0406, 0.0216)),
    "toys": ((0.9895, 0.0017), (0.9895, 0.0008), (0.0105, 0.0374)),
}

#: Our names of the lines of Table 5, in the paper's order. KAR and LLM-CF read words, which need a folder of their own.
STRATEGY_ROWS: Final = ("none", "hint", "htd", "rd", "cd", "rrd", "dcd", "unkd", "kar", "llm-cf", "dllm2rec")

#: The student of Tables 6, 7 and 8: their DLLM2Rec line is that of DROS in Table 5.
ABLATION_STUDENT: Final = "dros"

_TABLE5: Final[dict[str, dict[str, tuple[float, ...]]]] = {  # HR, NDCG on Games, MovieLens, Toys
    "gru4rec": {
        "none": (0.0305, 0.0150, 0.0608, 0.0236, 0.0172, 0.0081),
        "hint": (0.0284, 0.0120, 0.0646, 0.0240, 0.0128, 0.0058),
        "htd": (0.0299, 0.0128, 0.0578, 0.0229, 0.0155, 0.0062),
        "rd": (0.0398, 0.0177, 0.0667, 0.0254, 0.0157, 0.0076),
        "cd": (0.0306, 0.0149, 0.0699, 0.0256, 0.0126, 0.0052),
        "rrd": (0.0359, 0.0163, 0.0657, 0.0243, 0.0215, 0.0097),
        "dcd": (0.0427, 0.0190, 0.0666, 0.0263, 0.0262, 0.0114),
        "unkd": (0.0370, 0.0170, 0.0607, 0.0226, 0.0235, 0.0114),
        "kar": (0.0307, 0.0149, 0.0603, 0.0229, 0.0184, 0.0079),
        "llm-cf": (0.0393, 0.0174, 0.0677, 0.0246, 0.0132, 0.0058),
        "dllm2rec": (0.0446, 0.0205, 0.0815, 0.0308, 0.0281, 0.0118),
    },
    "sasrec": {
        "none": (0.0346, 0.0190, 0.0626, 0.0228, 0.0207, 0.0130),
        "hint": (0.0358, 0.0151, 0.0576, 0.0216, 0.0242, 0.0103),
        "htd": (0.0343, 0.0152, 0.0569, 0.0214, 0.0209, 0.0097),
        "rd": (0.0513, 0.0225, 0.0778, 0.0310, 0.0397, 0.0164),
        "cd": (0.0396, 0.0231, 0.0712, 0.0265, 0.0232, 0.0151),
        "rrd": (0.0479, 0.0202, 0.0633, 0.0244, 0.0325, 0.0158),
        "dcd": (0.0455, 0.0211, 0.0723, 0.0275, 0.0375, 0.0175),
        "unkd": (0.0447, 0.0219, 0.0667, 0.0247, 0.0335, 0.0174),
        "kar": (0.0381, 0.0198, 0.0565, 0.0221, 0.0215, 0.0131),
        "llm-cf": (0.0559, 0.0251, 0.0837, 0.0295, 0.0335, 0.0152),
        "dllm2rec": (0.0600, 0.0262, 0.0840, 0.0323, 0.0409, 0.0177),
    },
    "dros": {
        "none": (0.0473, 0.0267, 0.0852, 0.0363, 0.0231, 0.0144),
        "hint": (0.0531, 0.0240, 0.0791, 0.0306, 0.0302, 0.0135),
        "htd": (0.0489, 0.0238, 0.0722, 0.0289, 0.0275, 0.0137),
        "rd": (0.0585, 0.0310, 0.0950, 0.0383, 0.0424, 0.0220),
        "cd": (0.0474, 0.0270, 0.0802, 0.0336, 0.0238, 0.0156),
        "rrd": (0.0590, 0.0293, 0.0788, 0.0338, 0.0424, 0.0212),
        "dcd": (0.0531, 0.0273, 0.0821, 0.0348, 0.0432, 0.0211),
        "unkd": (0.0448, 0.0209, 0.0728, 0.0297, 0.0375, 0.0195),
        "kar": (0.0586, 0.0318, 0.0859, 0.0352, 0.0255, 0.0156),
        "llm-cf": (0.0635, 0.0293, 0.0963, 0.0351, 0.0385, 0.0178),
        "dllm2rec": (0.0751, 0.0331, 0.1063, 0.0437, 0.0463, 0.0225),
    },
}
_TABLE7: Final = {
    "w/o all_r": (0.0661, 0.0301, 0.0917, 0.0364, 0.0386, 0.0177),
    "w/o w_p": (0.0697, 0.0301, 0.1037, 0.0429, 0.0406, 0.0200),
    "w/o w_c": (0.0733, 0.0300, 0.0986, 0.0398, 0.0430, 0.0205),
    "w/o w_o": (0.0568, 0.0311, 0.1047, 0.0430, 0.0445, 0.0208),
    "DLLM2Rec": (0.0751, 0.0331, 0.1063, 0.0437, 0.0463, 0.0225),
}
_TABLE8: Final = {
    "w/o all_e": (0.0649, 0.0323, 0.0999, 0.0420, 0.0379, 0.0194),
    "w/o offset": (0.0700, 0.0298, 0.1061, 0.0425, 0.0405, 0.0195),
    "Hint": (0.0563, 0.0244, 0.0861, 0.0344, 0.0358, 0.0159),
    "HTD": (0.0568, 0.0246, 0.0874, 0.0341, 0.0349, 0.0157),
    "DLLM2Rec": (0.0751, 0.0331, 0.1063, 0.0437, 0.0463, 0.0225),
}


def _columns(row: tuple[float, ...]) -> Column:
    return {key: (row[2 * place], row[2 * place + 1]) for place, key in enumerate(_SETS)}


TABLES: Final[Mapping[str, Mapping[str, Mapping[str, Column]]]] = {
    "table5": {s: {n: _columns(row) for n, row in rows.items()} for s, rows in _TABLE5.items()},
    "table7": {ABLATION_STUDENT: {name: _columns(row) for name, row in _TABLE7.items()}},
    "table8": {ABLATION_STUDENT: {name: _columns(row) for name, row in _TABLE8.items()}},
}
"""Table → student → line → dataset → (HR@20, NDCG@20). Tables 1 and 6 take their lines from Table 5."""

#: Other filters of the same log leave out some items; more than this share apart is other data.
_TOLERANCE: Final = 0.02


@dataclass(frozen=True)
class Match:
    """Whether the paper's numbers may stand beside ours.

    Attributes
    ----------
    key
        The dataset's key in the tables, or None: they may not.
    text
        Why not; or what still differs, for the caption.
    """

    key: str | None
    text: str

    def pair(self, table: str, student: str, line: str) -> Pair | None:
        """Return the published HR@20 and NDCG@20 of a line, or None."""
        found = TABLES.get(table, {}).get(student, {}).get(line)
        return None if found is None or self.key is None else found[self.key]


def match_dataset(dataset: SequenceDataset, *, filter_seen: bool) -> Match:
    """Say whether a dataset asks the paper's questions: same log, split, items and rule for seen items.

    Parameters
    ----------
    dataset
        What was measured on.
    filter_seen
        Whether items of the history were left out of the ranking; the paper keeps them.
    """
    row = published_row(dataset)
    if row is None:
        return Match(None, f"No published figures: {dataset.name!r} is none of the paper's datasets.")
    kind = str(dataset.provenance.get("split", {}).get("kind"))
    reasons = []
    if kind not in ("global-time", "official-windows"):
        reasons.append(f"the split is {kind}, the paper's goes by global time (8:1:1)")
    if filter_seen:
        reasons.append("seen items are filtered, the paper keeps them")
    users = dataset.provenance.get("counts", {}).get("users") if kind != "official-windows" else None
    for name, ours, theirs in (("items", dataset.item_count, row.items), ("users", users, row.users)):
        if ours is not None and abs(ours - theirs) > _TOLERANCE * theirs:
            reasons.append(f"it has {ours:,} {name}, the paper's {row.name} {theirs:,}")
    if reasons:
        return Match(None, f"No published figures: {'; '.join(reasons)}.")
    key = next(name for name, entry in PUBLISHED.items() if entry is row)
    return Match(key, _still_different(dataset, row.items, kind))


def _still_different(dataset: SequenceDataset, items: int, kind: str) -> str:
    text = "Published: teacher BIGRec (LLaMA2-7B), no seeds named"
    if dataset.item_count != items:
        text += f"; {items:,} items, here {dataset.item_count:,}"
    if kind == "official-windows":
        text += "; the authors' own validation and test windows, training windows as this dataset has them"
    return text + "."


def published_gain(key: str, student: str, line: str) -> float | None:
    """Return the mean relative gain of a line of Table 5 over the plain student, over HR@20 and NDCG@20."""
    rows = TABLES["table5"].get(student, {})
    if line not in rows:
        return None
    (hr, ndcg), (plain_hr, plain_ndcg) = rows[line][key], rows["none"][key]
    return (hr / plain_hr + ndcg / plain_ndcg) / 2 - 1
