"""The numbers of pairs, from their spectra and what is known of the noise of their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.grams import GramObservables, gram_observables
from flagscope.diagnose.guard import Views
from flagscope.diagnose.pair_tests import PairTests, pair_tests
from flagscope.diagnose.position import LEVEL, DominantPosition, dominant_position
from flagscope.diagnose.rank_profile import leading_surface
from flagscope.diagnose.values import array_values, first_reason, number
from flagscope.geometry import (
    ComposedMap,
    MapRanks,
    NoisyMap,
    NoisyMaps,
    PairSpectra,
    RankRule,
    bounded_composed_map,
    composed_map,
    forced_dimension,
    gram_error,
    gram_weights,
    map_ranks,
)
from flagscope.null import haar_overlap, largest_cosine_threshold, overlap_significance
from flagscope.records import ArraySummary, Balanced, Functional, Incidence, NullValues

# log10 p from which on the combined test rejects, as far as words go.
_REJECTED = math.log10(0.05)
_BEYOND_RANGE = "the singular values of W2 W1 exceed double precision"


@dataclass(frozen=True)
class PairRanks:
    """Ranks of both maps: by the storage noise, by the rule of the scan, and how spread out."""

    write: int | None = None
    read: int | None = None
    effective_write: int | None = None
    effective_read: int | None = None
    participation_write: float | None = None
    participation_read: float | None = None


@dataclass(frozen=True)
class PositionNumbers:
    """Relative position of the dominant spaces, see `DominantPosition`."""

    overlap_ratio: float | None = None
    overlap_z: float | None = None
    exact: int | None = None
    beyond_chance: int | None = None
    status: str | None = None
    flag_defect: float | None = None
    cosines: list[float] | ArraySummary | None = None
    cosines_forced: int | None = None


@dataclass(frozen=True)
class PairMeasurement:
    """What was measured of one pair; the parts that were not hold None in every field.

    Attributes
    ----------
    status
        "ok", or why numbers are missing.
    ranks, grams, position, tests
        By subject.
    dominant
        "ok", or in words why no dominant spaces are compared.
    profile
        (rank, overlap ratio) along the diagonal of the incidence surface.
    incidence
        The incidence surface on a grid of ranks.
    functional, kernel_intersection
        Of W2 W1.
    balanced
        The observables after gauge fixing.
    null
        What chance gives.
    depth
        Whether the whole spectrum was computed.
    commutator_error, defect_error
        Standard errors of C and ν, where they are estimates.
    """

    status: str
    ranks: PairRanks = PairRanks()
    grams: GramObservables = field(default_factory=GramObservables)
    position: PositionNumbers = PositionNumbers()
    tests: PairTests = field(default_factory=PairTests)
    dominant: str | None = None
    profile: list[tuple[int, float]] | None = None
    incidence: Incidence | None = None
    functional: Functional | None = None
    kernel_intersection: int | None = None
    balanced: Balanced | None = None
    null: NullValues | None = None
    depth: Literal["full", "sharp"] = "full"
    commutator_error: float | None = None
    defect_error: float | None = None


def measured_pairs(
    spectra: PairSpectra,
    write: NoisyMaps,
    read: NoisyMaps,
    *,
    products: Float[Tensor, "n k"] | None,
    resolution: Sequence[float],
    balanced: Sequence[Balanced | None],
    rule: RankRule,
    seed: int,
    views: Views,
    sigma: tuple[Float[Tensor, "n p"], Float[Tensor, "n q"]] | None = None,
) -> list[PairMeasurement]:
    """Measure n pairs of which the spectra are known.

    Parameters
    ----------
    spectra
        Of the pairs.
    write, read
        Their maps.
    products
        Singular values of W2 W1, descending; None to use the bounds that do not need them.
    resolution
        Accuracy of the products of each pair, relative to ‖W1‖ ‖W2‖.
    balanced
        The observables after gauge fixing, if any.
    rule, seed
        As for `pair_records`.
    views
        Gives pairs without their scale profiles, see `profile_views`.
    sigma
        Singular values of the maps, where they are known better than from `spectra`.
    """
    roundoff = torch.finfo(spectra.alpha.dtype).eps
    errors = gram_error(write, roundoff=roundoff), gram_error(read, roundoff=roundoff)
    weights = gram_weights(spectra.alpha, write.exponents, read.exponents)
    grams = gram_observables(spectra, *errors, seed=seed, weights=weights)
    sigma = (spectra.sigma_write, spectra.sigma_read) if sigma is None else sigma
    ranks = map_ranks(write, sigma[0], rule), map_ranks(read, sigma[1], rule)
    exponents = (write.exponents + read.exponents).tolist()
    tests = pair_tests(spectra, *ranks, grams, views=views, seed=seed)
    measured = []
    for i, (row, test) in enumerate(zip(grams, tests, strict=True)):
        sides = (
            write.map(i, ranks[0].sigma[i], roundoff=roundoff),
            read.map(i, ranks[1].sigma[i], roundoff=roundoff),
        )
        numerical = ranks[0].numerical[i], ranks[1].numerical[i]
        product = (
            bounded_composed_map(spectra, i, *sides, ranks=numerical, resolution=resolution[i])
            if products is None
            else composed_map(
                products[i], *sides, rank_write=numerical[0], exponent=exponents[i],
                resolution=resolution[i],
            )
        )  # fmt: skip
        measured.append(_measured(spectra, i, sides, ranks, row, test, product, balanced[i]))
    return measured


def _measured(
    spectra: PairSpectra,
    i: int,
    sides: tuple[NoisyMap, NoisyMap],
    ranks: tuple[MapRanks, MapRanks],
    grams: GramObservables,
    tests: PairTests,
    product: ComposedMap,
    balanced: Balanced | None,
) -> PairMeasurement:
    d, cosines = spectra.d, spectra.cosines[i]
    numerical = ranks[0].numerical[i], ranks[1].numerical[i]
    effective = ranks[0].effective[i], ranks[1].effective[i]
    position = dominant_position(*sides, cosines, *effective) if all(effective) else None
    profile, incidence = leading_surface(cosines, *numerical, d) if all(numerical) else (None, None)
    return PairMeasurement(
        status=first_reason(
            None if all(numerical) else "a map lies below its storage noise",
            None if grams.status == "ok" else grams.status,
            _BEYOND_RANGE if product.beyond_range else None,
        ),
        ranks=PairRanks(
            write=numerical[0],
            read=numerical[1],
            effective_write=effective[0],
            effective_read=effective[1],
            participation_write=number(ranks[0].participation[i] or None),
            participation_read=number(ranks[1].participation[i] or None),
        ),
        grams=grams,
        position=position_numbers(position, d),
        tests=tests,
        dominant=dominant_status(*effective, tests) if all(numerical) else None,
        profile=profile,
        incidence=incidence,
        functional=Functional(
            product_spectrum=None if product.spectrum is None else array_values(product.spectrum),
            product_rank=product.rank,
            product_effective_rank=number(product.participation or None),
        ),
        kernel_intersection=product.kernel_intersection,
        balanced=balanced,
        null=null_values(grams, position, d),
    )


def dominant_status(rank_write: int, rank_read: int, test: PairTests) -> str:
    """'ok', or the maps in which nothing stands out of the bulk, with the result of the test."""
    if rank_write and rank_read:
        return "ok"
    where = "the read map" if rank_write else "the write map" if rank_read else "either map"
    overlap = test.overlap
    if overlap is None or test.overlap_log10_p is None or test.overlap_log10_p > _REJECTED:
        return f"nothing stands out of the bulk of {where}"
    i, j = overlap.ranks
    return (
        f"no direction of {where} stands out alone, but the leading {i} and {j} overlap "
        f"{overlap.overlap_ratio:.3g} times as much as by chance"
    )


def position_numbers(position: DominantPosition | None, d: int) -> PositionNumbers:
    """The relative position of dominant spaces as a record has it."""
    if position is None:
        return PositionNumbers()
    r1, r2 = position.rank_write, position.rank_read
    return PositionNumbers(
        overlap_ratio=position.overlap / (r1 * r2 / d),
        overlap_z=overlap_significance(position.overlap, r1, r2, d).z,
        exact=position.exact,
        beyond_chance=position.beyond_chance,
        status=position.status,
        flag_defect=position.flag_defect,
        cosines=array_values(position.cosines),
        cosines_forced=forced_dimension(r1, r2, d),
    )


def null_values(row: GramObservables, position: DominantPosition | None, d: int) -> NullValues:
    """What chance gives for a pair."""
    sd = cosine = None
    if position is not None:
        r1, r2 = position.rank_write, position.rank_read
        sd = haar_overlap(r1, r2, d).sd / (r1 * r2 / d)
        cosine = largest_cosine_threshold(r1, r2, d, level=LEVEL)
    return NullValues(
        overlap_ratio_sd=sd,
        commutator_ratio_interval=row.commutator_interval,
        gram_correlation_sd=row.correlation_sd,
        commutation_defect=row.defect_mean,
        commutation_defect_sd=row.defect_sd,
        largest_cosine=cosine,
    )
