"""The combined test of an overlap: at dominant ranks, at a ladder of ranks, and of whole ranges.

Dominant spaces alone would miss a diffuse alignment, which lies below the edge of the bulk, and
whole spaces alone a few directions among many. The null of every test is the Haar null at fixed
spectra, so ranks and weights may depend on the spectra.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import attainable_overlap, incidence_at_ranks
from flagscope.null import cauchy_combination, overlap_significance

RankPair = tuple[int, int]

# Shares of the level. Of a thin map without dominant directions the whole range has nearly all:
# with less, planted directions in flat spectra are found up to a quarter less often.
_DOMINANT, _WHOLE, _WHOLE_ALONE, _DIFFUSE = 0.5, 0.25, 0.9, 0.5


@dataclass(frozen=True)
class CombinedOverlap:
    """The outcome of the combined test.

    Attributes
    ----------
    log10_p
        Decimal logarithm of its p-value.
    ranks
        Dimensions of the two spaces where it is strongest.
    overlap_ratio
        Σcos² there, in units of chance.
    single
        Of each test by itself: log10 of its p-value over its share of the level. What is small
        there holds at those ranks, and with the direction that their overlap has.
    """

    log10_p: float
    ranks: RankPair
    overlap_ratio: float
    single: dict[RankPair, float]


def ranks_to_test(
    *, dominant: RankPair, numerical: RankPair, participation: RankPair, d: int
) -> dict[RankPair, float]:
    """The ranks at which an overlap is tested, and the share of the level that each has.

    Parameters
    ----------
    dominant, numerical, participation
        RankPair of the write and of the read map, by the rule of the scan, by noise, and by their
        participation ratios.
    d
        Dimension of the shared space.

    Returns
    -------
    dict
        Half of the level at the dominant ranks if there are any; the rest at (i, i) for i = 1, 2,
        4 … d/2, at the participation ratios, and, where both maps are thin, on their whole ranges.
        RankPair at which dimension fixes the overlap are left out; empty where all are.

    Examples
    --------
    >>> ranks_to_test(dominant=(0, 2), numerical=(8, 8), participation=(5, 5), d=8)
    {(5, 5): 0.625, (1, 1): 0.125, (2, 2): 0.125, (4, 4): 0.125}
    >>> ranks_to_test(dominant=(3, 3), numerical=(8, 8), participation=(8, 7), d=64)[3, 3]
    0.5
    """

    def free(ranks: RankPair) -> bool:
        return min(ranks) > 0 and max(ranks) < d

    shares: dict[RankPair, float] = {}
    if free(dominant):
        shares[dominant] = _DOMINANT
    if free(numerical):
        part = _WHOLE if shares else _WHOLE_ALONE
        shares[numerical] = shares.get(numerical, 0.0) + part
    elif not shares and free(participation):
        shares[participation] = _DIFFUSE
    ladder = [(i, i) for i in _powers_of_two(min(*numerical, d // 2))]
    spread = [ranks for ranks in dict.fromkeys([*ladder, participation]) if free(ranks)]
    left = 1.0 - sum(shares.values())
    for ranks in spread:
        shares[ranks] = shares.get(ranks, 0.0) + left / len(spread)
    return shares


def dominant_ranks_to_test(dominant: RankPair, d: int) -> dict[RankPair, float]:
    """The ranks at which the overlap of dominant spaces alone is tested, and their shares.

    Half of the level at the dominant ranks, as in `ranks_to_test`; the rest at (i, i) for
    i = 1, 2, 4 … up to the smaller of them. Empty where nothing is dominant.

    Examples
    --------
    >>> dominant_ranks_to_test((3, 5), d=64)
    {(3, 5): 0.5, (1, 1): 0.25, (2, 2): 0.25}
    >>> dominant_ranks_to_test((0, 5), d=64)
    {}
    """
    if min(dominant) == 0 or max(dominant) >= d:
        return {}
    shares = {dominant: _DOMINANT}
    ladder = _powers_of_two(min(dominant))
    for i in ladder:
        shares[i, i] = shares.get((i, i), 0.0) + (1.0 - _DOMINANT) / len(ladder)
    return shares


def _powers_of_two(limit: int) -> list[int]:
    return [1 << k for k in range(max(0, limit).bit_length())]


def combined_overlap(
    cosines: Float[Tensor, "p q"], shares: dict[RankPair, float], d: int
) -> CombinedOverlap | None:
    """Test the overlap of leading singular spaces at several ranks at once.

    Parameters
    ----------
    cosines
        Inner products of the left singular vectors of W1 with the right ones of W2.
    shares
        RankPair and weights, see `ranks_to_test`.
    d
        Dimension of the shared space.

    Returns
    -------
    CombinedOverlap or None
        None where there is nothing to test.

    References
    ----------
    Σcos² is Pillai's trace (`overlap_significance`); the combination is Cauchy's
    (`cauchy_combination`).

    Examples
    --------
    >>> import torch
    >>> aligned = combined_overlap(torch.eye(8)[:3, :3], {(1, 1): 0.5, (3, 3): 0.5}, d=8)
    >>> aligned.ranks, round(aligned.overlap_ratio, 3)
    ((3, 3), 2.667)
    """
    if not shares:
        return None
    left, right = (sorted({ranks[side] for ranks in shares}) for side in (0, 1))
    surface = incidence_at_ranks(cosines, left, right).double().cpu()
    row, column = ({r: at for at, r in enumerate(every)} for every in (left, right))
    found: list[tuple[RankPair, float, float, float]] = []
    for (i, j), share in shares.items():
        total = attainable_overlap(float(surface[row[i], column[j]]), i, j, d)
        log10_p = overlap_significance(total, i, j, d).log10_p
        if log10_p is not None:
            found.append(((i, j), share, total * d / (i * j), log10_p))
    if not found:
        return None
    combined = cauchy_combination([one[3] for one in found], [one[1] for one in found])
    ranks, _, ratio, _ = found[combined.strongest]
    total = sum(one[1] for one in found)
    single = {at: min(0.0, log10_p - math.log10(share / total)) for at, share, _, log10_p in found}
    return CombinedOverlap(combined.log10_p, ranks, ratio, single)
