"""The numbers of pairs, from their spectra and what is known of the noise of their maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.facts import MapFacts, Ranks, gram_noise, gram_weights, ranks_of
from flagscope.diagnose.grams import GramObservables, gram_observables
from flagscope.diagnose.guard import Views
from flagscope.diagnose.pair_tests import PairTests, pair_tests
from flagscope.diagnose.position import LEVEL, DominantPosition, Noisy, dominant_position
from flagscope.diagnose.product_fields import bounded_product_fields, product_fields
from flagscope.diagnose.values import array_values, first_reason, number, rank_grid, rounded
from flagscope.geometry import PairSpectra, RankRule, incidence_at_ranks
from flagscope.null import haar_overlap, largest_cosine_threshold, overlap_significance
from flagscope.records import Balanced, Incidence, NullValues

# log10 p from which on the combined test rejects, as far as words go.
_REJECTED = math.log10(0.05)
_BEYOND_RANGE = "the singular values of W2 W1 exceed double precision"


def measured_fields(
    spectra: PairSpectra,
    write: MapFacts,
    read: MapFacts,
    *,
    products: Float[Tensor, "n k"] | None,
    resolution: Sequence[float],
    balanced: list[Balanced | None],
    rule: RankRule,
    seed: int,
    views: Views,
    sigma: tuple[Float[Tensor, "n p"], Float[Tensor, "n q"]] | None = None,
) -> list[dict[str, Any]]:
    """The fields of the records of n pairs, all but those that identify them.

    Parameters
    ----------
    spectra
        Of the pairs.
    write, read
        Of their maps.
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
    grams = gram_observables(
        spectra, gram_noise(write, spectra), gram_noise(read, spectra), seed=seed,
        weights=gram_weights(spectra.alpha, write.exponents, read.exponents),
    )  # fmt: skip
    sigma = (spectra.sigma_write, spectra.sigma_read) if sigma is None else sigma
    ranks = ranks_of(write, sigma[0], rule), ranks_of(read, sigma[1], rule)
    exponents = (write.exponents + read.exponents).tolist()
    unit = torch.finfo(spectra.cosines.dtype).eps
    tests = pair_tests(spectra, *ranks, grams, views=views, seed=seed)
    fields = []
    for i, row in enumerate(grams):
        sides = _noisy(write, ranks[0], i, unit), _noisy(read, ranks[1], i, unit)
        r1, r2 = ranks[0].effective[i], ranks[1].effective[i]
        position = dominant_position(*sides, spectra.cosines[i], r1, r2) if r1 and r2 else None
        numerical = ranks[0].numerical[i], ranks[1].numerical[i]
        product = (
            bounded_product_fields(spectra, sides, numerical, i, resolution[i])
            if products is None
            else product_fields(products[i], sides, numerical[0], exponents[i], resolution[i])
        )
        fields.append(
            {"rank_write": numerical[0], "rank_read": numerical[1]}
            | {"effective_rank_write": r1, "effective_rank_read": r2}
            | {
                "participation_write": number(ranks[0].participation[i] or None),
                "participation_read": number(ranks[1].participation[i] or None),
            }
            | row.fields()
            | _position_fields(position, spectra.d)
            | tests[i].fields()
            | {"dominant": _dominant(r1, r2, tests[i]) if all(numerical) else None}
            | _surface_fields(spectra.cosines[i], *numerical, spectra.d)
            | {name: product[name] for name in ("functional", "kernel_intersection")}
            | {
                "balanced": balanced[i],
                "null": _null_values(row, position, spectra.d),
                "status": first_reason(
                    None if all(numerical) else "a map lies below its storage noise",
                    None if row.status == "ok" else row.status,
                    _BEYOND_RANGE if product["beyond_range"] else None,
                ),
            }
        )
    return fields


def _dominant(rank_write: int, rank_read: int, test: PairTests) -> str:
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


def _noisy(facts: MapFacts, ranks: Ranks, i: int, roundoff: float) -> Noisy:
    delta = float(facts.delta[i])
    return Noisy(facts.shape, ranks.sigma[i], delta, roundoff, lambda: facts.matrix(i))


def _position_fields(position: DominantPosition | None, d: int) -> dict[str, Any]:
    if position is None:
        names = (
            *("overlap_ratio", "overlap_z", "intersection_exact", "intersection_beyond_chance"),
            *("intersection_status", "flag_defect", "cosines", "cosines_forced"),
        )
        return dict.fromkeys(names)
    r1, r2 = position.rank_write, position.rank_read
    return {
        "overlap_ratio": position.overlap / (r1 * r2 / d),
        "overlap_z": overlap_significance(position.overlap, r1, r2, d).z,
        "intersection_exact": position.exact,
        "intersection_beyond_chance": position.beyond_chance,
        "intersection_status": position.status,
        "flag_defect": position.flag_defect,
        "cosines": array_values(position.cosines),
        "cosines_forced": max(0, r1 + r2 - d),
    }


def _surface_fields(cosines: Tensor, rank_write: int, rank_read: int, d: int) -> dict[str, Any]:
    if not rank_write or not rank_read:
        return {"profile": None, "incidence": None}
    rows, columns = rank_grid(rank_write), rank_grid(rank_read)
    diagonal = rank_grid(min(rank_write, rank_read))
    every = sorted({*rows, *columns, *diagonal})
    left, right = ([r for r in every if r <= extent] for extent in cosines.shape)
    surface = incidence_at_ranks(cosines, left, right).tolist()
    at = {r: i for i, r in enumerate(every)}
    profile = [(r, float(f"{surface[at[r]][at[r]] * d / (r * r):.6g}")) for r in diagonal]
    grid = [[surface[at[r]][at[c]] for c in columns] for r in rows]
    return {
        "profile": profile,
        "incidence": Incidence(ranks_write=rows, ranks_read=columns, surface=rounded(grid)),
    }


def _null_values(row: GramObservables, position: DominantPosition | None, d: int) -> NullValues:
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
