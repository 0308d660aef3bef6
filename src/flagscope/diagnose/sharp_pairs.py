"""Records of pairs in sharp scans: by Gram matrices, products and leading spaces.

⟨A, B⟩, ρ and the imbalance are exact sums. C and ν take one product of the Gram matrices, or in
large spaces a sketch with a standard error. Overlaps are those of the dominant spaces. What takes
the whole spectrum is left out.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Member, PairGroup
from flagscope.diagnose.balanced import GAUGES
from flagscope.diagnose.bare_map import Folding
from flagscope.diagnose.combined_test import RankPair, combined_overlap, dominant_ranks_to_test
from flagscope.diagnose.grams import ISOTROPIC, GramObservables
from flagscope.diagnose.guard import NOTHING_LEFT, GuardedTests, clipped, clipped_shares, made_of
from flagscope.diagnose.pair_measurement import (
    PairMeasurement,
    PairRanks,
    dominant_status,
    null_values,
    position_numbers,
)
from flagscope.diagnose.pair_record import PairIdentity, pair_fault, pair_record
from flagscope.diagnose.pair_tests import PairTests, is_small
from flagscope.diagnose.position import dominant_position
from flagscope.diagnose.rank_profile import leading_surface
from flagscope.diagnose.sharp_map import SharpMap, SharpSide, sharp_map
from flagscope.diagnose.values import first_reason, number
from flagscope.geometry import (
    CommutatorSketch,
    GramSide,
    Matrices,
    RankRule,
    commutator_of_grams,
    difference_of_grams,
    flat_spread,
    inner_of_grams,
    kernel_intersection,
    profiles,
)
from flagscope.geometry.gram_side import PRODUCT_UP_TO
from flagscope.geometry.perturbation import product_error
from flagscope.geometry.profile_views import testable
from flagscope.null import commutator_null, correlation_null
from flagscope.records import Balanced, Functional, PairRecord

FULL_SCAN_ONLY = "full scan only"

Sketch = Callable[[GramSide, GramSide], CommutatorSketch]
MemberFolding = Callable[[Member], Folding | None]


def sharp_records(
    group: PairGroup,
    write: Matrices,
    read: Matrices,
    *,
    rule: RankRule,
    seed: int = 0,
    folded: Sequence[str] = (),
    readers: dict[int, SharpMap] | None = None,
    plain: tuple[Matrices, Matrices] | None = None,
    foldings: tuple[MemberFolding, MemberFolding] = (lambda _: None, lambda _: None),
) -> list[PairRecord]:
    """Diagnose the pairs of a group one by one, without their whole spectra.

    Parameters
    ----------
    group, write, read, rule, seed, folded, plain
        As for `pair_records`.
    readers
        The read maps that are prepared already, by index; it takes those that are prepared here,
        for groups with the same read maps.
    foldings
        Give, for a member, how its write and its read map come about from maps that are measured
        already, if they do.

    Returns
    -------
    list of PairRecord
        One a member.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    readers = {} if readers is None else readers
    records = []
    prepare = partial(sharp_map, rule=rule, seed=seed)
    for i, member in enumerate(group.members):
        whole = (None, None) if plain is None else (_one(plain[0], i), _one(plain[1], i))
        at = member.read_index
        of_write, of_read = (partial(make, member) for make in foldings)
        if at not in readers:
            readers[at] = prepare(_one(read, i), read=True, plain=whole[1], folding=of_read)
        writer = prepare(_one(write, i), read=False, plain=whole[0], folding=of_write)
        records.append(_record(group, member, writer, readers[at], seed=seed, folded=folded))
    return records


def _one(maps: Matrices, i: int) -> Callable[[], Matrices]:
    return lambda: maps.take([i])


def sharp_residual_record(
    group: PairGroup,
    write: SharpMap,
    read: SharpMap,
    *,
    seed: int = 0,
    folded: Sequence[str] = (),
) -> PairRecord:
    """Diagnose one pair across the residual stream, of maps that meet many others there."""
    return _record(group, group.members[0], write, read, seed=seed, folded=folded)


def _record(
    group: PairGroup,
    member: Member,
    write: SharpMap,
    read: SharpMap,
    *,
    seed: int,
    folded: Sequence[str],
) -> PairRecord:
    pair = PairIdentity(group, member, write.shape[0], folded, (write.repeated, read.repeated))
    fault = pair_fault(group, write.fault, read.fault)
    if fault is not None:
        return pair_record(pair, PairMeasurement(fault))
    balanced = None
    if group.freedom in GAUGES:
        balanced = Balanced(gauge=GAUGES[group.freedom], status=FULL_SCAN_ONLY)
    # The name and the seed fix the random vectors, whatever else is scanned.
    sketch = partial(_sketched, seed + zlib.crc32(member.name.encode()))
    return pair_record(pair, replace(_measured(write, read, sketch), balanced=balanced))


def _sketched(seed: int, write: GramSide, read: GramSide) -> CommutatorSketch:
    generator = torch.Generator().manual_seed(seed)
    return commutator_of_grams(write, read, generator=generator, product_up_to=PRODUCT_UP_TO)


@dataclass(frozen=True)
class SharpGrams:
    """Observables of two Gram matrices, with the standard errors of those that are estimates."""

    observables: GramObservables
    commutator_error: float | None = None
    defect_error: float | None = None


def _measured(write: SharpMap, read: SharpMap, sketch: Sketch) -> PairMeasurement:
    a, b = write.side, read.side
    d, product = a.side.d, inner_of_grams(a.side, b.side)
    grams = _grams(a, b, product, (write.gram_noise, read.gram_noise), sketch=sketch)
    row = replace(grams.observables, imbalance=_imbalance(write, read, product))
    cosines = a.leading.vectors.mT @ b.leading.vectors
    effective = cosines.shape[0], cosines.shape[1]
    tests = _tests(write, read, cosines, row, sketch)
    position = None
    if all(effective):
        position = dominant_position(write.noisy, read.noisy, cosines, *effective)
    profile, incidence = leading_surface(cosines, *effective, d) if all(effective) else (None, None)
    rank, kernel = _product_rank(write, read)
    ranked = bool(write.numerical and read.numerical)
    return PairMeasurement(
        status=first_reason(
            None if ranked else "a map lies below its storage noise",
            None if row.status == "ok" else row.status,
        ),
        ranks=PairRanks(
            write=write.numerical,
            read=read.numerical,
            effective_write=effective[0],
            effective_read=effective[1],
            participation_write=number(a.side.participation or None),
            participation_read=number(b.side.participation or None),
        ),
        grams=row,
        position=position_numbers(position, d),
        tests=tests,
        dominant=dominant_status(*effective, tests) if ranked else None,
        profile=profile,
        incidence=incidence,
        functional=Functional(
            product_spectrum=None, product_rank=rank, product_effective_rank=None
        ),
        kernel_intersection=kernel,
        null=null_values(row, position, d),
        depth="sharp",
        commutator_error=grams.commutator_error,
        defect_error=grams.defect_error,
    )


def _grams(
    write: SharpSide,
    read: SharpSide,
    product: float,
    noise: tuple[float, float],
    *,
    sketch: Sketch,
    spread: float = 1.0,
) -> SharpGrams:
    a, b = write.side, read.side
    nothing = SharpGrams(GramObservables(None, status=ISOTROPIC))
    if math.sqrt(max(0.0, a.square)) <= noise[0] or math.sqrt(max(0.0, b.square)) <= noise[1]:
        return nothing
    correlation = correlation_null(write.spectrum, read.spectrum)
    null = commutator_null(write.spectrum, read.spectrum)
    if correlation is None or null is None:
        return nothing
    made = sketch(a, b)
    d = a.d
    unit = (d - 1) * (d + 2) / (2 * d) / (a.square * b.square)
    ratio, error = made.commutator * unit, made.commutator_error * unit
    rho = max(-1.0, min(1.0, product / math.sqrt(a.square * b.square)))
    test = correlation.significance(rho / spread)
    c_test = null.significance(max(ratio, 0.0), error=error, degrees=made.degrees)
    sketched = made.degrees > 0
    unsure = made.defect_error if sketched else 0.0
    return SharpGrams(
        GramObservables(
            None,
            commutator_ratio=number(ratio),
            commutator_p=c_test.p,
            gram_correlation=number(rho),
            gram_correlation_z=test.z,
            gram_correlation_p=test.p,
            commutation_defect=number(made.defect),
            commutator_interval=null.interval_of_estimate(error),
            correlation_sd=correlation.sd * spread,
            defect_mean=null.defect_mean,
            defect_sd=None if null.defect_sd is None else math.hypot(null.defect_sd, unsure),
        ),
        number(error) if sketched else None,
        number(made.defect_error) if sketched else None,
    )


def _imbalance(write: SharpMap, read: SharpMap, product: float) -> float | None:
    a, b = write.side.side, read.side.side
    top = max(write.exponent, read.exponent)
    weights = 4.0 ** (write.exponent - top), 4.0 ** (read.exponent - top)
    norms = weights[0] * a.gram_norm + weights[1] * b.gram_norm
    return number(difference_of_grams(a, b, product, weights) / norms if norms > 0 else None)


def _tests(
    write: SharpMap,
    read: SharpMap,
    cosines: Float[Tensor, "p q"],
    row: GramObservables,
    sketch: Sketch,
) -> PairTests:
    """The tests at the dominant ranks and the powers of two below, guarded against profiles."""
    d = write.shape[0]
    dominant: RankPair = (cosines.shape[0], cosines.shape[1])
    shares = dominant_ranks_to_test(dominant, d)
    overlap = combined_overlap(cosines, shares, d)
    guarded = None
    if is_small(overlap, row):
        guarded = _guarded(write, read, shares, dominant, sketch)
    return PairTests(dominant, overlap, row.commutator_p, row.gram_correlation_p, guarded)


def _guarded(
    write: SharpMap,
    read: SharpMap,
    shares: dict[RankPair, float],
    dominant: RankPair,
    sketch: Sketch,
) -> GuardedTests | None:
    if write.scales is None or read.scales is None:
        return None
    found = profiles(write.scales, read.scales)
    if not bool(found.any[0]):
        return None
    alive, unlike = found.alive[0], bool(found.unlike[0])
    if not testable(int(alive.sum()), unlike=unlike):
        return NOTHING_LEFT
    one, two = (map_.on(alive, unlike=unlike) for map_ in (write, read))
    cosines = one.leading.vectors.mT @ two.leading.vectors
    d, limits = one.side.d, cosines.shape
    overlap = combined_overlap(cosines, clipped_shares(shares, limits, d), d)
    # Correlation matrices that differ from a multiple of the identity by round-off alone.
    unit = torch.finfo(cosines.dtype).eps
    noise = 2 * unit * d * one.side.mean, 2 * unit * d * two.side.mean
    spread = flat_spread(d) if unlike else 1.0
    product = inner_of_grams(one.side, two.side)
    row = _grams(one, two, product, noise, sketch=sketch, spread=spread).observables
    return made_of(overlap, clipped(dominant, limits), row)


def _product_rank(write: SharpMap, read: SharpMap) -> tuple[int | None, int | None]:
    """Rank of W2 W1 and its kernel intersection, where one of the ranges is all of the space."""
    if not (write.numerical and read.numerical) or write.shape[0] not in (
        write.numerical,
        read.numerical,
    ):
        return None, None
    noise = product_error(write.noisy, read.noisy)
    size = max(*write.shape, *read.shape)
    floor = size * torch.finfo(torch.float64).eps * write.top * read.top
    if write.least * read.least <= max(noise, floor):
        return None, None
    rank = min(write.numerical, read.numerical)
    return rank, kernel_intersection(rank_write=write.numerical, rank_product=rank)
