"""Tests of the mean overlap ratio of several subspaces, and of the best cluster of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flagscope.errors import InputError
from flagscope.null.draws import FEWEST, log_tails_of_draws
from flagscope.null.haar import Moments, haar_bases, overlap_significance
from flagscope.null.joined_tails import JoinedTails, joined_tails
from flagscope.null.mean_overlap import checked_ranks, mean_overlap, mean_overlap_fourth
from flagscope.null.significance import Significance
from flagscope.null.tails import log_pearson3_tails
from flagscope.null.validation import check_finite

# From this skewness on (few subspaces, lines among them) Pearson's law ends too early below the
# mean, and in so few dimensions on both sides; there draws stand in.
_SKEWED, _SMALL, _FEW = 0.6, 5, 6
# Draws of such a sample, once for given dimensions, floating-point operations spent on it (seconds
# on one core), and numbers held at a time.
_DRAWS, _BUDGET, _BLOCK = 100_000, 2e9, 1 << 21
_SEED = 20260511


def mean_overlap_significance(ratio: float, ranks: Sequence[int], d: int) -> Significance:
    """Two-sided test of the mean overlap ratio of several subspaces against the Haar null.

    Parameters
    ----------
    ratio
        Mean over pairs i < j of Σcos²_ij / (r_i r_j / d); 1 under the null.
    ranks, d
        Dimensions of the subspaces, and of the space.

    Returns
    -------
    Significance
        z in exact null standard deviations; p from the law of Pearson's system with the exact first
        four moments, down to tails of 1e-4, and from there on in proportion to the gamma law with
        three of them. For two subspaces, from the law of `overlap_significance`. Where the skewness
        is above 0.6 (few subspaces with lines among them) the lower tail, and for few subspaces in
        at most five dimensions both, are those of up to 100,000 seeded draws, made once. Status
        "no freedom" where the dimensions fix the ratio.

    Raises
    ------
    InputError
        As `mean_overlap`, or if `ratio` is negative or not finite.

    Notes
    -----
    For many subspaces the sum of projectors is Gaussian in the N = (d-1)(d+2)/2 dimensional space
    of trace-free symmetric matrices, so the ratio is an affine image of a χ² with N degrees of
    freedom, which is of Pearson's system.

    Examples
    --------
    >>> result = mean_overlap_significance(1.893, [32] * 12, 384)
    >>> round(result.z), result.p, round(result.log10_p)
    (179, 0.0, -3573)
    """
    check_finite(ratio=ratio)
    ranks = checked_ranks(ranks, d)
    if ratio < 0.0:
        raise InputError(
            f"ratio = {ratio} is negative", hint="pass a mean of sums of squared cosines"
        )
    moments = mean_overlap(ranks, d)
    if moments.variance == 0.0:
        return Significance.undefined("no freedom: the dimensions fix the overlap")
    if len(ranks) == 2:
        return overlap_significance(ratio * ranks[0] * ranks[1] / d, *ranks, d)
    log_cdf, log_sf = _log_tails(ratio, ranks, d)
    return Significance.two_sided((ratio - 1.0) / moments.sd, log_cdf=log_cdf, log_sf=log_sf)


def cluster_significance(ratio: float, ranks: Sequence[int], d: int, *, heads: int) -> Significance:
    """One-sided test of the best cluster that could be found among many subspaces.

    Bonferroni's bound over what was searched: every group of as many of the subspaces, and every
    size of a group.

    Parameters
    ----------
    ratio
        Mean overlap ratio of the cluster, as for `mean_overlap_significance`.
    ranks, d
        Dimensions of the cluster's subspaces, and of the space.
    heads
        How many subspaces there are to choose from.

    Returns
    -------
    Significance
        Upper tail times the number of groups and of sizes, at most 1.

    Raises
    ------
    InputError
        As `mean_overlap_significance`, or if there are fewer heads than the cluster has.

    Examples
    --------
    >>> round(cluster_significance(1.1, [32] * 4, 384, heads=12).log10_p, 2)
    -4.92
    """
    if heads < len(ranks):
        raise InputError(
            f"heads = {heads} is fewer than the {len(ranks)} of the cluster",
            hint="count all subspaces from which the cluster was chosen",
        )
    test = mean_overlap_significance(ratio, ranks, d)
    if test.z is None:
        return test
    count = len(ranks)
    if count == 2:
        # Twice the smaller tail, of which the upper is one where the ratio lies above its mean.
        log_tail = math.log(10.0) * (test.log10_p or 0.0) - math.log(2.0) if ratio > 1.0 else 0.0
    else:
        log_tail = _log_tails(ratio, checked_ranks(ranks, d), d)[1]
    groups = math.lgamma(heads + 1) - math.lgamma(count + 1) - math.lgamma(heads - count + 1)
    return Significance.one_sided(test.z, log_tail=log_tail + groups + math.log(heads - 1))


def _log_tails(ratio: float, ranks: tuple[int, ...], d: int) -> tuple[float, float]:
    """Of three subspaces or more."""
    moments, law = _mean_overlap_law(tuple(sorted(ranks)), d)
    log_cdf, log_sf = law.log_tails((ratio - 1.0) / moments.sd)
    small = d <= _SMALL and len(ranks) <= _FEW
    if small or (moments.skewness > _SKEWED and ratio < 1.0):
        sample = _sample(tuple(sorted(ranks)), d)
        if sample is not None:
            drawn = log_tails_of_draws(sample, ratio)
            log_cdf, log_sf = drawn if small else (drawn[0], log_sf)
    return log_cdf, log_sf


@lru_cache(maxsize=4096)
def _mean_overlap_law(ranks: tuple[int, ...], d: int) -> tuple[Moments, JoinedTails]:
    """Moments, and the law in standard deviations: Pearson's, then the gamma law in proportion."""
    moments = mean_overlap(ranks, d)
    # Chebyshev's inequality: a tail of 1e-4 is reached within 100 standard deviations.
    law = joined_tails(
        mean=0.0, sd=1.0, skewness=moments.skewness,
        kurtosis=mean_overlap_fourth(ranks, d) / moments.variance**2,
        outer=lambda z: log_pearson3_tails(z, moments.skewness), lowest=-100.0, highest=100.0,
    )  # fmt: skip
    return moments, law


@lru_cache(maxsize=64)
def _sample(ranks: tuple[int, ...], d: int) -> NDArray[np.float64] | None:
    """Sorted ratios of independent draws; None where the budget allows too few to bear a tail."""
    generator = np.random.default_rng((_SEED, d, *ranks))
    # All but the last and largest subspace are drawn; that one is the first coordinates.
    *drawn, fixed = ranks
    cost = 4.0 * d * sum(r * r for r in drawn) + 2.0 * d * sum(drawn) ** 2
    draws = min(_DRAWS, int(_BUDGET / cost))
    if draws < FEWEST:
        return None
    step = max(1, _BLOCK // (d * sum(drawn)))
    ratios = []
    for start in range(0, draws, step):
        size = min(step, draws - start)
        bases = [haar_bases(generator.standard_normal((size, d, r))) for r in drawn]
        total = sum(
            (basis[:, :fixed] ** 2).sum((1, 2)) / (basis.shape[-1] * fixed) for basis in bases
        )
        for one, other in itertools.combinations(bases, 2):
            product = one.swapaxes(-1, -2) @ other
            total = total + (product * product).sum((1, 2)) / (product[0].size)
        ratios.append(total)
    pairs = len(ranks) * (len(ranks) - 1) / 2
    return np.sort(np.concatenate(ratios)) * d / pairs
