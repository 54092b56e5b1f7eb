"""What an audit finds, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from recdistill.knowledge.comparisons import Difference, Overlap, Strength
from recdistill.knowledge.profile import DistanceProfile, ListProfile
from recdistill.types import Split


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
class Gate:
    """One question that a teacher should pass before it is distilled, and the answer.

    Attributes
    ----------
    name
        ``popularity``, ``student``, ``variety``, ``calibration`` or ``order``.
    status
        ``not asked`` where what it needs is missing.
    detail
        What was seen, in words with numbers; where it failed, also what to do.
    fatal
        Whether a teacher that fails should not be distilled at all.
    value, threshold
        What was compared, or None.
    """

    name: str
    status: Literal["passed", "failed", "not asked"]
    detail: str
    fatal: bool = False
    value: float | None = None
    threshold: float | None = None


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
        Teacher against `benchmark`, the best free baseline.
    lists, distances
        Of the rows of `split`; of training rows where no row of it is covered. None without rankings.
    warnings
        What to know before distilling.
    verdict
        In plain words.
    ks
        Cut-offs of the metrics.
    gates
        The quality gates, asked on validation rows.
    """

    teacher: str
    dataset: str
    split: Split
    k: int
    filter_seen: bool
    coverage: Mapping[str, Coverage]
    checks: Sequence[Check]
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    rivals: Sequence[Rival] = ()
    slices: Sequence[SliceResult] = ()
    lists: ListProfile | None = None
    distances: DistanceProfile | None = None
    warnings: Sequence[str] = ()
    verdict: str = ""
    ks: Sequence[int] = (1, 5, 10, 20, 50)
    gates: Sequence[Gate] = ()

    @property
    def baselines(self) -> list[Rival]:
        """The free baselines among the rivals, best first."""
        return [rival for rival in self.rivals if rival.kind == "baseline"]

    @property
    def benchmark(self) -> Rival | None:
        """The best baseline that is not the teacher itself: the graph teacher is one of the baselines."""
        return next((rival for rival in self.baselines if rival.strength.equal < 1), None)

    @property
    def model(self) -> Rival | None:
        """The model given, if any."""
        return next((rival for rival in self.rivals if rival.kind == "model"), None)

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        return asdict(self)
