"""Tests of directions that many heads share, and of the best of many groups of heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flagscope.null import (
    Significance,
    largest_cosine_significance,
    mean_overlap_significance,
    projector_sum_edges,
    projector_sum_threshold,
    tracy_widom_log_sf,
)


def projector_sum_significance(value: float, d: int, r: int, count: int) -> Significance:
    """One-sided test of the largest eigenvalue of Σ_h P_h that dimension does not force to H.

    Parameters
    ----------
    value
        The eigenvalue.
    d, r, count
        Dimension of the space, rank of each projector, number of projectors H.

    Returns
    -------
    Significance
        By the law whose quantiles `projector_sum_threshold` gives; undefined where that is None at
        every level.

    Examples
    --------
    >>> round(projector_sum_significance(3.74, 384, 32, 12).p, 3)
    0.01
    """
    if count == 2:
        return largest_cosine_significance(min(max(value - 1.0, 0.0), 1.0), r, r, d)
    # At t = 1 - 1/H the bulk meets H, and no threshold of any level lies below.
    if projector_sum_threshold(d, r, count, level=0.5) is None:
        return Significance.undefined("no freedom: the bulk reaches as far as heads can share")
    edges = projector_sum_edges(d, r, count)
    width = math.sqrt(edges.upper - edges.lower)
    scale = (2.0 * edges.upper * (count - edges.upper) / (count * d * width)) ** (2.0 / 3.0)
    return Significance.one_sided(None, log_tail=tracy_widom_log_sf((value - edges.upper) / scale))


def cluster_significance(ratio: float, ranks: Sequence[int], d: int, *, count: int) -> Significance:
    """One-sided test of the mean overlap in the best of all groups of some heads.

    Parameters
    ----------
    ratio
        Mean over the pairs of the group of Σcos²/(r_i r_j/d).
    ranks
        Of the heads of the group.
    d
        Dimension of the stream.
    count
        Heads that the group was chosen from.

    Returns
    -------
    Significance
        p is that of a given group times the number of groups of that size, an upper bound.

    Examples
    --------
    >>> round(cluster_significance(3.0, [8, 8, 8], 64, count=12).log10_p)
    -82
    """
    alone = mean_overlap_significance(ratio, ranks, d)
    if alone.log10_p is None or alone.z is None:
        return alone
    size = len(ranks)
    log_tail = alone.log10_p * math.log(10.0) - math.log(2.0) if alone.z > 0.0 else 0.0
    chosen = math.lgamma(count + 1) - math.lgamma(size + 1) - math.lgamma(count - size + 1)
    return Significance.one_sided(alone.z, log_tail=log_tail + chosen)
