"""Records of attention heads: how the heads of one layer share the residual stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from flagscope.arch import HeadGroup
from flagscope.diagnose.head_tests import DividedHeads, HeadOverlap, HeadTests
from flagscope.diagnose.position import LEVEL
from flagscope.diagnose.second_look import larger_log10_p, p_value
from flagscope.diagnose.values import array_values, number, rounded
from flagscope.geometry import (
    HeadSpaces,
    Matrices,
    ProjectorSum,
    cosines_of_overlaps,
    divided_spaces,
    head_spaces,
    near_copy_clusters,
    projector_sum,
)
from flagscope.null import (
    count_beyond_chance,
    mean_overlap,
    projector_sum_threshold,
)
from flagscope.observables import LISTED_PAIRS, NEAR_COPY
from flagscope.records import ArraySummary, HeadCluster, HeadPair, HeadRecord, SharedDirection

# The pairwise matrix holds all pairs.
_LISTED_DIRECTIONS = 8
# Level, before the correction for the number of pairs, at which a pair of heads is listed.
_PAIR_LEVEL = 0.01


def head_record(
    group: HeadGroup,
    maps: Matrices,
    *,
    folded: Sequence[str] = (),
    divided: DividedHeads | None = None,
    spaces_of: Callable[[Matrices], HeadSpaces] | None = None,
) -> HeadRecord:
    """Diagnose the heads of one layer in one space of the stream.

    Parameters
    ----------
    group
        Names the layer and the space.
    maps
        One map a head, shape (H, r, d): the rows span the head's space (for the output space pass
        the transposed maps).
    folded
        Names of norms that were folded into the maps, for the record.
    divided
        Gives the heads with the scales of the stream's coordinates divided out, for a second look
        at what seems to be no chance. By default the scales are those that these heads share.
    spaces_of
        Gives the spaces of the maps, where they may be known already.

    Returns
    -------
    HeadRecord
        With a status and nulls where a head is zero or not finite, or where there is one head.

    References
    ----------
    Σcos² between head spaces is the projection kernel (arXiv 2601.10266); its mean over head pairs
    in units of chance is the head overlap ratio of arXiv 2605.09861.
    """
    record = partial(_record, group, maps.values.shape[2], len(maps.values), folded)
    faults = {h: fault for h, fault in enumerate(maps.faults()) if fault}
    if faults:
        text = ", ".join(f"head {h} is {fault}" for h, fault in faults.items())
        return record(HeadMeasurement(text))
    if len(maps.values) < 2:
        return record(HeadMeasurement("a single head has no other to overlap with"))
    spaces = spaces_of(maps) if spaces_of else head_spaces(maps.values, noise=maps.delta)
    if bool((spaces.ranks == 0).any()):
        return record(HeadMeasurement("a head lies below its storage noise"))
    own = partial(divided_spaces, spaces, [spaces])
    return record(_measured(spaces, divided or own))


def _record(
    group: HeadGroup, d: int, count: int, folded: Sequence[str], measured: HeadMeasurement
) -> HeadRecord:
    """The record of a group of heads; adjusted p-values are left for the scan."""
    return HeadRecord(
        stack=group.stack, attention=group.attention, layer=group.layer, space=group.space,
        tensor=group.map.tensor, count=count, rank=measured.rank, d=d, folded=list(folded),
        overlap_ratio=measured.overlap_ratio, overlap_ratio_sd=measured.overlap_ratio_sd,
        z=measured.z, p=measured.p, log10_p=measured.log10_p,
        log10_p_profile=measured.log10_p_profile, p_adjusted=None, p_adjusted_dependent=None,
        max_pair_ratio=measured.max_pair_ratio, min_pair_ratio=measured.min_pair_ratio,
        shared_directions=measured.shared_directions, shared_threshold=measured.shared_threshold,
        shared_log10_p=measured.shared_log10_p, shared=measured.shared,
        spectrum=measured.spectrum, clusters=measured.clusters,
        cluster_tests=measured.cluster_tests, order=measured.order,
        near_copies=measured.near_copies, pairwise=measured.pairwise, status=measured.status,
    )  # fmt: skip


@dataclass(frozen=True)
class HeadMeasurement:
    """What was measured of a group of heads, as in its record; None or empty where nothing was."""

    status: str
    rank: int | None = None
    overlap_ratio: float | None = None
    overlap_ratio_sd: float | None = None
    z: float | None = None
    p: float | None = None
    log10_p: float | None = None
    log10_p_profile: float | None = None
    max_pair_ratio: float | None = None
    min_pair_ratio: float | None = None
    shared_directions: int | None = None
    shared_threshold: float | None = None
    shared_log10_p: float | None = None
    shared: list[SharedDirection] = field(default_factory=list)
    spectrum: list[float] | ArraySummary | None = None
    clusters: list[list[int]] | None = None
    cluster_tests: list[HeadCluster] = field(default_factory=list)
    order: list[int] | None = None
    near_copies: list[HeadPair] = field(default_factory=list)
    pairwise: list[list[float]] | None = None


def _measured(spaces: HeadSpaces, divided: DividedHeads) -> HeadMeasurement:
    heads = HeadOverlap.of(spaces)
    tests = HeadTests(heads, divided)
    ranks, d, count = heads.ranks, heads.d, len(heads.ranks)
    upper = heads.ratios[np.triu_indices(count, 1)]
    mean = heads.mean_test()
    profile = tests.second(mean, HeadOverlap.mean_test)
    log10_p = larger_log10_p(mean, profile)
    threshold = projector_sum_threshold(d, max(ranks), count, level=LEVEL)
    spectrum = projector_sum(
        spaces, threshold=float("inf") if threshold is None else threshold,
        most=heads.forced + _LISTED_DIRECTIONS,
    )  # fmt: skip
    clusters, order = near_copy_clusters(heads.total, ranks, d, near=NEAR_COPY)
    tested = _clusters(clusters, heads, tests)
    free = None if threshold is None else max(0, len(spectrum.shared) - heads.forced)
    return HeadMeasurement(
        status=mean.status,
        rank=max(ranks),
        overlap_ratio=heads.mean_ratio,
        overlap_ratio_sd=number(mean_overlap(ranks, d).sd),
        z=mean.z,
        p=p_value(mean, log10_p),
        log10_p=log10_p,
        log10_p_profile=profile,
        max_pair_ratio=float(upper.max()),
        min_pair_ratio=float(upper.min()),
        shared_directions=free,
        shared_threshold=threshold,
        shared_log10_p=_shared_test(spectrum, heads, tests),
        shared=_shared(spectrum, heads.forced),
        spectrum=array_values(spectrum.eigenvalues),
        clusters=[group.heads for group in tested if group.log10_p <= np.log10(LEVEL)],
        cluster_tests=tested,
        order=order,
        near_copies=_nearest_pairs(heads, tests),
        pairwise=rounded(heads.ratios),
    )


def _shared_test(spectrum: ProjectorSum, heads: HeadOverlap, tests: HeadTests) -> float | None:
    if heads.forced >= len(spectrum.eigenvalues):
        return None
    return tests.shared(float(spectrum.eigenvalues[heads.forced]))


def _shared(spectrum: ProjectorSum, forced: int) -> list[SharedDirection]:
    last = forced + _LISTED_DIRECTIONS
    values = spectrum.shared[forced:last].tolist()
    members = (spectrum.membership[forced:last] > 0.5).tolist()
    return [
        SharedDirection(
            eigenvalue=float(f"{value:.6g}"), heads=[h for h, inside in enumerate(row) if inside]
        )
        for value, row in zip(values, members, strict=True)
    ]


def _clusters(
    groups: Sequence[Sequence[int]], heads: HeadOverlap, tests: HeadTests
) -> list[HeadCluster]:
    found = []
    for group in groups:
        log10_p = tests.cluster(group)
        # Where the dimensions fix the overlap there is nothing to test.
        if log10_p is not None:
            share = heads.shares[np.ix_(group, group)][np.triu_indices(len(group), 1)].mean()
            found.append(
                HeadCluster(heads=list(group), mean_squared_cosine=float(share), log10_p=log10_p)
            )
    return found


def _nearest_pairs(heads: HeadOverlap, tests: HeadTests) -> list[HeadPair]:
    """The head pairs that overlap most, as far as they do so beyond chance."""
    ranks, d, bases = heads.ranks, heads.d, heads.spaces.bases
    rows, columns = np.triu_indices(len(ranks), 1)
    # Of some that the scales of the coordinates explain, others take the place.
    best = np.argsort(-heads.ratios[rows, columns], kind="stable")[: 4 * LISTED_PAIRS]
    level = np.log10(_PAIR_LEVEL / len(rows))
    listed = []
    for i, j in zip(rows[best].tolist(), columns[best].tolist(), strict=True):
        raw = heads.pair_test(i, j)
        if raw.log10_p is None or raw.log10_p > level or heads.ratios[i, j] <= 1:
            break
        log10_p = tests.pair(i, j)
        if log10_p is None or log10_p > level:
            continue
        ri, rj = ranks[i], ranks[j]
        inner = bases[i, :, :ri].mT @ bases[j, :, :rj]
        cosines = cosines_of_overlaps(inner)
        listed.append(
            HeadPair(
                heads=(i, j),
                overlap_ratio=float(heads.ratios[i, j]),
                log10_p=log10_p,
                shared=count_beyond_chance(cosines.tolist(), ri, rj, d, level=LEVEL) or 0,
                rank=min(ri, rj),
                mean_squared_cosine=float(heads.shares[i, j]),
            )
        )
    return listed[:LISTED_PAIRS]
