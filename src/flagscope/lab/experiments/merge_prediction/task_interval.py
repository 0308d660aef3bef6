"""Rank correlation over pairs of tasks, with an interval that knows that pairs share tasks.

Twenty-eight pairs of eight tasks are not twenty-eight independent numbers: each task is in seven
of them. The independent units are tasks, and the networks from which they start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from flagscope.errors import InputError
from flagscope.lab.experiment import Estimate
from flagscope.lab.intervals import CORRELATION, LEVEL

Table = Sequence[Sequence[float | None]]
Rows = tuple[Float[np.ndarray, "s n"], Float[np.ndarray, "s n"]]
# Correlations are moved away from ±1 by this much, where Fisher's transformation has no value.
_CLOSEST = 1e-9
# Ranks and what a fit leaves of them are of size 1 to 28; round-off is below 1e-13.
_DECIMALS = 10


def rank_correlations(
    x: Float[np.ndarray, "s n"], y: Float[np.ndarray, "s n"]
) -> Float[np.ndarray, " s"]:
    """Spearman's ρ of each row; zero where one of the two is constant: it then foretells nothing.

    Examples
    --------
    >>> rank_correlations(np.array([[1.0, 2.0, 4.0]]), np.array([[3.0, 2.0, 1.0]])).tolist()
    [-1.0]
    """
    a, b = (_centred(stats.rankdata(v, axis=1)) for v in (x, y))
    scale = np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    # The sum of squares of ranks that are not all equal is 1/2 at the least.
    varied = scale > 0
    return np.where(varied, (a * b).sum(1) / np.where(varied, scale, 1), 0.0)


def _centred(x: Float[np.ndarray, "s n"]) -> Float[np.ndarray, "s n"]:
    return x - x.mean(1, keepdims=True)


def without_task_means(
    values: Float[np.ndarray, "s n"], pairs: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "s n"]:
    """What is left of the values of pairs when an effect of each task is fitted and taken off.

    Examples
    --------
    >>> pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    >>> additive = np.array([[float(i + j) for i, j in pairs]])
    >>> bool(np.abs(without_task_means(additive, pairs)).max() < 1e-12)
    True
    """
    tasks = sorted({task for pair in pairs for task in pair})
    design = np.array([[float(task in pair) for task in tasks] for pair in pairs])
    return values - values @ np.linalg.pinv(design).T @ design.T


def task_interval(
    name: str,
    x: Table,
    y: Table,
    pairs: Sequence[tuple[int, int]],
    *,
    specific: bool = False,
    sign: float = 1.0,
) -> Estimate | None:
    """Spearman's ρ over pairs, averaged over seeds, with a jackknife over tasks.

    Leaving out each task in turn with all its pairs gives the variance between tasks, the seeds
    give that between base networks, and the sum of both is used, with Student's t of tasks - 1
    degrees of freedom, on the scale of Fisher's transformation. The sum counts the noise of
    single networks twice, so the interval is too wide rather than too narrow.

    Parameters
    ----------
    name
        Name of the estimate.
    x, y
        One row a seed, one number a pair. A seed with an undefined number (None) is left out.
    pairs
        The two tasks of each pair.
    specific
        Whether to correlate what is left when the effect of each task is taken off the ranks: what
        is said about the pair beyond its two tasks.
    sign
        Factor on ρ, -1 where a small x should go with a large y.

    Returns
    -------
    Estimate or None
        With n = the number of tasks; None with fewer than two seeds.

    References
    ----------
    .. [1] B. Efron, C. Stein, The jackknife estimate of variance, Ann. Statist. 9 (1981) 586-596:
       biased upwards for functions of independent units.
    .. [2] T. A. B. Snijders, S. P. Borgatti, Non-parametric standard errors and tests for network
       statistics, Connections 22 (1999) 161-170: leaving out nodes of a network.
    """
    rows = _rows(x, y)
    if len(rows[0]) < 2:
        return None
    return _jackknifed(
        name, lambda left: sign * _correlation(rows, pairs, left, specific=specific), pairs
    )


def difference_interval(
    name: str,
    better: tuple[Table, float],
    worse: tuple[Table, float],
    ys: Sequence[Table],
    pairs: Sequence[tuple[int, int]],
) -> Estimate | None:
    """How much more one measure's ρ is than another's, each times its sign, averaged over outcomes.

    The same jackknife, of the difference itself and without a transformation.
    """
    columns = [(_rows(better[0], y), _rows(worse[0], y)) for y in ys]
    if any(len(rows[0]) < 2 for column in columns for rows in column):
        return None

    def gain(left: int | None) -> Float[np.ndarray, " s"]:
        return np.mean(
            [
                better[1] * _correlation(first, pairs, left, specific=False)
                - worse[1] * _correlation(second, pairs, left, specific=False)
                for first, second in columns
            ],
            axis=0,
        )

    return _jackknifed(name, gain, pairs, bounded=False)


def mean_correlation_interval(
    name: str, x: Table, ys: Sequence[Table], pairs: Sequence[tuple[int, int]], *, sign: float = 1.0
) -> Estimate | None:
    """The ρ of one measure, averaged over several outcomes, with the same jackknife."""
    columns = [_rows(x, y) for y in ys]
    if any(len(rows[0]) < 2 for rows in columns):
        return None

    def mean(left: int | None) -> Float[np.ndarray, " s"]:
        found = [_correlation(rows, pairs, left, specific=False) for rows in columns]
        return sign * np.mean(found, axis=0)

    return _jackknifed(name, mean, pairs)


def _rows(x: Table, y: Table) -> Rows:
    """The seeds in which both are defined for every pair."""
    both = [(a, b) for a, b in zip(x, y, strict=True) if None not in a and None not in b]
    first, second = (np.array([row[k] for row in both], dtype=float) for k in (0, 1))
    return first, second


def _correlation(
    rows: Rows, pairs: Sequence[tuple[int, int]], left: int | None, *, specific: bool
) -> Float[np.ndarray, " s"]:
    """ρ of each seed without the pairs of one task."""
    kept = [k for k, pair in enumerate(pairs) if left not in pair]
    if len(kept) < 3:
        raise InputError(f"{len(pairs)} pairs are too few to leave a task out")
    x, y = rows[0][:, kept], rows[1][:, kept]
    if not specific:
        return rank_correlations(x, y)
    some = [pairs[k] for k in kept]
    # Rounded, so that what is zero but for round-off counts as equal.
    x, y = (without_task_means(stats.rankdata(v, axis=1), some).round(_DECIMALS) for v in (x, y))
    return rank_correlations(x, y)


def _jackknifed(
    name: str,
    statistic: Callable[[int | None], Float[np.ndarray, " s"]],
    pairs: Sequence[tuple[int, int]],
    *,
    bounded: bool = True,
) -> Estimate:
    def scale(value: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        return np.arctanh(np.clip(value, -1 + _CLOSEST, 1 - _CLOSEST)) if bounded else value

    tasks = sorted({task for pair in pairs for task in pair})
    n = len(tasks)
    by_seed = statistic(None)
    middle = by_seed.mean()
    without = scale(np.array([statistic(task).mean() for task in tasks]))
    between_tasks = (n - 1) / n * np.square(without - without.mean()).sum()
    # Of the mean over seeds, moved to Fisher's scale by its slope there.
    slope = 1 / (1 - min(abs(middle), 1 - _CLOSEST) ** 2) if bounded else 1.0
    between_seeds = by_seed.var(ddof=1) / len(by_seed) * slope**2
    half = stats.t.ppf(0.5 + LEVEL / 2, n - 1) * np.sqrt(between_tasks + between_seeds)
    ends = scale(middle) + np.array([-half, half])
    low, high = np.tanh(ends) if bounded else ends
    return Estimate(
        name, float(middle), float(low), float(high), n, CORRELATION if bounded else None
    )
