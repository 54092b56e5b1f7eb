"""From the evaluations of many models to one report: averages, intervals, tests, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError, unknown_name
from recdistill.evaluate.accuracy import KS
from recdistill.evaluate.bootstrap import Bootstrap
from recdistill.evaluate.evaluation import Evaluation, require_same_protocol
from recdistill.evaluate.report import Kind, Report, ReportLine, SliceTable
from recdistill.evaluate.significance import Comparison, compare_many, holm_corrected

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Groups = Mapping[str, Sequence[Evaluation]]


@dataclass(frozen=True)
class _Judge:
    """The reference, the metric and the options of every test in one report."""

    reference: str
    metric: str
    permutations: int
    resamples: int
    confidence: float
    seed: int

    def bootstrap(self, values: Mapping[str, Floats]) -> Bootstrap:
        return Bootstrap(values, resamples=self.resamples, confidence=self.confidence, seed=self.seed)

    def compare(self, values: Mapping[str, Floats], bootstrap: Bootstrap) -> dict[str, Comparison]:
        return compare_many(
            values,
            self.reference,
            metric=self.metric,
            permutations=self.permutations,
            seed=self.seed,
            bootstrap=bootstrap,
        )


def comparison_report(
    groups: Groups,
    *,
    reference: str,
    dataset_name: str,
    ks: Sequence[int] = KS,
    metric: str = "ndcg@20",
    slices: Mapping[str, Mapping[str, Bools]] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    permutations: int = 10_000,
    resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Report:
    """Compare models with a reference on the same rows.

    Parameters
    ----------
    groups
        Name of a model → its evaluations, one a seed.
    reference
        The name of the model that the others are compared with.
    dataset_name
        For the tables.
    ks
        Cut-offs of the tables; that of `metric` is added.
    metric
        The one that is tested, such as ``"ndcg@20"``.
    slices
        Title → slice → ``(n,)`` bool in the order of the evaluations' row ids (see `slice_masks`).
    kinds
        Name → ``baseline``, ``teacher``, ``student`` (the default), ``distilled`` or ``oracle``.
    permutations, resamples, confidence, seed
        See `recdistill.evaluate.significance`.

    Raises
    ------
    ConfigError
        The evaluations differ in split, rows, items or in the treatment of seen items, the reference is not
        among them, or a model has no evaluation.
    """
    kinds = kinds or {}
    _check_groups(groups, reference, kinds)
    first = groups[reference][0]
    judge = _Judge(reference, metric, permutations, resamples, confidence, seed)
    values = {name: np.stack([run.per_row(metric) for run in runs]) for name, runs in groups.items()}
    cut_offs = tuple(sorted({*ks, int(metric.partition("@")[2])}))
    return Report(
        dataset=dataset_name,
        split=first.split,
        rows=len(first),
        items=first.item_count,
        filter_seen=first.filter_seen,
        metric=metric,
        ks=cut_offs,
        reference=reference,
        permutations=permutations,
        resamples=resamples,
        confidence=confidence,
        lines=_lines(groups, kinds, values, cut_offs, judge),
        slices=[_slice_table(title, masks, values, first, judge) for title, masks in (slices or {}).items()],
    )


def _check_groups(groups: Groups, reference: str, kinds: Mapping[str, Kind]) -> None:
    if reference not in groups:
        raise unknown_name("reference", reference, groups)
    empty = [name for name, runs in groups.items() if not runs]
    if empty:
        raise ConfigError(f"{empty[0]!r} has no evaluation; at least one is needed. Run recdistill evaluate.")
    for name, kind in kinds.items():
        if name not in groups:
            raise unknown_name("model", name, groups)
        if kind not in get_args(Kind):
            raise unknown_name("kind", kind, get_args(Kind))
    require_same_protocol([run for runs in groups.values() for run in runs])


def _lines(
    groups: Groups,
    kinds: Mapping[str, Kind],
    values: Mapping[str, Floats],
    ks: Sequence[int],
    judge: _Judge,
) -> list[ReportLine]:
    bootstrap = judge.bootstrap(values)
    compared = judge.compare(values, bootstrap)
    lines = []
    for name, runs in groups.items():
        table = [run.metrics(ks) for run in runs]
        columns = {metric: [one[metric] for one in table] for metric in table[0]}
        spread = {
            metric: float(np.std(column, ddof=1)) for metric, column in columns.items() if len(runs) > 1
        }
        lines.append(
            ReportLine(
                name=name,
                kind=kinds.get(name, "student"),
                seeds=tuple(run.seed for run in runs),
                metrics={metric: float(np.mean(column)) for metric, column in columns.items()},
                spread=spread,
                interval=bootstrap.interval(name),
                comparison=compared.get(name),
            )
        )
    return lines


def _slice_table(
    title: str, masks: Mapping[str, Bools], values: Mapping[str, Floats], rows: Evaluation, judge: _Judge
) -> SliceTable:
    """Compare all models with the reference on each slice that has rows; one correction for the table."""
    counts = {name: len(rows.restrict(mask, slice_name=name)) for name, mask in masks.items()}
    counts = {name: count for name, count in counts.items() if count}
    means: dict[str, dict[str, float]] = {}
    compared: dict[str, list[Comparison]] = {}
    for name in counts:
        part = {model: own[:, masks[name]] for model, own in values.items()}
        means[name] = {model: float(own.mean()) for model, own in part.items()}
        compared[name] = list(judge.compare(part, judge.bootstrap(part)).values())
    corrected = holm_corrected([one for found in compared.values() for one in found])
    models = len(values) - 1
    comparisons = {
        name: {one.model: one for one in corrected[k * models : (k + 1) * models]}
        for k, name in enumerate(counts)
    }
    return SliceTable(title=title, rows=counts, values=means, comparisons=comparisons)
