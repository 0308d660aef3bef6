"""Sum of Haar-random projectors: edges, thresholds and tests for directions that heads share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flagscope.errors import InputError
from flagscope.null.largest import largest_cosine_significance, largest_cosine_threshold
from flagscope.null.significance import Significance
from flagscope.null.tracy_widom import tracy_widom_log_sf, tracy_widom_quantile
from flagscope.null.validation import check_dimensions, check_finite, check_level

# Rounding of an eigenvalue of float32 projectors, relative to the largest possible.
_SLACK = 1e-6
# Of a table of the tail, whose logarithm is nearly straight from one to the next.
_POINTS = 400


@dataclass(frozen=True)
class ProjectorSumEdges:
    """Bulk and forced parts of the spectrum of a sum of H Haar projectors of rank r in R^d.

    Attributes
    ----------
    lower, upper
        Edges of the bulk.
    zeros
        Eigenvalues that dimension forces to 0: max(0, d - H r).
    full
        Eigenvalues that dimension forces to H, in the intersection of all:
        max(0, H r - (H-1) d).
    """

    lower: float
    upper: float
    zeros: int
    full: int


def projector_sum_edges(d: int, r: int, count: int) -> ProjectorSumEdges:
    """Edges of the spectrum of Σ_h P_h for `count` Haar-random r-dimensional subspaces of R^d.

    With t = r/d and H = count: λ± = (√(1-t) ± √(t(H-1)))².

    Parameters
    ----------
    d, r, count
        Dimension of the space, rank of each projector, number of projectors.

    Returns
    -------
    ProjectorSumEdges

    Raises
    ------
    InputError
        If r is not in 1 … d or there is no projector.

    References
    ----------
    The free additive convolution of H projections: D. Voiculescu, K. Dykema and A. Nica, Free
    Random Variables (1992), example 3.5.4; H. Kesten, Trans. AMS 92 (1959) 336-354.

    Examples
    --------
    >>> edges = projector_sum_edges(384, 32, 12)
    >>> round(edges.upper, 4), edges.zeros, edges.full
    (3.6667, 0, 0)
    """
    _check(d, r, count)
    t = r / d
    first, second = math.sqrt(1.0 - t), math.sqrt(t * (count - 1))
    return ProjectorSumEdges(
        (first - second) ** 2,
        min(float(count), (first + second) ** 2),
        max(0, d - count * r),
        max(0, count * r - (count - 1) * d),
    )


@lru_cache(maxsize=4096)
def projector_sum_threshold(d: int, r: int, count: int, *, level: float = 0.01) -> float | None:
    """Critical value of the largest eigenvalue of Σ_h P_h that dimension does not force to H.

    λ₊ + σ·TW1(level) with σ = [2 λ₊ (H - λ₊) / (H d √(λ₊ - λ₋))]^{2/3}, H = count; for two
    projectors 1 + the critical value of their largest cosine, since those are its eigenvalues.

    Parameters
    ----------
    d, r, count
        Dimension of the space, rank of each projector, number of projectors.
    level
        Probability of exceeding it by chance.

    Returns
    -------
    float or None
        None where there is no free eigenvalue to test: one projector, r = d, or a bulk that
        reaches to H.

    Raises
    ------
    InputError
        If r is not in 1 … d, there is no projector, or the level is not in (0, 1).

    Notes
    -----
    Leave out the `full` largest eigenvalues of `projector_sum_edges` before comparing. The
    threshold is conservative: in 18 settings the size was at or below the nominal one.

    References
    ----------
    The scale is that of a square-root edge, which the density of the sum of projections has
    (`projector_sum_edges`), matched to the Airy kernel: C. Tracy and H. Widom, Comm. Math. Phys.
    177 (1996) 727-754.

    Examples
    --------
    >>> [round(projector_sum_threshold(d, r, h), 3) for d, r, h in
    ...  ((384, 32, 12), (768, 64, 12), (4096, 128, 32))]
    [3.74, 3.713, 3.893]
    """
    check_level(level)
    _check(d, r, count)
    if count == 1 or r == d:
        return None
    if count == 2:
        cosine = largest_cosine_threshold(r, r, d, level=level)
        return None if cosine is None else 1.0 + cosine
    edge = _soft_edge(d, r, count)
    if edge is None:
        return None
    threshold = edge[0] + edge[1] * tracy_widom_quantile(level)
    return threshold if threshold < count else None


def projector_sum_significance(value: float, d: int, r: int, count: int) -> Significance:
    """One-sided test of the largest free eigenvalue of Σ_h P_h against the Haar null.

    Parameters
    ----------
    value
        Largest eigenvalue that dimension does not force to H: leave out the `full` largest of
        `projector_sum_edges`.
    d, r, count
        Dimension of the space, rank of each projector, number of projectors. Of unequal ranks give
        the largest: the test is conservative then, since more rank means larger eigenvalues.

    Returns
    -------
    Significance
        Upper-tail p-value; z is None, since the law is not nearly normal. Status "no freedom" where
        there is no free eigenvalue to test.

    Raises
    ------
    InputError
        If r is not in 1 … d, there is no projector, or the value is not in [0, H].

    Notes
    -----
    The laws of `projector_sum_threshold`. Near H the tail falls like a power of H - λ: f + 1
    directions common to all, f of them forced, are (f+1)(d-f-1) parameters for (f+1) H (d-r)
    conditions, so P(λ > H - x) is of order x^{(f+1)(H(d-r) - d + f + 1)/2}. The Tracy-Widom tail
    does not know of that end; where it would fall faster than this power, it is slowed to it.

    References
    ----------
    As `projector_sum_threshold` and `largest_cosine_significance`.

    Examples
    --------
    >>> round(projector_sum_significance(4.2, 384, 32, 12).log10_p, 2)
    -18.01
    """
    check_finite(value=value)
    edges = projector_sum_edges(d, r, count)
    if not 0.0 <= value <= count * (1.0 + _SLACK):
        raise InputError(
            f"value = {value} lies outside [0, {count}]",
            hint="pass an eigenvalue of the sum of the projectors",
        )
    if count == 1 or r == d:
        return Significance.undefined("no freedom: the dimensions fix every eigenvalue")
    if count == 2:
        return largest_cosine_significance(min(1.0, max(0.0, value - 1.0)), r, r, d)
    edge = _soft_edge(d, r, count)
    if edge is None:
        return Significance.undefined("no freedom: chance reaches the largest value possible")
    power = 0.5 * (edges.full + 1) * (count * (d - r) - d + edges.full + 1)
    # A value nearer to H than float32 resolves is tested at the distance that it resolves.
    s = (min(value, count * (1.0 - _SLACK)) - edge[0]) / edge[1]
    power = 0.5 * (edges.full + 1) * (count * (d - r) - d + edges.full + 1)
    turn, points, logs = _slowed_tail(*edge, power, count)
    log_tail = tracy_widom_log_sf(s) if s <= turn else float(np.interp(s, points, logs))
    return Significance.one_sided(None, log_tail=log_tail)


def _soft_edge(d: int, r: int, count: int) -> tuple[float, float] | None:
    """Upper edge and Tracy-Widom scale of three projectors or more."""
    # At t = 1 - 1/H the bulk meets H; closer than a step in r the two cannot be distinguished.
    if abs(count * r - (count - 1) * d) < 1:
        return None
    edges = projector_sum_edges(d, r, count)
    width = math.sqrt(edges.upper - edges.lower)
    scale = (2.0 * edges.upper * (count - edges.upper) / (count * d * width)) ** (2.0 / 3.0)
    return edges.upper, scale


@lru_cache(maxsize=4096)
def _slowed_tail(
    upper: float, scale: float, power: float, count: int
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """The Tracy-Widom tail with a slope of at most that of (H - λ)^power.

    Returns where it is first slowed (infinity where it never is), and points with the logarithm of
    the tail from there to H.
    """
    end = (count - upper) / scale
    points = np.linspace(0.0, end, _POINTS)
    logs = np.array([tracy_widom_log_sf(float(s)) for s in points])
    # The integral of the least of both slopes, from point to point.
    allowed = power * np.diff(np.log(np.maximum(end - points, end * _SLACK)))
    falls = np.diff(logs)
    slowed = falls < allowed
    if not slowed.any():
        return math.inf, points, logs
    first = int(np.argmax(slowed))
    falls = np.maximum(falls, allowed)[first:]
    slow = np.concatenate([[logs[first]], logs[first] + np.cumsum(falls)])
    return float(points[first]), points[first:], slow


def _check(d: int, r: int, count: int) -> None:
    check_dimensions(d, r=r)
    if r == 0:
        raise InputError("a projector of rank 0 adds nothing", hint="leave out heads of rank 0")
    if count < 1:
        raise InputError(f"count = {count} projectors is none", hint="give at least one")
