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
from typing import Any

import torch

from flagscope.arch import Member, PairGroup
from flagscope.diagnose.balanced import GAUGES
from flagscope.diagnose.combined import RankPair, combined_overlap, dominant_ranks_to_test
from flagscope.diagnose.fields import (
    _dominant as dominant_status,
)
from flagscope.diagnose.fields import (
    _null_values as null_values,
)
from flagscope.diagnose.fields import (
    _position_fields as position_fields,
)
from flagscope.diagnose.fields import (
    _surface_fields as surface_fields,
)
from flagscope.diagnose.grams import GramObservables
from flagscope.diagnose.guard import LOOK, GuardedTests, testable
from flagscope.diagnose.pair_tests import PairTests
from flagscope.diagnose.pairs import _blank, _fault, _identity
from flagscope.diagnose.position import dominant_position
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
from flagscope.null import commutator_null, correlation_null
from flagscope.records import Balanced, Functional, PairRecord

FULL_SCAN_ONLY = "full scan only"
_ISOTROPIC = "a Gram matrix is isotropic within storage noise: C, rho and nu are undefined"

Sketch = Callable[[GramSide, GramSide], CommutatorSketch]


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
) -> list[PairRecord]:
    """Diagnose the pairs of a group one by one, without their whole spectra.

    Parameters
    ----------
    group, write, read, rule, seed, folded, plain
        As for `pair_records`.
    readers
        The read maps that are prepared already, by index; it takes those that are prepared here,
        for groups with the same read maps.

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
    for i, member in enumerate(group.members):
        plain_write, plain_read = (None, None) if plain is None else plain
        prepare = partial(sharp_map, rule=rule, seed=seed)
        if i not in readers:
            readers[i] = prepare(_one(read, i), read=True, plain=plain_read and _one(plain_read, i))
        writer = prepare(_one(write, i), read=False, plain=plain_write and _one(plain_write, i))
        records.append(_record(group, member, writer, readers[i], seed=seed, folded=folded))
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
    identity = _identity(group, member, write.shape[0], folded, (write.repeated, read.repeated))
    fault = _fault("write", group.write, write.fault) or _fault("read", group.read, read.fault)
    if fault is not None:
        return _blank(identity, fault)
    fields = sharp_fields(write, read, name=member.name, seed=seed)
    balanced = None
    if group.freedom in GAUGES:
        balanced = Balanced(gauge=GAUGES[group.freedom], status=FULL_SCAN_ONLY)
    return PairRecord(**identity, **fields, balanced=balanced)


@dataclass(frozen=True)
class SharpGrams:
    """Observables of two Gram matrices, with the standard errors of those that were sketched."""

    observables: GramObservables
    commutator_error: float | None = None
    defect_error: float | None = None
    sketch: CommutatorSketch | None = None


def sharp_fields(
    write: SharpMap, read: SharpMap, *, name: str, seed: int
) -> dict[str, Any]:
    """The numbers of one pair's record.

    Parameters
    ----------
    write, read
        The two maps, without a fault.
    name
        Of the pair: with the seed it fixes the random vectors.
    seed
        Of the scan.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    if write.known is None or read.known is None:
        raise ValueError("a map with a fault has no numbers")

    def sketch(one: GramSide, two: GramSide) -> CommutatorSketch:
        generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
        return commutator_of_grams(one, two, generator=generator, product_up_to=PRODUCT_UP_TO)

    sides = write.known, read.known
    product = inner_of_grams(sides[0].side, sides[1].side)
    grams = _grams(*sides, product, (write.gram_noise, read.gram_noise), sketch=sketch)
    row = grams.observables
    if row.status == "ok":
        row = _with_imbalance(row, write, read, product)
    cosines = sides[0].leading.vectors.mT @ sides[1].leading.vectors
    r1, r2 = cosines.shape
    tests = _tests(write, read, cosines, row, sketch)
    d = write.shape[0]
    position = dominant_position(write.noisy, read.noisy, cosines, r1, r2) if r1 and r2 else None
    functional, kernel = _functional(write, read)
    ranked = write.numerical and read.numerical
    return {
        "rank_write": write.numerical,
        "rank_read": read.numerical,
        "effective_rank_write": r1,
        "effective_rank_read": r2,
        "participation_write": number(sides[0].side.participation or None),
        "participation_read": number(sides[1].side.participation or None),
        **row.fields(),
        "commutator_ratio_error": grams.commutator_error,
        "commutation_defect_error": grams.defect_error,
        **position_fields(position, d),
        **tests.fields(),
        "dominant": dominant_status(r1, r2, tests) if ranked else None,
        **surface_fields(cosines, r1, r2, d),
        "functional": functional,
        "kernel_intersection": kernel,
        "null": null_values(row, position, d),
        "depth": "sharp",
        "status": first_reason(
            None if ranked else "a map lies below its storage noise",
            None if row.status == "ok" else row.status,
        ),
    }


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
    nothing = SharpGrams(GramObservables(None, status=_ISOTROPIC))
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
    return SharpGrams(
        GramObservables(
            None,
            commutator_ratio=number(ratio),
            commutator_p=c_test.p,
            gram_correlation=number(rho),
            gram_correlation_z=test.z,
            gram_correlation_p=test.p,
            commutation_defect=number(made.defect),
            commutator_interval=null.interval,
            correlation_sd=correlation.sd * spread,
            defect_mean=null.defect_mean,
            defect_sd=null.defect_sd,
        ),
        number(error) if sketched else None,
        number(made.defect_error) if sketched else None,
        made,
    )


def _with_imbalance(
    row: GramObservables, write: SharpMap, read: SharpMap, product: float
) -> GramObservables:
    a, b = write.known, read.known
    if a is None or b is None:
        return row
    top = max(write.exponent, read.exponent)
    weights = 4.0 ** (write.exponent - top), 4.0 ** (read.exponent - top)
    norms = weights[0] * a.side.gram_norm + weights[1] * b.side.gram_norm
    gap = difference_of_grams(a.side, b.side, product, weights)
    return replace(row, imbalance=number(gap / norms if norms > 0 else None))


def _tests(
    write: SharpMap, read: SharpMap, cosines: torch.Tensor, row: GramObservables, sketch: Sketch
) -> PairTests:
    """The tests at the dominant ranks and the powers of two below, guarded against profiles."""
    d = write.shape[0]
    dominant: RankPair = (cosines.shape[0], cosines.shape[1])
    shares = dominant_ranks_to_test(dominant, d)
    overlap = combined_overlap(cosines, shares, d)
    known = [] if overlap is None else [10.0**overlap.log10_p]
    known += [p for p in (row.commutator_p, row.gram_correlation_p) if p is not None]
    guarded = None
    if any(p <= LOOK for p in known):
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
        return GuardedTests(0.0, 0.0, 1.0, 1.0)
    one, two = (map_.on(alive, unlike=unlike) for map_ in (write, read))
    cosines = one.leading.vectors.mT @ two.leading.vectors
    limits = cosines.shape
    d = one.side.d
    clipped: dict[RankPair, float] = {}
    for (i, j), share in shares.items():
        ranks = min(i, limits[0]), min(j, limits[1])
        if min(ranks) > 0 and max(ranks) < d:
            clipped[ranks] = clipped.get(ranks, 0.0) + share
    overlap = combined_overlap(cosines, clipped, d)
    unit = torch.finfo(cosines.dtype).eps
    noise = 2 * unit * d * one.side.mean, 2 * unit * d * two.side.mean
    spread = flat_spread(d) if unlike else 1.0
    product = inner_of_grams(one.side, two.side)
    row = _grams(one, two, product, noise, sketch=sketch, spread=spread).observables
    at = min(dominant[0], limits[0]), min(dominant[1], limits[1])
    return GuardedTests(
        0.0 if overlap is None else overlap.log10_p,
        0.0 if overlap is None else overlap.single.get(at, 0.0),
        1.0 if row.commutator_p is None else row.commutator_p,
        1.0 if row.gram_correlation_p is None else row.gram_correlation_p,
    )


def _functional(write: SharpMap, read: SharpMap) -> tuple[Functional, int | None]:
    """What is known of M = W2 W1: its rank, where one range is all of the space."""
    d = write.shape[0]
    rank = None
    if write.numerical and read.numerical and d in (write.numerical, read.numerical):
        noise = write.delta * read.top + read.delta * write.top + write.delta * read.delta
        size = max(*write.shape, *read.shape)
        floor = size * torch.finfo(torch.float64).eps * write.top * read.top
        if write.least * read.least > max(noise, floor):
            rank = min(write.numerical, read.numerical)
    functional = Functional(product_spectrum=None, product_rank=rank, product_effective_rank=None)
    if rank is None:
        return functional, None
    return functional, kernel_intersection(rank_write=write.numerical, rank_product=rank)
