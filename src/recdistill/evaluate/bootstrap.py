"""Percentile bootstrap over rows and seeds (Efron, Tibshirani 1993)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

#: Elements of one chunk of random draws: 32 MiB of 8-byte numbers.
DRAWS_AT_ONCE = 1 << 22


class Bootstrap:
    """Resampled means of several models, all on the same resampled rows.

    Parameters
    ----------
    values
        Name → ``(S, n)`` metric of each seed and row (S may differ between models, n may not).
    resamples
        R, number of resamples.
    confidence
        Level of the intervals, between 0 and 1.
    seed
        Seed of the resampling.

    Attributes
    ----------
    means
        Name → ``(R,)`` mean of each resample.
    """

    def __init__(
        self, values: Mapping[str, Floats], *, resamples: int = 2_000, confidence: float = 0.95, seed: int = 0
    ) -> None:
        if not 0 < confidence < 1 or resamples < 1:
            raise ConfigError(
                f"confidence = {confidence} must lie between 0 and 1 and resamples = {resamples} above 0. "
                "Use confidence = 0.95 and resamples = 2000."
            )
        self.confidence = confidence
        rng = np.random.default_rng(seed)
        per_seed = _resampled_means(np.concatenate(list(values.values())), resamples, rng)  # (all seeds, R)
        splits = np.cumsum([len(one) for one in values.values()])[:-1]
        self.means = {
            name: _resample_seeds(part, rng)
            for name, part in zip(values, np.split(per_seed, splits), strict=True)
        }

    def interval(self, name: str) -> Interval:
        """Return the interval of a model's mean."""
        return self._percentiles(self.means[name])

    def difference(self, name: str, reference: str) -> Interval:
        """Return the interval of the difference of two models' means."""
        return self._percentiles(self.means[name] - self.means[reference])

    def _percentiles(self, means: Floats) -> Interval:
        outside = (1 - self.confidence) / 2
        low, high = np.quantile(means, [outside, 1 - outside])
        return float(low), float(high)


def _resampled_means(values: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """Return ``(S, R)`` means of ``(S, n)`` values over rows drawn with replacement, the same for all."""
    n = values.shape[1]
    means = np.empty((len(values), resamples))
    step = max(1, DRAWS_AT_ONCE // n)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = rng.integers(0, n, (count, n))
        drawn += np.arange(count)[:, None] * n
        times = np.bincount(drawn.ravel(), minlength=count * n).reshape(
            count, n
        )  # how often each row was drawn
        means[:, start : start + count] = values @ times.T.astype(np.float64) / n
    return means


def _resample_seeds(means: Floats, rng: np.random.Generator) -> Floats:
    """Return ``(R,)``: in each column of ``(S, R)``, the average of S seeds drawn with replacement."""
    seeds, resamples = means.shape
    drawn = rng.integers(0, seeds, (seeds, resamples))
    averaged: Floats = np.take_along_axis(means, drawn, axis=0).mean(0)
    return averaged
