"""The numbers of pairs, from their spectra and what is known of the noise of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.diagnose.grams import GramObservables, gram_observables
from flagscope.diagnose.matrices import Matrices, power_of_two
from flagscope.diagnose.position import LEVEL, DominantPosition, Noisy, dominant_position
from flagscope.diagnose.records import Balanced, Functional, Incidence, NullValues
from flagscope.diagnose.spectra import PairSpectra
from flagscope.diagnose.values import array_values, first_reason, number, rank_grid, rounded
from flagscope.geometry import (
    RankRule,
    incidence_at_ranks,
    kernel_intersection,
    numerical_rank,
)
from flagscope.null import haar_overlap, largest_cosine_threshold, overlap_significance

_BEYOND_RANGE = "the singular values of W2 W1 exceed double precision"


@dataclass(frozen=True)
class MapFacts:
    """What the numbers of n pairs need to know of the maps on one side, beside their spectra.

    The maps are taken over powers of two, so that eighth powers of singular values stay in range.

    Attributes
    ----------
    shape
        (shared dimension, other dimension).
    delta, mean_square
        Noise of their storage, as in `Matrices`.
    norm
        Frobenius norms, shape (n,), float64, on the CPU.
    exponents
        The powers of two, shape (n,).
    matrix
        Gives the i-th map, the shared space along the rows.
    """

    shape: tuple[int, int]
    delta: Float[Tensor, " n"]
    mean_square: Float[Tensor, " n"]
    norm: Float[Tensor, " n"]
    exponents: Int[Tensor, " n"]
    matrix: Callable[[int], Float[Tensor, "d m"]]


def facts_of(maps: Matrices, exponents: Int[Tensor, " n"], *, read: bool) -> MapFacts:
    """The facts of normalised maps (see `Matrices.normalised`), given as writers or as readers."""
    values = maps.values.mT if read else maps.values
    return MapFacts(
        shape=(values.shape[1], values.shape[2]),
        delta=maps.delta,
        mean_square=maps.mean_square,
        norm=torch.linalg.matrix_norm(values).cpu().double(),
        exponents=exponents,
        matrix=lambda i: values[i],
    )


@dataclass(frozen=True)
class Ranks:
    """Numerical and effective ranks of n maps, and the singular values they are read from."""

    sigma: Float[Tensor, "n s"]
    numerical: list[int]
    effective: list[int]


def ranks_of(facts: MapFacts, sigma: Float[Tensor, "n s"], rule: RankRule) -> Ranks:
    """Ranks by the storage noise and by a rule, from singular values that are roots of a Gram's."""
    noise = facts.delta.to(sigma)
    numerical = numerical_rank(sigma, shape=facts.shape, noise=noise, gram=True)
    effective = rule.ranks(sigma, shape=facts.shape, noise=noise, gram=True)
    return Ranks(sigma, numerical.tolist(), effective.tolist())


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
        Singular values of W2 W1, descending; None where what is known without them shall do.
    resolution
        Accuracy of the products of each pair, relative to ‖W1‖ ‖W2‖.
    balanced
        The observables after gauge fixing, if any.
    rule, seed
        As for `pair_records`.
    sigma
        Singular values of the maps, where they are known better than from `spectra`.
    """
    grams = gram_observables(
        spectra, gram_noise(write, spectra), gram_noise(read, spectra), seed=seed,
        weights=_gram_weights(spectra.alpha, write.exponents, read.exponents),
    )  # fmt: skip
    sigma = (spectra.sigma_write, spectra.sigma_read) if sigma is None else sigma
    ranks = ranks_of(write, sigma[0], rule), ranks_of(read, sigma[1], rule)
    exponents = (write.exponents + read.exponents).tolist()
    unit = torch.finfo(spectra.cosines.dtype).eps
    fields = []
    for i, row in enumerate(grams):
        sides = _noisy(write, ranks[0], i, unit), _noisy(read, ranks[1], i, unit)
        r1, r2 = ranks[0].effective[i], ranks[1].effective[i]
        position = dominant_position(*sides, spectra.cosines[i], r1, r2) if r1 and r2 else None
        numerical = ranks[0].numerical[i], ranks[1].numerical[i]
        product = (
            _bounded_product_fields(spectra, sides, numerical, i, resolution[i])
            if products is None
            else _product_fields(products[i], sides, numerical[0], exponents[i], resolution[i])
        )
        fields.append(
            {"rank_write": numerical[0], "rank_read": numerical[1]}
            | row.fields()
            | _position_fields(position, spectra.d)
            | _surface_fields(spectra.cosines[i], *numerical, spectra.d)
            | {name: product[name] for name in ("functional", "kernel_intersection")}
            | {
                "balanced": balanced[i],
                "null": _null_values(row, position, spectra.d),
                "status": first_reason(
                    None if position else "a map lies below its storage noise",
                    None if row.status == "ok" else row.status,
                    _BEYOND_RANGE if product["beyond_range"] else None,
                ),
            }
        )
    return fields


def _noisy(facts: MapFacts, ranks: Ranks, i: int, roundoff: float) -> Noisy:
    delta = float(facts.delta[i])
    return Noisy(facts.shape, ranks.sigma[i], delta, roundoff, lambda: facts.matrix(i))


def gram_noise(facts: MapFacts, spectra: PairSpectra) -> Float[Tensor, " n"]:
    """Bound on the Frobenius norm of the error of W Wᵀ: 2 ‖W‖ ‖ΔW‖_F to first order."""
    error = (facts.mean_square * (facts.shape[0] * facts.shape[1])).sqrt()
    rounding = torch.finfo(spectra.alpha.dtype).eps * facts.norm
    return 2 * facts.norm * (error + rounding)


def _gram_weights(like: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """4^e of both sides, over the larger of the two."""
    top = torch.maximum(write, read)
    ones = torch.ones(len(like), dtype=torch.float64)
    of_a, of_b = (power_of_two(ones, 2 * (one - top)).to(like) for one in (write, read))
    return of_a, of_b


def _position_fields(position: DominantPosition | None, d: int) -> dict[str, Any]:
    names = (
        *("effective_rank_write", "effective_rank_read", "overlap_ratio", "overlap_z"),
        *("p", "log10_p", "intersection_exact", "intersection_beyond_chance", "flag_defect"),
        *("cosines", "p_adjusted", "p_adjusted_dependent"),
    )
    fields: dict[str, Any] = dict.fromkeys(names)
    if position is None:
        return fields
    r1, r2 = position.rank_write, position.rank_read
    test = overlap_significance(position.overlap, r1, r2, d)
    return fields | {
        "effective_rank_write": r1,
        "effective_rank_read": r2,
        "overlap_ratio": position.overlap / (r1 * r2 / d),
        "overlap_z": test.z,
        "p": test.p,
        "log10_p": test.log10_p,
        "intersection_exact": position.exact,
        "intersection_beyond_chance": position.beyond_chance,
        "flag_defect": position.flag_defect,
        "cosines": array_values(position.cosines),
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


def _product_fields(
    sigma: Tensor,
    sides: tuple[Noisy, Noisy],
    rank_write: int,
    exponent: int,
    resolution: float,
) -> dict[str, Any]:
    """Spectrum of M = W2 W1, and what of the write space it loses.

    M is 2^exponent times what has the singular values `sigma`.

    The storage noise of M is bounded by δ1‖W2‖ + δ2‖W1‖ + δ1δ2, and the round-off of its singular
    values by `resolution` times the norms of the factors. A singular value between the two may or
    may not be zero in truth: the kernel intersection is then left open.
    """
    write, read = sides
    top1, top2 = float(write.sigma[0]), float(read.sigma[0])
    floor = resolution * top1 * top2
    noise = write.delta * top2 + read.delta * top1 + write.delta * read.delta
    certain = int((sigma > max(noise, floor)).sum())
    # What a Gram matrix lost may be small and not zero.
    lost = resolution > max(write.shape + read.shape) * torch.finfo(sigma.dtype).eps
    possible = len(sigma) if lost else int((sigma > floor).sum())
    kernel = None
    if min(certain, rank_write) == min(possible, rank_write):
        kernel = kernel_intersection(rank_write=rank_write, rank_product=min(certain, rank_write))
    square = sigma.square()
    total = float(square.sum())
    effective = total**2 / float(square.square().sum()) if total > 0 else None
    # In double precision, whatever the weights: only a product beyond 1e308 has no number.
    with np.errstate(over="ignore"):
        true = np.ldexp(sigma.cpu().double().numpy(), exponent)
    functional = Functional(
        product_spectrum=array_values(torch.from_numpy(true)) if np.isfinite(true).all() else None,
        product_rank=certain,
        product_effective_rank=number(effective),
    )
    beyond = functional.product_spectrum is None
    return {"functional": functional, "kernel_intersection": kernel, "beyond_range": beyond}


def _bounded_product_fields(
    spectra: PairSpectra,
    sides: tuple[Noisy, Noisy],
    ranks: tuple[int, int],
    i: int,
    resolution: float,
) -> dict[str, Any]:
    """What is known of M = W2 W1 without its singular values.

    The participation ratio follows from sums. M loses nothing of the smaller range if its least
    singular value there, at least σ_r1(W1) σ_r2(W2) times the least cosine between the ranges, is
    above the noise of M; where it is not, the rank and the kernel intersection are left open.
    """
    write, read = sides
    square, fourth = float(spectra.product_square[i]), float(spectra.product_fourth[i])
    rank = None
    if all(ranks):
        cosine = _least_cosine(spectra.cosines[i], *ranks, spectra.d)
        least = float(write.sigma[ranks[0] - 1]) * float(read.sigma[ranks[1] - 1]) * cosine
        top1, top2 = float(write.sigma[0]), float(read.sigma[0])
        noise = write.delta * top2 + read.delta * top1 + write.delta * read.delta
        if least > max(noise, resolution * top1 * top2):
            rank = min(ranks)
    functional = Functional(
        product_spectrum=None,
        product_rank=rank,
        product_effective_rank=number(square**2 / fourth if fourth > 0 else None),
    )
    kernel = None if rank is None else kernel_intersection(rank_write=ranks[0], rank_product=rank)
    return {"functional": functional, "kernel_intersection": kernel, "beyond_range": False}


def _least_cosine(cosines: Tensor, r1: int, r2: int, d: int) -> float:
    """A lower bound of the cosines between two leading spaces, by what the larger one lacks.

    Of use where that is little: the sines are at most the norm of the overlaps with it.
    """
    if r1 > r2:
        cosines, r1, r2 = cosines.mT, r2, r1
    if r2 == d:
        return 1.0
    if cosines.shape[1] < d:
        return 0.0
    return max(0.0, 1 - float(cosines[:r1, r2:].double().square().sum())) ** 0.5


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
