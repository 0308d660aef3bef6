"""Pairs of heads in one space of the stream, and which of them are near-copies."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import numpy as np
from jaxtyping import Float

from flagscope.diagnose.position import LEVEL
from flagscope.geometry import attainable_overlap
from flagscope.null import overlap_significance
from flagscope.observables import NEAR_COPY

_LISTED = 200  # near-copies of a space that are listed; the rest are counted


@dataclass(frozen=True)
class HeadEntry:
    """One head in one space.

    Attributes
    ----------
    label
        Such as L4H7.q, L4H7.cross.q in cross-attention.
    layer, head
        Where it stands; for k and v the key-value head.
    rank
        Numerical rank of its map; 0 where it cannot be measured.
    status
        "ok", or why the rank is 0.
    """

    label: str
    layer: int
    head: int
    rank: int
    status: str


@dataclass(frozen=True)
class OverlapPair:
    """Two heads that overlap more than most.

    Attributes
    ----------
    first, second
        Labels of the heads.
    overlap_ratio
        Σcos² over its mean by chance, r_i r_j/d.
    mean_squared_cosine, chance
        Σcos² over the smaller rank, 1 for a copy, and its mean by chance, the larger rank over d.
    z
        In exact standard deviations by chance; None where the dimensions fix the overlap.
    p, log10_p, p_adjusted
        Two-sided; Benjamini-Hochberg over all pairs of heads that were compared.
    common_basis
        Whether both meet in one basis of the stream; None where that is not known.
    """

    first: str
    second: str
    overlap_ratio: float
    mean_squared_cosine: float
    chance: float
    z: float | None
    p: float | None
    log10_p: float | None
    p_adjusted: float | None
    common_basis: bool | None = None


def overlap_pair(
    measured: Sequence[HeadEntry],
    squared: np.ndarray,
    ranks: Sequence[int],
    d: int,
    i: int,
    j: int,
) -> OverlapPair:
    """The record of heads i and j."""
    p, q = ranks[i], ranks[j]
    total = attainable_overlap(float(squared[i, j]), p, q, d)
    test = overlap_significance(total, p, q, d)
    return OverlapPair(
        first=measured[i].label, second=measured[j].label,
        overlap_ratio=total * d / (p * q), mean_squared_cosine=total / min(p, q),
        chance=max(p, q) / d, z=test.z, p=test.p, log10_p=test.log10_p, p_adjusted=None,
    )  # fmt: skip


def near_copies(
    measured: Sequence[HeadEntry], squared: Float[np.ndarray, "M M"], ranks: Sequence[int], d: int
) -> tuple[tuple[OverlapPair, ...], int, OverlapPair | None]:
    """The near-copies, closest first, how many there are, and the closest pair of all.

    Parameters
    ----------
    measured, ranks
        The heads and their ranks.
    squared
        Σcos² of all pairs.
    d
        Dimension of the stream.

    Returns
    -------
    tuple
        Pairs at least half of the way from chance to a copy that are beyond chance at 1 % among all
        pairs, at most 200; their number; the pair furthest on that way, None where the dimensions
        fix all overlaps.
    """
    rows, columns = np.triu_indices(len(ranks), 1)
    sizes = np.asarray(ranks, dtype=float)
    small = np.minimum(sizes[rows], sizes[columns])
    chance = np.maximum(sizes[rows], sizes[columns]) / d
    free = chance < 1
    if not free.any():
        return (), 0, None
    rows, columns, chance = rows[free], columns[free], chance[free]
    way = (squared[rows, columns] / small[free] - chance) / (1 - chance)
    near = np.flatnonzero(way >= NEAR_COPY)
    # Ties in the order of the heads: products in float32 err by 1e-6.
    near = near[np.lexsort((near, -way[near].round(6)))]
    kept = near[_certain(near, rows, columns, squared, ranks, d)]
    first = kept[0] if len(kept) else way.argmax()
    closest, *pairs = (
        overlap_pair(measured, squared, ranks, d, int(rows[k]), int(columns[k]))
        for k in (first, *kept[:_LISTED])
    )
    return tuple(pairs), len(kept), closest


def _certain(
    near: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    squared: np.ndarray,
    ranks: Sequence[int],
    d: int,
) -> np.ndarray:
    """Which near pairs are beyond chance at 1 % among all pairs of the space.

    Between spaces of two given ranks the p-value falls with Σcos² there, so that a bisection finds
    the last one that is beyond: a model of shared layers has thousands of near-copies.
    """
    kept = np.zeros(len(near), dtype=bool)
    level = log10(LEVEL) - log10(len(ranks) * (len(ranks) - 1) / 2)
    by_ranks: dict[tuple[int, int], list[int]] = {}
    for place, k in enumerate(near.tolist()):
        key = (ranks[int(rows[k])], ranks[int(columns[k])])
        by_ranks.setdefault((min(key), max(key)), []).append(place)
    for (p, q), places in by_ranks.items():

        def beyond(place: int, p: int = p, q: int = q) -> bool:
            k = near[place]
            total = attainable_overlap(float(squared[rows[k], columns[k]]), p, q, d)
            log10_p = overlap_significance(total, p, q, d).log10_p
            return log10_p is not None and log10_p <= level

        kept[places[: bisect_left(places, True, key=lambda place: not beyond(place))]] = True
    return kept
