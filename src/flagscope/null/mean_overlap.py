"""Exact moments of the mean overlap ratio of several Haar-random subspaces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flagscope.errors import InputError
from flagscope.null.haar import Moments
from flagscope.null.validation import check_dimensions
from flagscope.null.zonal import fourth_moment_coefficients


def mean_overlap(ranks: Sequence[int], d: int) -> Moments:
    """Exact moments of the mean overlap ratio over all pairs of independent Haar subspaces.

    The ratio is R = mean over pairs i < j of Σcos²_ij / (r_i r_j / d). The pairs are pairwise
    independent but triangles of pairs are not: with N = (d-1)(d+2)/2, u_i = (d-r_i)/r_i,
    c_i = (d-r_i)(d-2r_i)/r_i² and elementary symmetric functions e_k over the subspaces, n pairs,

        E R = 1,    n² Var R = e_2(u)/N,
        n³ E (R-1)³ = 8 e_2(c) / ((d-1)(d-2)(d+2)(d+4)) + 6 e_3(u)/N².

    Parameters
    ----------
    ranks
        Dimensions of the subspaces (heads), each 1 to d; at least two.
    d
        Dimension of the space.

    Returns
    -------
    Moments

    Raises
    ------
    InputError
        If there are fewer than two subspaces or a rank is out of range.

    Examples
    --------
    >>> round(1 / mean_overlap([32] * 12, 384).sd, 1)
    200.8
    """
    return _mean_overlap(checked_ranks(ranks, d), d)


@lru_cache(maxsize=4096)
def _mean_overlap(ranks: tuple[int, ...], d: int) -> Moments:
    if d == 1:
        return Moments(1.0, 0.0, 0.0)
    pairs = len(ranks) * (len(ranks) - 1) / 2
    _, pair_u, triple_u = _elementary([(d - r) / r for r in ranks])
    variance = pair_u / ((d - 1) * (d + 2) / 2) / pairs**2
    third = 6.0 * triple_u / ((d - 1) * (d + 2) / 2) ** 2
    if d > 2:
        _, pair_c, _ = _elementary([(d - r) * (d - 2 * r) / r**2 for r in ranks])
        third += 8.0 * pair_c / ((d - 1) * (d - 2) * (d + 2) * (d + 4))
    return Moments(1.0, variance, third / pairs**3)


def _elementary(values: list[float]) -> tuple[float, float, float]:
    """First three elementary symmetric functions."""
    e1 = e2 = e3 = 0.0
    for value in values:
        e3 += value * e2
        e2 += value * e1
        e1 += value
    return e1, e2, e3


def checked_ranks(ranks: Sequence[int], d: int) -> tuple[int, ...]:
    """The ranks of at least two subspaces of R^d, each at least 1.

    Raises
    ------
    InputError
        Otherwise.
    """
    ranks = tuple(ranks)
    if len(ranks) < 2:
        raise InputError(
            f"an overlap needs two subspaces, got {len(ranks)}",
            hint="a single head has no partner to be compared with",
        )
    for rank in ranks:
        check_dimensions(d, rank=rank)
        if rank == 0:
            raise InputError(
                "a subspace of dimension 0 has no overlap ratio",
                hint="leave out heads of rank 0",
            )
    return ranks


def mean_overlap_fourth(ranks: Sequence[int], d: int) -> float:
    """Exact fourth central moment of the mean overlap ratio over all pairs.

    Of the products of four pairs only those are left in which every subspace occurs at least twice:
    one pair four times, two pairs twice, a triangle with one side twice, and the circle of four.

    Parameters
    ----------
    ranks, d
        As for `mean_overlap`.

    Returns
    -------
    float
        E (R-1)⁴.

    Raises
    ------
    InputError
        As `mean_overlap`.

    Examples
    --------
    >>> variance = mean_overlap([32] * 12, 384).variance
    >>> round(mean_overlap_fourth([32] * 12, 384) / variance**2, 4)
    3.0006
    """
    return _mean_overlap_fourth(checked_ranks(ranks, d), d)


@lru_cache(maxsize=4096)
def _mean_overlap_fourth(ranks: tuple[int, ...], d: int) -> float:
    if d == 1:
        return 0.0
    r = np.array(ranks, dtype=np.float64)
    pairs = len(ranks) * (len(ranks) - 1) / 2
    freedom = (d - 1) * (d + 2) / 2
    u = (d - r) / r
    # u² times Σα⁴/(Σα²)² of the trace-free part of each projector; a full one has neither.
    quartic = u * ((d - r) ** 3 + r**3) / (d * d * r * r)
    both, one, none = fourth_moment_coefficients(d)
    square = u * u
    alone = (
        both * _pairs(quartic, quartic)
        + one * 2.0 * _pairs(quartic, square)
        + none * _pairs(square, square)
    )
    twice = 3.0 * (_pairs(u, u) ** 2 - _pairs(square, square)) / freedom**2
    triangles = 0.0
    if d > 2:
        c = u * (d - 2 * r) / r
        # Σ over pairs of c_i c_j times the sum of u over all others
        others = u.sum() * _pairs(c, c) - float((c * u * (c.sum() - c)).sum())
        triangles = 96.0 * others / ((d - 1) * (d - 2) * (d + 2) * (d + 4) * freedom)
    circles = 72.0 * _fourth_elementary(u.tolist()) / freedom**3
    return float(alone + twice + triangles + circles) / pairs**4


def _pairs(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Half the sum of x_i y_j over i ≠ j."""
    return 0.5 * float(x.sum() * y.sum() - (x * y).sum())


def _fourth_elementary(values: list[float]) -> float:
    e1 = e2 = e3 = e4 = 0.0
    for value in values:
        e4 += value * e3
        e3 += value * e2
        e2 += value * e1
        e1 += value
    return e4
