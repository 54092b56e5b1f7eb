"""Is one model better than another, and by how much: paired test, bootstrap intervals, Holm's correction.

* **Test.** Paired randomisation: under the null hypothesis the two models' values of one row may be
  swapped, so the signs of the row differences are flipped at random. With several seeds a row's value is
  first averaged over the seeds; the test then speaks about the averaged models on rows like these, and the
  interval below carries the spread of the seeds. (Smucker, Allan, Carterette, CIKM 2007.)
* **Interval.** Percentile bootstrap; every resample draws rows with replacement (the same rows for all
  models, so it is paired) and, independently for each model, seeds with replacement (Efron, Tibshirani 1993).
  Few seeds make it somewhat too narrow: with S seeds it sees (S - 1) / S of their variance.
* **Several comparisons.** Holm's step-down correction over all comparisons of one table. (Holm 1979.)

Rows are treated as exchangeable: several rows of one user count as several questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError
from recdistill.evaluate.bootstrap import DRAWS_AT_ONCE, Bootstrap, Interval

Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Comparison:
    """A model against a reference on one metric.

    Attributes
    ----------
    metric, model, reference
        What was compared.
    value, reference_value
        Means over rows and seeds.
    difference
        ``value - reference_value``.
    relative
        ``difference / reference_value``, or None where the reference is 0.
    interval
        Bootstrap interval of the difference.
    confidence
        Its level, e.g. 0.95.
    p
        Two-sided p-value of the paired randomisation test.
    p_holm
        The same after Holm's correction over the comparisons it was reported with; equal to `p` when alone.
    n
        Rows.
    seeds
        Number of seeds of the model and of the reference.
    """

    metric: str
    model: str
    reference: str
    value: float
    reference_value: float
    difference: float
    relative: float | None
    interval: Interval
    confidence: float
    p: float
    p_holm: float
    n: int
    seeds: tuple[int, int]


def compare_many(
    values: Mapping[str, Floats],
    reference: str,
    *,
    metric: str,
    permutations: int = 10_000,
    seed: int = 0,
    bootstrap: Bootstrap | None = None,
) -> dict[str, Comparison]:
    """Compare every model with the reference; p-values are Holm-corrected over these comparisons.

    Parameters
    ----------
    values
        Name → ``(S, n)`` metric of each seed and row, the reference among them.
    reference
        The name that the others are compared with.
    metric
        Name of the metric, for the record.
    permutations
        Random sign patterns of each test.
    seed
        Seed of the random numbers.
    bootstrap
        Resampled means of the same values; made with the defaults when None.

    Returns
    -------
    dict
        Name → comparison, in the order of `values`, without the reference.

    Raises
    ------
    ConfigError
        The reference is not there, there is no row, or the models have different numbers of rows.
    """
    _check_values(values, reference)
    bootstrap = bootstrap or Bootstrap(values, seed=seed)
    base = values[reference]
    found = []
    for name, own in values.items():
        if name == reference:
            continue
        value, reference_value = float(own.mean()), float(base.mean())
        p = sign_flip_p(own.mean(0) - base.mean(0), permutations=permutations, seed=seed)
        found.append(
            Comparison(
                metric=metric,
                model=name,
                reference=reference,
                value=value,
                reference_value=reference_value,
                difference=value - reference_value,
                relative=(value - reference_value) / reference_value if reference_value else None,
                interval=bootstrap.difference(name, reference),
                confidence=bootstrap.confidence,
                p=p,
                p_holm=p,
                n=own.shape[1],
                seeds=(len(own), len(base)),
            )
        )
    return {one.model: one for one in holm_corrected(found)}


def compare_rows(
    values: Floats,
    reference_values: Floats,
    *,
    metric: str = "metric",
    model: str = "model",
    reference: str = "reference",
    permutations: int = 10_000,
    resamples: int = 2_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two models row by row.

    Parameters
    ----------
    values, reference_values
        ``(S, n)`` and ``(S', n)`` metric of each seed and row; ``(n,)`` counts as one seed.
    metric, model, reference
        Names, for the record.
    permutations
        Random sign patterns of the test; the smallest p-value is ``1 / (permutations + 1)``.
    resamples, confidence
        Of the bootstrap interval.
    seed
        Seed of the random numbers: the same input gives the same answer.

    Raises
    ------
    ConfigError
        The two have different numbers of rows, or none, or an option is out of range.
    """
    # The two may bear the same name (two runs of one model), so they are told apart by position.
    pair = {"model": np.atleast_2d(values), "reference": np.atleast_2d(reference_values)}
    _check_values(pair, "reference")
    bootstrap = Bootstrap(pair, resamples=resamples, confidence=confidence, seed=seed)
    found = compare_many(
        pair, "reference", metric=metric, permutations=permutations, seed=seed, bootstrap=bootstrap
    )
    return replace(found["model"], model=model, reference=reference)


def sign_flip_p(differences: Floats, *, permutations: int = 10_000, seed: int = 0) -> float:
    """Return the two-sided p-value of the paired randomisation test on the mean difference.

    ``p = (1 + #{|T*| >= |T|}) / (1 + permutations)``: the observed pattern is one of the possible ones, and
    with it counted the test keeps its level exactly (Phipson, Smyth 2010).

    Parameters
    ----------
    differences
        ``(n,)`` one model's value minus the other's.
    permutations
        Random sign patterns, at least 1.
    seed
        Seed of the signs.

    Raises
    ------
    ConfigError
        `permutations` is below 1.
    """
    if permutations < 1:
        raise ConfigError(f"permutations = {permutations} must be at least 1. Use 10000.")
    active = differences[differences != 0]  # a row without a difference is the same under either sign
    if not len(active):
        return 1.0
    rng = np.random.default_rng(seed)
    total = active.sum()
    limit = abs(total) - _ROUNDING * np.abs(active).sum()  # equal sums may differ in the last bit
    # The generator makes four bytes at once: whole fours of patterns, so that chunks do not change the answer.
    extreme, step = 0, 4 * max(1, DRAWS_AT_ONCE // len(active) // 4)
    for start in range(0, permutations, step):
        count = min(step, permutations - start)
        bits = np.unpackbits(rng.integers(0, 256, (count, -(-len(active) // 8)), np.uint8), axis=1)
        flipped = bits[:, : len(active)].astype(np.float64) @ active  # (count,), sum of the flipped ones
        extreme += int((np.abs(total - 2 * flipped) >= limit).sum())
    return (1 + extreme) / (1 + permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p-values in the given order.

    The i-th smallest of m is multiplied by ``m - i + 1``, made monotone, and cut at 1.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in corrected]


def holm_corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with `p_holm` corrected over all of them."""
    corrected = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p) for one, p in zip(comparisons, corrected, strict=True)]


def _check_values(values: Mapping[str, Floats], reference: str) -> None:
    if reference not in values:
        raise ConfigError(f"the reference {reference!r} is not among {', '.join(values)}. Name one of them.")
    base = values[reference]
    for name, own in values.items():
        if own.ndim != 2 or 0 in own.shape or own.shape[1] != base.shape[1]:
            raise ConfigError(
                f"{name!r} has values of shape {own.shape}, {reference!r} of {base.shape}; (seeds, rows) "
                "with the same rows, at least one, is needed. Evaluate both with recdistill evaluate."
            )
