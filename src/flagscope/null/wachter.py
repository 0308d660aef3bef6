"""Bulk of the squared cosines between two Haar-random subspaces."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flagscope.null.validation import check_dimensions


def wachter_edges(p: int, q: int, d: int) -> tuple[float, float]:
    """Edges λ± of the bulk of cos² between Haar-random subspaces of dimensions p and q of R^d.

    λ± = (√((p/d)(1 - q/d)) ± √((q/d)(1 - p/d)))², the limit as p, q and d grow in proportion.

    Parameters
    ----------
    p, q, d
        Dimensions of the subspaces and of the space.

    Returns
    -------
    lower, upper
        In [0, 1].

    Raises
    ------
    InputError
        If the dimensions are out of range.

    References
    ----------
    K. W. Wachter, "The limiting empirical measure of multiple discriminant ratios", Ann. Stat. 8
    (1980) 937-957.

    Examples
    --------
    >>> wachter_edges(2, 2, 4)
    (0.0, 1.0)
    """
    check_dimensions(d, p=p, q=q)
    first, second = math.sqrt(p * (d - q)) / d, math.sqrt(q * (d - p)) / d
    return (first - second) ** 2, min(1.0, (first + second) ** 2)


def wachter_density(squared_cosine: ArrayLike, p: int, q: int, d: int) -> NDArray[np.float64]:
    """Limiting density of cos² between Haar-random subspaces.

    f(x) = d/(2π min(p, q)) · √((x - λ-)(λ+ - x)) / (x (1 - x)) on [λ-, λ+]. Its mass is 1 less the
    share (p+q-d)/min(p, q) of cosines that are forced to 1 where p + q > d.

    Parameters
    ----------
    squared_cosine
        Points, any shape.
    p, q, d
        Dimensions of the subspaces, 1 to d - 1, and of the space.

    Returns
    -------
    ndarray
        Density at the points, 0 outside the edges.

    Raises
    ------
    InputError
        If the dimensions are out of range.

    References
    ----------
    As `wachter_edges`.

    Examples
    --------
    >>> wachter_density([0.25, 0.5], 2, 2, 4).round(4)
    array([0.7351, 0.6366])
    """
    check_dimensions(d, p=p, q=q)
    x = np.asarray(squared_cosine, dtype=np.float64)
    lower, upper = wachter_edges(p, q, d)
    inside = (x > lower) & (x < upper)
    safe = np.where(inside, x, 0.5)
    root = np.sqrt(np.where(inside, (safe - lower) * (upper - safe), 0.0))
    return d / (2.0 * math.pi * max(1, min(p, q))) * root / (safe * (1.0 - safe))
