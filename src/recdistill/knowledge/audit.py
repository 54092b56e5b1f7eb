"""Is this teacher worth distilling, and where? Tables 2 and 3 of DLLM2Rec, and what they leave out.

The paper compares its teacher with one student. The audit also asks what decides before any training:
whether the files fit together, which rows are covered, whether the teacher beats models that cost nothing,
and whether its distances can serve as a confidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.errors import KnowledgeError
from recdistill.evaluate import Evaluation
from recdistill.evaluate.slices import slice_masks
from recdistill.knowledge.alignment import alignment
from recdistill.knowledge.comparisons import Overlap, ndcg_difference, relative_strength, top_overlap
from recdistill.knowledge.findings import Audit, Coverage, Rival, SliceResult
from recdistill.knowledge.gates import quality_gates
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.profile import (
    DistanceProfile,
    ListProfile,
    profile_distances,
    profile_lists,
    top_lists,
)
from recdistill.knowledge.verdict import give_verdict, list_warnings
from recdistill.types import HELD_OUT, PAD, SPLITS, Split

Ints = npt.NDArray[np.int64]
Masks = Mapping[str, Mapping[str, npt.NDArray[np.bool_]]]


def audit_knowledge(
    knowledge: Knowledge,
    dataset: SequenceDataset,
    *,
    split: Split = "test",
    filter_seen: bool = False,
    other: Evaluation | None = None,
    other_top: npt.ArrayLike | None = None,
    baselines: Mapping[str, Evaluation] | None = None,
    slices: Masks | None = None,
    k: int = 20,
    valid_popularity: Evaluation | None = None,
    valid_student: Evaluation | None = None,
) -> Audit:
    """Compare a teacher with the dataset, with another model and with free baselines.

    Parameters
    ----------
    knowledge
        The teacher's.
    dataset
        The dataset it was made from.
    split
        Whose rows are judged.
    filter_seen
        Whether items of the history compete; `other` and `baselines` must have been ranked the same way.
    other
        A student, with or without a teacher.
    other_top
        ``(n, k)`` its lists, row by row of ``other.row_ids``; Table 3 needs them.
    baselines
        Popularity, transitions, graph + text, on the same split.
    slices
        Families of named masks over ``dataset.rows(split)``; by default `slice_masks`: popularity of the
        target, length of the history, hops between them.
    k
        Length of the lists that are compared (the paper: 20).
    valid_popularity, valid_student
        Ranking by popularity, and a student, on the validation rows: the first two quality gates need them,
        whatever `split` is.

    Raises
    ------
    KnowledgeError
        The contents of the knowledge are wrong (see `Knowledge.check`), or another model was judged
        otherwise.
    """
    found = Audit(
        teacher=_name(knowledge),
        dataset=dataset.name,
        split=split,
        k=k,
        filter_seen=filter_seen,
        coverage={name: _coverage(knowledge, dataset, name) for name in SPLITS},
        checks=alignment(knowledge, dataset),
    )
    if all(check.passed for check in found.checks if check.name in ("row ids", "items")):
        judged = {name: teacher_evaluation(knowledge, dataset, name, filter_seen) for name in SPLITS}
        found = _described(found, knowledge, dataset, judged)
        gates = quality_gates(
            knowledge, dataset, judged["valid"], popularity=valid_popularity, student=valid_student, k=k
        )
        found = replace(found, gates=gates)
        if (teacher := judged[split]) is not None:
            overlap = _overlap(knowledge, dataset, other, other_top, filter_seen, k)
            found = _compared(found, teacher, other, overlap, baselines or {})
            if baselines and found.benchmark is not None:
                masks = slice_masks(dataset, dataset.rows(split)) if slices is None else slices
                best = baselines[found.benchmark.name]
                found = replace(found, slices=_sliced(teacher, best, dataset, masks, k))
    return replace(found, warnings=list_warnings(found), verdict=give_verdict(found))


def require_unlearned(knowledge: Knowledge, split: Split, name: object) -> None:
    """Refuse to measure a teacher by rows that it has learned from.

    Raises
    ------
    KnowledgeError
        `split` is among them.
    """
    if split not in knowledge.learned:
        return
    others = [one for one in HELD_OUT if one not in knowledge.learned]
    raise KnowledgeError(
        f"the teacher of {name} has learned from the {split} rows as well (recdistill teach again), so that they say "
        f"nothing of it. Allowed: {'--split ' + others[0] if others else 'none, it has learned from all rows'}."
    )


def teacher_evaluation(
    knowledge: Knowledge, dataset: SequenceDataset, split: Split, filter_seen: bool
) -> Evaluation | None:
    """Return the teacher as an `Evaluation` over the rows of a split that it was asked about; None if none.

    None, too, where it has learned from that split.

    Ranks come from ``target_rank`` (``target_rank_unseen`` if `filter_seen`). Where the teacher gives none
    they are the positions in its lists, and an unlisted target ranks last: right for every k within the list.
    """
    if split in knowledge.learned:
        return None
    rows = dataset.rows(split)
    rows = rows[knowledge.covers(dataset.row_ids[rows])]
    at = np.searchsorted(knowledge.row_ids, dataset.row_ids[rows])
    ranks = knowledge.target_rank_unseen if filter_seen else knowledge.target_rank
    if ranks is not None:
        known = ranks[at].astype(np.int64)
        rows, known = rows[known != PAD], known[known != PAD]
    elif knowledge.ranking is not None:
        depth = knowledge.ranking.shape[1]
        lists = top_lists(
            knowledge.ranking[at], dataset, rows, depth, filter_seen=filter_seen, keep_targets=True
        )
        hits = lists == dataset.targets(rows)[:, None]
        known = np.where(hits.any(axis=1), hits.argmax(axis=1), dataset.item_count - 1)
    else:
        return None
    if not len(rows):
        return None
    ids = dataset.row_ids[rows]
    return Evaluation(
        _name(knowledge), split, ids, known, dataset.item_count, filter_seen, dataset=dataset.fingerprint
    )


def _name(knowledge: Knowledge) -> str:
    return str(knowledge.manifest.get("teacher", "teacher"))


def _coverage(knowledge: Knowledge, dataset: SequenceDataset, split: Split) -> Coverage:
    ids = dataset.row_ids[dataset.rows(split)]
    return Coverage(len(ids), int(knowledge.covers(ids).sum()))


def _described(
    found: Audit,
    knowledge: Knowledge,
    dataset: SequenceDataset,
    judged: Mapping[Split, Evaluation | None],
) -> Audit:
    ks = sorted({*found.ks, found.k})
    lists, distances = _profiles(knowledge, dataset, judged[found.split], found.filter_seen, found.k)
    metrics: dict[str, dict[str, float]] = {
        name: dict(e.metrics(ks)) for name, e in judged.items() if e is not None
    }
    return replace(found, ks=ks, metrics=metrics, lists=lists, distances=distances)


def _compared(
    found: Audit,
    teacher: Evaluation,
    other: Evaluation | None,
    overlap: Overlap | None,
    baselines: Mapping[str, Evaluation],
) -> Audit:
    models = [] if other is None else [_rival(found, teacher, other, "model", other.name)]
    free = [_rival(found, teacher, e, "baseline", name) for name, e in baselines.items()]
    free.sort(key=lambda rival: -rival.metrics[f"ndcg@{found.k}"])
    return replace(found, rivals=[*(replace(model, overlap=overlap) for model in models), *free])


def _rival(found: Audit, teacher: Evaluation, other: Evaluation, kind: str, name: str) -> Rival:
    if (other.split, other.filter_seen) != (found.split, found.filter_seen):
        raise KnowledgeError(
            f"{name!r} was ranked on {other.split} rows with filter_seen={other.filter_seen}, the audit "
            f"asks for {found.split} with filter_seen={found.filter_seen}. Both must be judged the same "
            "way: run recdistill evaluate so."
        )
    ids, mine, theirs = _common(teacher, other)
    if not len(ids):
        raise KnowledgeError(
            f"{name!r} and the teacher have no {found.split} row in common. Both must have answered the same "
            "rows: evaluate it on this dataset."
        )
    ranks, other_ranks = teacher.ranks[mine], other.ranks[theirs]
    return Rival(
        name=name,
        kind=kind,
        metrics=dict(replace(other, row_ids=ids, ranks=other_ranks).metrics(found.ks)),
        teacher_metrics=dict(replace(teacher, row_ids=ids, ranks=ranks).metrics(found.ks)),
        strength=relative_strength(ranks, other_ranks, found.k),
        difference=ndcg_difference(ranks, other_ranks, found.k),
    )


def _common(first: Evaluation, second: Evaluation) -> tuple[Ints, Ints, Ints]:
    """Return the row ids that both answer, and where each has them."""
    return np.intersect1d(first.row_ids, second.row_ids, return_indices=True)


def _overlap(
    knowledge: Knowledge,
    dataset: SequenceDataset,
    other: Evaluation | None,
    other_top: npt.ArrayLike | None,
    filter_seen: bool,
    k: int,
) -> Overlap | None:
    if knowledge.ranking is None or other is None or other_top is None:
        return None
    covered = knowledge.covers(other.row_ids)
    ids = other.row_ids[covered]
    rows = dataset.positions_of(ids)
    lists = knowledge.ranking[np.searchsorted(knowledge.row_ids, ids)]
    mine = top_lists(lists, dataset, rows, k, filter_seen=filter_seen)
    return top_overlap(mine, np.asarray(other_top, dtype=np.int64)[covered, :k], dataset.targets(rows))


def _profiles(
    knowledge: Knowledge, dataset: SequenceDataset, judged: Evaluation | None, filter_seen: bool, k: int
) -> tuple[ListProfile | None, DistanceProfile | None]:
    train = dataset.row_ids[dataset.rows("train")]  # a teacher that answered nothing else is still described
    ids = train[knowledge.covers(train)] if judged is None else judged.row_ids
    ranks = None if judged is None else judged.ranks
    if knowledge.ranking is None or not len(ids):
        return None, None
    rows = dataset.positions_of(ids)
    said = knowledge.rows_for(ids)
    lists = top_lists(np.asarray(said.ranking), dataset, rows, k, filter_seen=filter_seen)
    distance = None if said.ranking_distance is None else np.asarray(said.ranking_distance)
    target = None if said.target_distance is None else np.asarray(said.target_distance)
    return profile_lists(lists, dataset, rows), profile_distances(distance, target, ranks, k)


def _sliced(
    teacher: Evaluation, baseline: Evaluation, dataset: SequenceDataset, masks: Masks, k: int
) -> list[SliceResult]:
    ids, mine, theirs = _common(teacher, baseline)
    place = np.searchsorted(dataset.row_ids[dataset.rows(teacher.split)], ids)
    first, second = teacher.ranks[mine], baseline.ranks[theirs]
    results = []
    for name, mask in (
        (f"{family}: {n}", m[place]) for family, named in masks.items() for n, m in named.items()
    ):
        if mask.any():
            one, two = first[mask], second[mask]
            hits = float((one < k).mean()), float((two < k).mean())
            results.append(SliceResult(name, len(one), *hits, ndcg_difference(one, two, k)))
    return results
