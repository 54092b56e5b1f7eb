"""Is this teacher worth distilling, and where? Tables 2 and 3 of DLLM2Rec, and what they leave out.

The paper compares its teacher with one student. The audit also asks what decides before any training:
whether the files fit together, which rows are covered, whether the teacher beats models that cost nothing,
and whether its distances can serve as a confidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.data.sequences import SequenceDataset
from recdistill.evaluate import Evaluation
from recdistill.knowledge.comparisons import (
    Difference,
    Overlap,
    Strength,
    ndcg_difference,
    relative_strength,
    top_overlap,
)
from recdistill.knowledge.knowledge import Knowledge
from recdistill.knowledge.profile import (
    DistanceProfile,
    ListProfile,
    profile_distances,
    profile_lists,
    top_lists,
)
from recdistill.knowledge.store import title_hash
from recdistill.types import PAD, SPLITS, Split

Ints = npt.NDArray[np.int64]
Masks = Mapping[str, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Check:
    """One question of alignment: its answer, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Coverage:
    """Rows of a split, and how many of them the teacher was asked about."""

    rows: int
    covered: int

    @property
    def share(self) -> float:
        """0 to 1; 1 for a split without rows."""
        return self.covered / self.rows if self.rows else 1.0


@dataclass(frozen=True)
class Rival:
    """Another model on the same rows.

    Attributes
    ----------
    name, kind
        Kind is ``model`` (the run given) or ``baseline`` (free).
    metrics, teacher_metrics
        On the rows that both answer.
    strength
        Teacher against rival (Table 2).
    difference
        NDCG@k, teacher minus rival.
    overlap
        Teacher's and rival's lists (Table 3), where both lists are known.
    """

    name: str
    kind: str
    metrics: Mapping[str, float]
    teacher_metrics: Mapping[str, float]
    strength: Strength
    difference: Difference
    overlap: Overlap | None = None


@dataclass(frozen=True)
class SliceResult:
    """Teacher against the best free baseline on a part of the rows."""

    name: str
    rows: int
    teacher: float
    baseline: float
    difference: Difference


@dataclass(frozen=True)
class Audit:
    """What `audit_knowledge` found; `render_audit` puts it into Markdown.

    Attributes
    ----------
    teacher, dataset
        Names.
    split, k, filter_seen
        Where and how rankings were judged.
    coverage
        By split.
    checks
        Alignment of knowledge and dataset.
    metrics
        The teacher's, by split.
    rivals
        The model given first, then the free baselines, best first.
    slices
        Teacher against the best free baseline.
    lists, distances
        Of the rows of `split`; of training rows where no row of it is covered. None without rankings.
    warnings
        What to know before distilling.
    verdict
        In plain words.
    """

    teacher: str
    dataset: str
    split: Split
    k: int
    filter_seen: bool
    coverage: Mapping[str, Coverage]
    checks: Sequence[Check]
    metrics: Mapping[str, Mapping[str, float]]
    rivals: Sequence[Rival] = ()
    slices: Sequence[SliceResult] = ()
    lists: ListProfile | None = None
    distances: DistanceProfile | None = None
    warnings: Sequence[str] = ()
    verdict: str = ""
    ks: Sequence[int] = field(default=(1, 5, 10, 20, 50))

    @property
    def baselines(self) -> list[Rival]:
        """The free baselines among the rivals, best first."""
        return [rival for rival in self.rivals if rival.kind == "baseline"]

    @property
    def model(self) -> Rival | None:
        """The model given, if any."""
        return next((rival for rival in self.rivals if rival.kind == "model"), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)


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
        Named masks over ``dataset.rows(split)``; by default head and tail targets, short and long histories.
    k
        Length of the lists that are compared (the paper: 20).

    Raises
    ------
    KnowledgeError
        The contents of the knowledge are wrong; see `Knowledge.check`.
    """
    evaluations = {name: teacher_evaluation(knowledge, dataset, name, filter_seen) for name in SPLITS}
    teacher = evaluations[split]
    rivals = [] if other is None else [_rival(teacher, other, "model", k)]
    if rivals and other is not None and other_top is not None and knowledge.ranking is not None:
        overlap = _overlap(knowledge, dataset, other, np.asarray(other_top, dtype=np.int64), filter_seen, k)
        rivals[0] = Rival(**{**vars(rivals[0]), "overlap": overlap})
    free = [_rival(teacher, e, "baseline", k, name) for name, e in (baselines or {}).items()]
    rivals += sorted(free, key=lambda rival: -rival.metrics[f"ndcg@{k}"])
    masks = default_slices(dataset, split) if slices is None else slices
    best = None if not free else (baselines or {})[rivals[len(rivals) - len(free)].name]
    lists, distances = _profiles(knowledge, dataset, teacher, filter_seen, k)
    found = Audit(
        teacher=str(knowledge.manifest.get("teacher", "teacher")),
        dataset=dataset.name,
        split=split,
        k=k,
        filter_seen=filter_seen,
        coverage={name: _coverage(knowledge, dataset, name) for name in SPLITS},
        checks=alignment(knowledge, dataset),
        metrics={name: dict(e.metrics()) for name, e in evaluations.items() if len(e.row_ids)},
        rivals=rivals,
        slices=[] if best is None else _sliced(teacher, best, dataset, masks, k),
        lists=lists,
        distances=distances,
    )
    from recdistill.knowledge.verdict import give_verdict, list_warnings

    return Audit(**{**vars(found), "warnings": list_warnings(found), "verdict": give_verdict(found)})


def teacher_evaluation(
    knowledge: Knowledge, dataset: SequenceDataset, split: Split, filter_seen: bool
) -> Evaluation:
    """Return the teacher as an `Evaluation` over the rows of a split that it was asked about.

    Ranks come from ``target_rank`` (``target_rank_unseen`` if `filter_seen`). Where the teacher gives none
    they are the positions in its lists, and an unlisted target ranks last: right for every k within the list.
    """
    rows = dataset.rows(split)
    rows = rows[knowledge.covers(dataset.row_ids[rows])]
    at = np.searchsorted(knowledge.row_ids, dataset.row_ids[rows])
    ranks = knowledge.target_rank_unseen if filter_seen else knowledge.target_rank
    if ranks is not None:
        known = ranks[at].astype(np.int64)
        rows, known = rows[known != PAD], known[known != PAD]
    elif knowledge.ranking is not None:
        lists = top_lists(
            knowledge.ranking[at], dataset, rows, knowledge.ranking.shape[1], filter_seen=filter_seen
        )
        hits = lists == dataset.targets(rows)[:, None]
        known = np.where(hits.any(axis=1), hits.argmax(axis=1), dataset.item_count - 1)
    else:
        rows, known = rows[:0], np.empty(0, dtype=np.int64)
    name = str(knowledge.manifest.get("teacher", "teacher"))
    return Evaluation(name, split, dataset.row_ids[rows], known, dataset.item_count, filter_seen)


def alignment(knowledge: Knowledge, dataset: SequenceDataset) -> list[Check]:
    """Ask whether knowledge and dataset belong together, by what they say and by what they hold."""
    manifest = knowledge.manifest
    same = manifest.get("dataset_fingerprint") == dataset.fingerprint
    checks = [Check("fingerprint", same, "the dataset's own" if same else "another dataset, or none named")]
    if "title_hash" in manifest:
        titles = manifest["title_hash"] == title_hash(dataset.catalogue.titles)
        checks.append(
            Check("titles", titles, "unchanged" if titles else "changed since the teacher read them")
        )
    unknown = int((~np.isin(knowledge.row_ids, dataset.row_ids)).sum())
    checks.append(Check("row ids", not unknown, f"{unknown:,} of {len(knowledge):,} not in the dataset"))
    items = knowledge.item_count == dataset.item_count
    checks.append(Check("items", items, f"{knowledge.item_count:,} and {dataset.item_count:,}"))
    if unknown or not items:
        return checks
    targets = dataset.targets(dataset.positions_of(knowledge.row_ids))
    knowledge.check(targets)
    checks.append(Check("contents", True, "ids, distances and vectors are in range; lists are lists"))
    checks += _agreement(knowledge, targets)
    return checks


def _agreement(knowledge: Knowledge, targets: Ints) -> list[Check]:
    """Compare each listed target's place and distance with those stored for it: shuffled rows would
    differ."""
    if knowledge.ranking is None:
        return []
    listed, place = np.nonzero(knowledge.ranking == targets[:, None])
    checks = []
    if knowledge.target_rank is not None and len(listed):
        ranks = knowledge.target_rank[listed]
        wrong = float(((ranks != PAD) & (ranks < place)).mean())
        checks.append(Check("places of listed targets", wrong < 0.01, f"{wrong:.1%} contradict target_rank"))
    if knowledge.target_distance is not None and knowledge.ranking_distance is not None and len(listed):
        known, found = knowledge.target_distance[listed], knowledge.ranking_distance[listed, place]
        wrong = float((np.isfinite(known) & ~np.isclose(known, found, rtol=1e-2, atol=1e-3)).mean())
        checks.append(
            Check("distances of listed targets", wrong < 0.01, f"{wrong:.1%} contradict target_distance")
        )
    return checks


def default_slices(dataset: SequenceDataset, split: Split) -> dict[str, npt.NDArray[np.bool_]]:
    """Return masks over ``dataset.rows(split)``: popular and rare targets, short and long histories.

    Popular items are the fewest that make up half of all training targets; histories are long from the
    median on."""
    rows = dataset.rows(split)
    popularity = dataset.popularity
    order = np.argsort(-popularity, kind="stable")
    head = np.zeros(dataset.item_count, dtype=np.bool_)
    head[order[: int(np.searchsorted(np.cumsum(popularity[order]), popularity.sum() / 2)) + 1]] = True
    popular = head[dataset.targets(rows)]
    lengths = dataset.history_lengths(rows)
    long = lengths >= (np.median(lengths) if len(lengths) else 0)
    return {
        "popular targets": popular,
        "rare targets": ~popular,
        "long histories": long,
        "short histories": ~long,
    }


def _coverage(knowledge: Knowledge, dataset: SequenceDataset, split: Split) -> Coverage:
    ids = dataset.row_ids[dataset.rows(split)]
    return Coverage(len(ids), int(knowledge.covers(ids).sum()))


def _common(first: Evaluation, second: Evaluation) -> tuple[Ints, Ints, Ints]:
    """Return the row ids that both answer, and where each has them."""
    return np.intersect1d(first.row_ids, second.row_ids, return_indices=True)  # type: ignore[return-value]


def _rival(teacher: Evaluation, other: Evaluation, kind: str, k: int, name: str | None = None) -> Rival:
    ids, mine, theirs = _common(teacher, other)
    ranks, other_ranks = np.asarray(teacher.ranks)[mine], np.asarray(other.ranks)[theirs]
    part = [
        Evaluation(e.name, e.split, ids, r, e.item_count, e.filter_seen)
        for e, r in ((teacher, ranks), (other, other_ranks))
    ]
    ks = sorted({1, 5, 10, 20, 50, k})
    return Rival(
        name=name or other.name,
        kind=kind,
        metrics=dict(part[1].metrics(ks)),
        teacher_metrics=dict(part[0].metrics(ks)),
        strength=relative_strength(ranks, other_ranks, k),
        difference=ndcg_difference(ranks, other_ranks, k),
    )


def _overlap(
    knowledge: Knowledge,
    dataset: SequenceDataset,
    other: Evaluation,
    other_top: Ints,
    filter_seen: bool,
    k: int,
) -> Overlap | None:
    covered = knowledge.covers(other.row_ids)
    if knowledge.ranking is None or not covered.any():
        return None
    ids = np.asarray(other.row_ids)[covered]
    rows = dataset.positions_of(ids)
    lists = knowledge.ranking[np.searchsorted(knowledge.row_ids, ids)]
    mine = top_lists(lists, dataset, rows, k, filter_seen=filter_seen)
    return top_overlap(mine, other_top[covered, :k], dataset.targets(rows))


def _profiles(
    knowledge: Knowledge, dataset: SequenceDataset, teacher: Evaluation, filter_seen: bool, k: int
) -> tuple[ListProfile | None, DistanceProfile | None]:
    ids, ranks = teacher.row_ids, teacher.ranks
    if not len(ids):  # a teacher that answered training rows only is still described
        train = dataset.row_ids[dataset.rows("train")]
        ids, ranks = train[knowledge.covers(train)], None
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
    first, second = np.asarray(teacher.ranks)[mine], np.asarray(baseline.ranks)[theirs]
    results = []
    for name, mask in masks.items():
        inside = mask[place]
        if not inside.any():
            continue
        one, two = first[inside], second[inside]
        results.append(
            SliceResult(
                name=name,
                rows=len(one),
                teacher=float((one < k).mean()),
                baseline=float((two < k).mean()),
                difference=ndcg_difference(one, two, k),
            )
        )
    return results
