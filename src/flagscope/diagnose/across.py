"""Overlaps of all heads of a model in one space of the residual stream, across layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log10

import numpy as np
from jaxtyping import Float

from flagscope.diagnose.head_pairs import HeadEntry, OverlapPair, near_copies, overlap_pair
from flagscope.diagnose.position import LEVEL
from flagscope.geometry import Form, near_copy_clusters
from flagscope.null import (
    cluster_significance,
    false_discovery_adjustment,
    haar_overlap,
    mean_overlap,
    mean_overlap_significance,
)
from flagscope.observables import NEAR_COPY
from flagscope.records import HeadSpace, StreamBasis

# Heads beyond which no clusters are sought: average linkage holds all distances, H²/2 of them.
_CLUSTERED = 8192


@dataclass(frozen=True, eq=False)
class SpaceOverlaps:
    """All heads of a stack in one space, each against each.

    Attributes
    ----------
    stack, attention, space, d
        Where: the space is "q", "k", "v" (what heads read) or "o" (what they write) in R^d.
    basis
        Whether heads of different layers meet in one basis: "shared" where the stream is one sum,
        "post-norm" where a norm stands behind each sum and changes it, "unknown" where the norms
        are not known.
    heads
        All heads, in the order of the layers. Tables have a row for each that has a rank.
    squared
        T_ij = Σcos² of heads i and j, shape (M, M); the diagonal holds the ranks.
    pairs_tested
        M (M-1)/2.
    overlap_ratio, overlap_ratio_sd
        Mean over all pairs of Σcos²/(r_i r_j/d), and its standard deviation by chance, where its
        mean is 1.
    z, p, log10_p
        Two-sided test of that mean.
    near_copies, near_copies_total
        Pairs of heads that share at least half of what copies share beyond chance, and are beyond
        chance at 1 % among all pairs of the space: the closest, at most 200, and how many there
        are.
    closest
        The pair that lies furthest on the way from chance to a copy, whether near or not.
    clusters
        Groups of near-copies by label, those beyond chance at 1 %: on average their heads share at
        least half of what copies share beyond chance. None where they were not sought.
    pairs
        The pairs of the largest z, the largest first.
    form
        How the overlaps were computed: "projectors" or "grams".
    status
        "ok", or why numbers are missing.
    """

    stack: str
    attention: str | None
    space: HeadSpace
    d: int
    basis: StreamBasis
    heads: tuple[HeadEntry, ...]
    squared: Float[np.ndarray, "M M"]
    pairs_tested: int
    overlap_ratio: float | None
    overlap_ratio_sd: float | None
    z: float | None
    p: float | None
    log10_p: float | None
    near_copies: tuple[OverlapPair, ...]
    near_copies_total: int
    closest: OverlapPair | None
    clusters: tuple[tuple[str, ...], ...] | None
    pairs: tuple[OverlapPair, ...]
    form: Form
    status: str

    @property
    def measured(self) -> tuple[HeadEntry, ...]:
        """The heads with a rank: the rows of the tables."""
        return tuple(head for head in self.heads if head.rank)

    @property
    def ratios(self) -> Float[np.ndarray, "M M"]:
        """Σcos² over its mean by chance."""
        ranks = np.array([head.rank for head in self.measured], dtype=float)
        return self.squared * self.d / np.outer(ranks, ranks)

    @property
    def scores(self) -> Float[np.ndarray, "M M"]:
        """Of each pair, in exact standard deviations by chance; 0 where the dimensions fix it."""
        return overlap_scores(self.squared, [head.rank for head in self.measured], self.d)

    def common_basis(self, pair: OverlapPair) -> bool | None:
        """Whether two heads meet in one basis of the stream; None where that is not known."""
        layers = {head.label: head.layer for head in self.heads}
        if self.basis == "shared" or layers[pair.first] == layers[pair.second]:
            return True
        return False if self.basis == "post-norm" else None


def overlap_scores(
    squared: Float[np.ndarray, "M M"], ranks: Sequence[int], d: int
) -> Float[np.ndarray, "M M"]:
    """(T - E T)/sd T under Haar; 0 where the dimensions fix T."""
    sizes, which = np.unique(np.asarray(ranks, dtype=int), return_inverse=True)
    nulls = [[haar_overlap(int(p), int(q), d) for q in sizes] for p in sizes]
    mean = np.array([[null.mean for null in row] for row in nulls])[np.ix_(which, which)]
    sd = np.array([[null.sd for null in row] for row in nulls])[np.ix_(which, which)]
    return np.divide(squared - mean, sd, out=np.zeros_like(squared), where=sd > 0)


def space_overlaps(
    heads: Sequence[HeadEntry],
    squared: Float[np.ndarray, "H H"],
    *,
    stack: str,
    attention: str | None,
    space: HeadSpace,
    d: int,
    form: Form,
    top: int,
    basis: StreamBasis = "shared",
) -> SpaceOverlaps:
    """The overlaps of all heads in one space, next to what chance gives.

    Parameters
    ----------
    heads
        One for each row of the table; those of rank 0 are left out of all numbers.
    squared
        Σcos² of all pairs.
    stack, attention, space, d, form, basis
        For the record.
    top
        Number of pairs to list.
    """
    kept = [i for i, head in enumerate(heads) if head.rank]
    if len(kept) < len(heads):
        squared = squared[np.ix_(kept, kept)]
    measured = [heads[i] for i in kept]
    ranks = [head.rank for head in measured]
    count = len(measured)
    missing = len(heads) - count
    status = f"{missing} of {len(heads)} heads cannot be measured" if missing else "ok"
    mean = sd = z = p = log10_p = clusters = closest = None
    near: tuple[OverlapPair, ...] = ()
    near_total = 0
    if count > 1:
        shares = squared / np.outer(ranks, ranks)
        # Round-off may leave nothing a little below 0.
        mean = max(0.0, d * float(shares.sum() - shares.trace()) / (count * (count - 1)))
        sd = mean_overlap(ranks, d).sd
        test = mean_overlap_significance(mean, ranks, d)
        z, p, log10_p = test.z, test.p, test.log10_p
        status = test.status if test.status != "ok" and status == "ok" else status
        clusters = _clusters(measured, squared, ranks, d)
        near, near_total, closest = near_copies(measured, squared, ranks, d)
    elif not missing:
        status = "a single head has no other to overlap with"
    return SpaceOverlaps(
        stack=stack, attention=attention, space=space, d=d, basis=basis, heads=tuple(heads),
        squared=squared, pairs_tested=count * (count - 1) // 2, overlap_ratio=mean,
        overlap_ratio_sd=sd, z=z, p=p, log10_p=log10_p, near_copies=near,
        near_copies_total=near_total, closest=closest, clusters=clusters,
        pairs=_pairs(measured, squared, ranks, d, top), form=form, status=status,
    )  # fmt: skip


def adjusted_pairs(spaces: Sequence[SpaceOverlaps]) -> tuple[SpaceOverlaps, ...]:
    """The same with p-values of listed pairs adjusted for all pairs of all spaces, and their basis.

    Heads of one layer have one basis; those of different layers, what the space says of its stream.
    """
    tests = sum(space.pairs_tested for space in spaces)
    # A pair that is listed twice, as a near-copy and among the furthest, is one test.
    listed = {
        (index, pair.first, pair.second): pair.log10_p
        for index, space in enumerate(spaces)
        for pair in _listed(space)
    }
    known = dict(
        zip(listed, false_discovery_adjustment(list(listed.values()), tests=tests).p, strict=True)
    )

    def adjusted(index: int, pair: OverlapPair) -> OverlapPair:
        common = spaces[index].common_basis(pair)
        return replace(pair, p_adjusted=known[index, pair.first, pair.second], common_basis=common)

    return tuple(
        replace(
            space,
            pairs=tuple(adjusted(index, pair) for pair in space.pairs),
            near_copies=tuple(adjusted(index, pair) for pair in space.near_copies),
            closest=None if space.closest is None else adjusted(index, space.closest),
        )
        for index, space in enumerate(spaces)
    )


def _listed(space: SpaceOverlaps) -> list[OverlapPair]:
    return [*space.pairs, *space.near_copies, *([space.closest] if space.closest else [])]


def _clusters(
    measured: Sequence[HeadEntry], squared: np.ndarray, ranks: Sequence[int], d: int
) -> tuple[tuple[str, ...], ...] | None:
    if len(measured) > _CLUSTERED:
        return None
    groups, _ = near_copy_clusters(squared, ranks, d, near=NEAR_COPY)
    return tuple(
        tuple(measured[i].label for i in group)
        for group in groups
        if _beyond_chance(group, squared, ranks, d)
    )


def _beyond_chance(group: Sequence[int], squared: np.ndarray, ranks: Sequence[int], d: int) -> bool:
    some = [ranks[i] for i in group]
    ratios = squared[np.ix_(group, group)] * d / np.outer(some, some)
    mean = max(0.0, float(ratios[np.triu_indices(len(group), 1)].mean()))
    test = cluster_significance(mean, some, d, heads=len(ranks))
    return test.log10_p is not None and test.log10_p <= log10(LEVEL)


def _pairs(
    measured: Sequence[HeadEntry], squared: np.ndarray, ranks: Sequence[int], d: int, top: int
) -> tuple[OverlapPair, ...]:
    """The pairs of the largest z."""
    count = len(measured)
    if count < 2 or top < 1:
        return ()
    rows, columns = np.triu_indices(count, 1)
    scores = overlap_scores(squared, ranks, d)[rows, columns]
    top = min(top, len(scores))
    best = np.argpartition(-scores, top - 1)[:top]
    best = best[np.lexsort((best, -scores[best]))]
    places = zip(rows[best].tolist(), columns[best].tolist(), strict=True)
    return tuple(overlap_pair(measured, squared, ranks, d, i, j) for i, j in places)
