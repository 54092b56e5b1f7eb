"""Gates that a teacher should pass before anyone distils it, asked on validation rows (spec 7.4).

===========  =======================================================  ==========================================
gate         passes where                                             otherwise
===========  =======================================================  ==========================================
popularity   HR@20 is above that of ranking by popularity             do not distil
student      HR@20 is above half the student's                        do not distil
variety      the top 10 of 1,000 users show 5 % of the catalogue      a warning: the lists are alike
calibration  Spearman(confidence, hit) is above 0                     switch the confidence term off
order        shuffling the histories costs 2 % of NDCG@20             a warning: no sequential signal
===========  =======================================================  ==========================================

A confidence is minus the distance of a list's first item: it is known before the answer is. The distance of the
true item would pass any such gate, since it is small where the item ranks high.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.evaluate import Evaluation
from recdistill.knowledge.findings import Gate
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.profile import profile_distances, top_lists
from recdistill.types import PAD

Ints = npt.NDArray[np.int64]

#: Where a manifest says what shuffled histories cost the teacher (see `teachers.order`).
ORDER: Final = "order_sensitivity"

USERS: Final = 1000
_VARIETY: Final = 0.05
_ORDER: Final = 0.02
_LIST: Final = 10
#: From so few rows on, a share of the catalogue or a correlation says something.
_FEW: Final = 20


def quality_gates(
    knowledge: Knowledge,
    dataset: SequenceDataset,
    teacher: Evaluation | None,
    *,
    popularity: Evaluation | None = None,
    student: Evaluation | None = None,
    k: int = 20,
) -> list[Gate]:
    """Ask all gates.

    Parameters
    ----------
    knowledge
        The teacher's.
    dataset
        The one it belongs to.
    teacher
        `teacher_evaluation` on the validation rows; None: it was not asked about them, or has learned from them.
    popularity, student
        On the validation rows, ranked the same way; None: not compared.
    k
        Cut-off of a hit (the spec: 20).
    """
    order = _order(knowledge.manifest.get(ORDER))
    if "valid" in knowledge.learned:
        why = (
            "the teacher has learned from the validation rows: audit the one that recdistill teach again took"
        )
        return [*(_unasked(name, why) for name in ("popularity", "student", "variety", "calibration")), order]
    return [
        _accuracy(teacher, popularity, k, "popularity", 1.0, "ranking by popularity, which is free"),
        _accuracy(teacher, student, k, "student", 0.5, "the student"),
        _variety(knowledge, dataset, teacher),
        _calibration(knowledge, teacher, k),
        order,
    ]


def _accuracy(
    teacher: Evaluation | None, other: Evaluation | None, k: int, name: str, factor: float, what: str
) -> Gate:
    if teacher is None:
        return _unasked(
            name, "the teacher answered no validation row; recdistill teach --splits train,valid,test"
        )
    if other is None:
        how = "recdistill knowledge audit --run r/" if name == "student" else "leave out --no-baselines"
        return _unasked(name, f"nothing to compare with; {how}")
    _, mine, theirs = np.intersect1d(teacher.row_ids, other.row_ids, return_indices=True)
    if not len(mine):
        return _unasked(name, "the two have no validation row in common")
    found = float((teacher.ranks[mine] < k).mean())
    needed = factor * float((other.ranks[theirs] < k).mean())
    text = f"HR@{k} {found:.4f}, needed: above {needed:.4f} ({'' if factor == 1 else f'{factor:g} x '}{what})"
    if found > needed:
        return Gate(name, "passed", text, True, found, needed)
    return Gate(
        name,
        "failed",
        f"{text}. Train it longer or on more rows, or choose another teacher",
        True,
        found,
        needed,
    )


def _variety(knowledge: Knowledge, dataset: SequenceDataset, teacher: Evaluation | None) -> Gate:
    if knowledge.ranking is None or teacher is None:
        return _unasked("variety", "there are no lists of validation rows")
    rows = _one_a_user(dataset, dataset.positions_of(teacher.row_ids))
    at = np.searchsorted(knowledge.row_ids, dataset.row_ids[rows])
    lists = top_lists(knowledge.ranking[at], dataset, rows, _LIST, filter_seen=teacher.filter_seen)
    distinct = len(np.unique(lists[lists != PAD]))
    needed = _VARIETY * min(dataset.item_count, _LIST * len(rows))  # few lists cannot show many items
    share = distinct / dataset.item_count
    text = (
        f"{distinct:,} different items in the top {_LIST} of {len(rows):,} users ({share:.1%} of the catalogue), "
        f"needed: {np.ceil(needed):,.0f}"
    )
    if len(rows) < _FEW:
        return _unasked("variety", f"{text}; {len(rows)} users are too few to tell")
    if distinct >= needed:
        return Gate("variety", "passed", text, value=share, threshold=_VARIETY)
    hint = "The lists are alike: a student would learn little but popularity"
    return Gate("variety", "failed", f"{text}. {hint}", value=share, threshold=_VARIETY)


def _one_a_user(dataset: SequenceDataset, rows: Ints) -> Ints:
    """Return each sequence's last row among those given, at most `USERS`, evenly spread."""
    newest_first = rows[::-1]
    _, last = np.unique(dataset.row_sequences[newest_first], return_index=True)
    chosen = np.sort(newest_first[last])
    return chosen[np.linspace(0, len(chosen) - 1, min(USERS, len(chosen))).astype(np.int64)]


def _calibration(knowledge: Knowledge, teacher: Evaluation | None, k: int) -> Gate:
    if knowledge.ranking_distance is None or teacher is None:
        return _unasked("calibration", "there are no distances of validation rows")
    at = np.searchsorted(knowledge.row_ids, teacher.row_ids)
    profile = profile_distances(np.asarray(knowledge.ranking_distance[at]), None, teacher.ranks, k)
    found = profile.order_correlation
    if found is None or len(at) < _FEW:
        return _unasked("calibration", "the distances are all alike, or nothing (or everything) is a hit")
    text = f"Spearman of confidence and hit {found:+.3f}, needed: above 0"
    if found > 0:
        return Gate("calibration", "passed", text, value=found, threshold=0.0)
    hint = "The confidence misleads: switch it off with gamma_confidence=0"
    return Gate("calibration", "failed", f"{text}. {hint}", value=found, threshold=0.0)


def _order(record: Any) -> Gate:
    if not isinstance(record, dict) or record.get("drop") is None:
        return _unasked(
            "order", "the teacher was not asked about shuffled histories; recdistill teach does so"
        )
    drop, error = float(record["drop"]), float(record.get("drop_error") or 0.0)
    text = (
        f"shuffled histories cost {drop:.1%} ± {2 * error:.1%} of NDCG@20 in {record.get('rows', 0):,} rows, needed: "
        f"{_ORDER:.0%}"
    )
    if drop >= _ORDER:
        return Gate("order", "passed", text, value=drop, threshold=_ORDER)
    hint = "The teacher hardly reads the order of a history: it adds no sequential signal"
    return Gate("order", "failed", f"{text}. {hint}", value=drop, threshold=_ORDER)


def _unasked(name: str, why: str) -> Gate:
    return Gate(name, "not asked", why, fatal=name in ("popularity", "student"))
