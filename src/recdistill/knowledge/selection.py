"""Which rows are worth a teacher: pure functions from rows to fewer rows.

A teacher that costs money is asked only where it helps, and a student learns only where the teacher knows better.
Rows are any ``(N,)`` integers, ids or positions; what is known about them comes in arrays beside them; the answer
is ascending.

=============  ======================================================  =========================================
name           rows                                                    needs
=============  ======================================================  =========================================
`all_rows`     all                                                     nothing
`hard_band`    of middling difficulty to the student, that the         the student's ranks of the true items;
               teacher ranks better                                    the teacher's, where it was asked
`confident`    whose true item lies nearest to the teacher's answer    distances of the true items
`random_rows`  a random share                                          nothing
`budget_rows`  drawn by the policy with the largest guaranteed gain    a difficulty
=============  ======================================================  =========================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from recdistill.errors import ConfigError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[Any]


def all_rows(rows: Ints) -> Ints:
    """Return all rows."""
    return np.sort(rows)


def random_rows(rows: Ints, share: float, *, seed: int = 0) -> Ints:
    """Return a random share of the rows, the same for the same seed.

    Raises
    ------
    ConfigError
        `share` is not above 0 and at most 1.
    """
    count = _count(len(rows), share)
    return np.sort(np.random.default_rng(seed).permutation(rows)[:count])


def hard_band(
    rows: Ints,
    student_ranks: Numbers,
    *,
    share: float = 0.2,
    centre: float = 0.5,
    teacher_ranks: Numbers | None = None,
) -> Ints:
    """Return the rows that are hard but can be solved: of the rows in question, those nearest to the band's centre.

    What the student gets right needs no teacher; what nobody gets right teaches noise.

    Parameters
    ----------
    rows
        ``(N,)``.
    student_ranks
        ``(N,)`` 0-based ranks of the true items by a student without a teacher.
    share
        Share of all N rows to keep, above 0 and at most 1; fewer where fewer come into question.
    centre
        The band's centre as a share of the rows, from the easiest (0) to the hardest (1).
    teacher_ranks
        ``(N,)`` the teacher's ranks, -1 where unknown. With them only rows come into question that it ranks
        better than the student.

    Raises
    ------
    ConfigError
        `share` or `centre` is out of range.
    """
    if not 0 <= centre <= 1:
        raise ConfigError(f"centre is {centre}. Allowed: 0 (easiest) to 1 (hardest). Set select.centre=0.5.")
    count = _count(len(rows), share)
    distance = np.abs(_places(student_ranks) - centre)
    solvable = np.ones(len(rows), np.bool_)
    if teacher_ranks is not None:
        solvable = (teacher_ranks >= 0) & (teacher_ranks < student_ranks)
    chosen = np.flatnonzero(solvable)
    return np.sort(rows[chosen[np.argsort(distance[chosen], kind="stable")[:count]]])


def confident(rows: Ints, target_distances: Numbers, share: float) -> Ints:
    """Return the share of the rows whose true item lies nearest to what the teacher answered.

    Parameters
    ----------
    rows
        ``(N,)``.
    target_distances
        ``(N,)``; NaN where unknown, and such a row is never taken.
    share
        Above 0 and at most 1, of all N rows.

    Raises
    ------
    ConfigError
        `share` is out of range.
    """
    count = _count(len(rows), share)
    known = np.flatnonzero(~np.isnan(target_distances))
    order = np.argsort(target_distances[known], kind="stable")
    return np.sort(rows[known[order[:count]]])


def budget_rows(
    rows: Ints,
    difficulty: Numbers,
    count: int,
    *,
    effective: float = 0.1,
    similar: float = 0.5,
    exponent: float = 10.0,
    seed: int = 0,
) -> Ints:
    """Return `count` rows drawn by `max_min_policy`, for a teacher that was not asked about any.

    Parameters
    ----------
    rows
        ``(N,)``.
    difficulty
        ``(N,)``, larger is harder; see `recdistill.evaluate.session_difficulty`.
    count
        Rows to take, at least 1; at most as many as the policy takes into account.
    effective, similar, exponent
        See `max_min_policy`.
    seed
        Of the draw.

    Raises
    ------
    ConfigError
        A value is out of range.
    """
    if count < 1:
        raise ConfigError(
            f"count is {count}. Allowed: at least 1, the rows to ask about. Set select.count=500."
        )
    if not len(rows):
        return rows
    policy = max_min_policy(len(rows), effective=effective, similar=similar, exponent=exponent)
    order = np.argsort(-np.asarray(difficulty, np.float64), kind="stable")  # hardest first
    with np.errstate(divide="ignore"):
        keys = np.log(policy) + np.random.default_rng(seed).gumbel(
            size=len(rows)
        )  # drawn without replacement
    taken = np.argsort(-keys)[: min(count, int(np.count_nonzero(policy)))]
    return np.sort(rows[order[taken]])


def max_min_policy(
    count: int, *, effective: float = 0.1, similar: float = 0.5, exponent: float = 10.0
) -> Floats:
    """Return with what probability to ask about each of N rows, hardest first, before knowing any answer.

    ALKDRec, Du et al., AAAI 2025, https://arxiv.org/abs/2502.15685. An answer may correct the student, be what it
    answers itself, or be wrong. Of the row in place k the three are worth g_k, g_k / 2 and -g_k / 2 with
    g_k = k^-a: the harder the row, the more is at stake. Which rows get which answer is unknown, but shares are
    assumed: e correct the student, s are similar, and the rest, 1 - e - s, are wrong. The policy whose gain is
    largest in the worst case is::

        b_k = g_k among the easiest share e, else g_k / 2
        p_k proportional to 1 / (b_k + g_k / 2) for k <= k*, else 0
        k* = argmax_k (sum_{j<=k} b_j / (b_j + g_j / 2) - N (1 - e - s)) / sum_{j<=k} 1 / (b_j + g_j / 2)

    It spares the easiest rows, where nothing is to gain, and seldom asks about the hardest, where an answer may
    be wrong: with the defaults nine of ten questions go to rows at 70 to 93 % of the way to the easiest, and none
    beyond 94 %. (The authors' code leaves out row k* itself, and finds the policy anew after each question.)

    Parameters
    ----------
    count
        N, at least 1.
    effective, similar
        e and s, shares of 0 to 1 that leave the policy something to gain.
    exponent
        a, 0 or more.

    Returns
    -------
    ndarray
        ``(N,)`` float64, sums to 1.

    Raises
    ------
    ConfigError
        A value is out of range, or no policy gains anything.
    """
    shares_fit = 0 <= effective <= 1 and 0 <= similar <= 1 and effective + similar <= 1
    if not shares_fit or not exponent >= 0 or count < 1:
        raise ConfigError(
            f"effective is {effective}, similar {similar}, exponent {exponent} and the number of rows {count}. "
            "Allowed: shares whose sum is at most 1, an exponent of 0 or more, at least one row. "
            "Set select.effective=0.1 select.similar=0.5."
        )
    places = np.arange(1, count + 1)
    gain = np.where(places > int(count * (1 - effective)), 1.0, 0.5)  # b_k over g_k
    weight = (places / count) ** exponent / (gain + 0.5)  # 1 / (b_k + g_k / 2), up to a factor
    surplus = np.cumsum(gain / (gain + 0.5)) - count * (1 - effective - similar)
    if not surplus.max() > 0:
        raise ConfigError(
            f"with {effective:.0%} correcting and {similar:.0%} similar answers no policy gains anything. "
            "Allowed: shares that leave fewer wrong answers. Set select.similar=0.5."
        )
    last = int(np.argmax(surplus / np.cumsum(weight)))
    policy = np.where(places <= last + 1, weight, 0.0)
    normalised: Floats = policy / policy.sum()
    return normalised


def _places(values: Numbers) -> Floats:
    """Return ``(N,)`` from 0 (smallest) to 1 (largest); equal values share their middle place."""
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - (sizes + 1) / 2
    places: Floats = middle[group] / max(1, len(values) - 1)
    return places


def _count(rows: int, share: float) -> int:
    if not 0 < share <= 1:
        raise ConfigError(f"share is {share}. Allowed: above 0, at most 1. Set select.share=0.2.")
    return max(1, round(share * rows)) if rows else 0
