"""Sum of Haar-random projectors: edges, and thresholds for directions that many heads share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from flagscope.errors import InputError
from flagscope.null.largest import largest_cosine_threshold
from flagscope.null.tracy_widom import tracy_widom_quantile
from flagscope.null.validation import check_dimensions, check_level


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
        None where there is no free eigenvalue that could tell: one projector, r = d, or a bulk that
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
    edges = projector_sum_edges(d, r, count)
    if count == 1 or r == d:
        return None
    if count == 2:
        cosine = largest_cosine_threshold(r, r, d, level=level)
        return None if cosine is None else 1.0 + cosine
    # At t = 1 - 1/H the bulk meets H; closer than a step in r it cannot be told from there.
    if abs(count * r - (count - 1) * d) < 1:
        return None
    width = math.sqrt(edges.upper - edges.lower)
    scale = (2.0 * edges.upper * (count - edges.upper) / (count * d * width)) ** (2.0 / 3.0)
    threshold = edges.upper + scale * tracy_widom_quantile(level)
    return threshold if threshold < count else None


def _check(d: int, r: int, count: int) -> None:
    check_dimensions(d, r=r)
    if r == 0:
        raise InputError("a projector of rank 0 adds nothing", hint="leave out heads of rank 0")
    if count < 1:
        raise InputError(f"count = {count} projectors is none", hint="give at least one")
