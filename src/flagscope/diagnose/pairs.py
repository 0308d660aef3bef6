"""Records of adjacent pairs: every observable beside what chance gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.arch import Member, PairGroup, Side
from flagscope.diagnose.balanced import GAUGES, BalancedMaps, balanced_maps, fixes_completely
from flagscope.diagnose.grams import GramObservables, gram_observables
from flagscope.diagnose.matrices import Matrices, power_of_two
from flagscope.diagnose.position import LEVEL, DominantPosition, Noisy, dominant_position
from flagscope.diagnose.records import (
    Balanced,
    Functional,
    Incidence,
    MapReference,
    NullValues,
    PairRecord,
)
from flagscope.diagnose.spectra import pair_spectra, product_singular_values
from flagscope.diagnose.values import array_values, at_ranks, first_reason, number, rank_grid
from flagscope.geometry import (
    RankRule,
    incidence_surface_of_overlaps,
    kernel_intersection,
    numerical_rank,
)
from flagscope.null import haar_overlap, largest_cosine_threshold, overlap_significance

_BEYOND_RANGE = "the singular values of W2 W1 exceed double precision"


def pair_records(
    group: PairGroup,
    write: Matrices,
    read: Matrices,
    *,
    rule: RankRule | None = None,
    seed: int = 0,
    folded: Sequence[str] = (),
) -> list[PairRecord]:
    """Diagnose all pairs of a group, batched.

    Parameters
    ----------
    group
        Names, freedom and members of the pairs.
    write, read
        The n write maps (n, d, m1) and read maps (n, m2, d), in the order of the members.
    rule
        How to choose the dimensions of the dominant spaces; the participation ratio by default.
    seed
        Of the Haar draws that stand in where no closed form holds.
    folded
        Names of norms that were folded into the maps, for the record.

    Returns
    -------
    list of PairRecord
        One a member. A pair with a map that is zero, or not finite, gets a status and nulls.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    rule = rule or RankRule.parse("participation")
    faults = [
        _fault("write", group.write, w) or _fault("read", group.read, r)
        for w, r in zip(write.faults(), read.faults(), strict=True)
    ]
    good = [i for i, fault in enumerate(faults) if fault is None]
    d = write.values.shape[1]
    identities = [_identity(group, member, d, folded) for member in group.members]
    records = [_blank(identity, fault) for identity, fault in zip(identities, faults, strict=True)]
    if good:
        members = [group.members[i] for i in good]
        measured = _measure(group, members, write.take(good), read.take(good), rule, seed)
        for i, fields in zip(good, measured, strict=True):
            records[i] = PairRecord(**identities[i], **fields)
    return records


def _fault(which: str, side: Side, fault: str | None) -> str | None:
    return None if fault is None else f"{which} map {side.map.tensor} is {fault}"


def _identity(group: PairGroup, member: Member, d: int, folded: Sequence[str]) -> dict[str, Any]:
    return {
        "name": member.name,
        "kind": group.kind,
        "between": group.between,
        "stack": group.stack,
        "attention": group.attention,
        "layer": group.layer,
        "head": member.head,
        "kv_head": member.kv_head,
        "expert": member.expert,
        "write": _reference(group.write, member.write_index),
        "read": _reference(group.read, member.read_index),
        "d": d,
        "freedom": group.freedom,
        "folded": list(folded),
    }


def _reference(side: Side, index: int) -> MapReference:
    return MapReference(
        tensor=side.map.tensor, slice=side.map.slice_text(index), transposed=side.transposed
    )


def _blank(identity: dict[str, Any], status: str | None) -> PairRecord:
    names = set(PairRecord.model_fields) - set(identity) - {"status"}
    missing: dict[str, Any] = dict.fromkeys(names)
    return PairRecord(**identity, **missing, status=status or "not measured")


@dataclass(frozen=True)
class _Ranks:
    """Numerical and effective ranks of a batch, and the singular values they are read from."""

    sigma: Tensor
    numerical: list[int]
    effective: list[int]


def _ranks(maps: Matrices, sigma: Tensor, rule: RankRule) -> _Ranks:
    shape = (maps.values.shape[1], maps.values.shape[2])
    noise = maps.delta.to(sigma)
    numerical = numerical_rank(sigma, shape=shape, noise=noise, gram=True)
    effective = rule.ranks(sigma, shape=shape, noise=noise, gram=True)
    return _Ranks(sigma, numerical.tolist(), effective.tolist())


def _measure(
    group: PairGroup,
    members: list[Member],
    write: Matrices,
    read: Matrices,
    rule: RankRule,
    seed: int,
) -> list[dict[str, Any]]:
    # From here on the maps are known up to powers of two, so that eighth powers of singular values
    # stay in range; what depends on their scale is told of it.
    write, write_exponents = write.normalised()
    read, read_exponents = read.normalised()
    spectra = pair_spectra(write.values, read.values)
    grams = gram_observables(
        spectra, _gram_noise(write), _gram_noise(read), seed=seed,
        weights=_gram_weights(spectra.alpha, write_exponents, read_exponents),
    )  # fmt: skip
    ranks = _ranks(write, spectra.sigma_write, rule), _ranks(read, spectra.sigma_read, rule)
    surface = incidence_surface_of_overlaps(spectra.cosines)
    products = product_singular_values(spectra, write.values, read.values)
    exponents = (write_exponents + read_exponents).tolist()
    balanced = _balanced_records(group, members, write, read, rule, seed, products)
    fields = []
    for i in range(len(members)):
        sides = (
            Noisy(write.values[i], ranks[0].sigma[i], float(write.delta[i])),
            Noisy(read.values[i], ranks[1].sigma[i], float(read.delta[i])),
        )
        r1, r2 = ranks[0].effective[i], ranks[1].effective[i]
        position = dominant_position(*sides, spectra.cosines[i], r1, r2) if r1 and r2 else None
        row = grams[i]
        product = _product_fields(products[i], sides, ranks[0].numerical[i], exponents[i])
        fields.append(
            {"rank_write": ranks[0].numerical[i], "rank_read": ranks[1].numerical[i]}
            | row.fields()
            | _position_fields(position, spectra.d)
            | _surface_fields(surface[i], ranks[0].numerical[i], ranks[1].numerical[i], spectra.d)
            | product
            | {
                "balanced": balanced[i],
                "null": _null_values(row, position, spectra.d),
                "status": first_reason(
                    None if position else "a map lies below its storage noise",
                    None if row.status == "ok" else row.status,
                    None if product["functional"].product_spectrum else _BEYOND_RANGE,
                ),
            }
        )
    return fields


def _gram_weights(like: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """4^e of both sides, over the larger of the two."""
    top = torch.maximum(write, read)
    ones = torch.ones(len(like), dtype=torch.float64)
    of_a, of_b = (power_of_two(ones, 2 * (one - top)).to(like) for one in (write, read))
    return of_a, of_b


def _gram_noise(maps: Matrices) -> Tensor:
    """Bound on the Frobenius norm of the error of W Wᵀ: 2 ‖W‖ ‖ΔW‖_F to first order."""
    entries = maps.values.shape[1] * maps.values.shape[2]
    error = (maps.mean_square * entries).sqrt()
    norm = torch.linalg.matrix_norm(maps.values).cpu().double()
    rounding = torch.finfo(maps.values.dtype).eps * norm
    return 2 * norm * (error + rounding)


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


def _surface_fields(surface: Tensor, rank_write: int, rank_read: int, d: int) -> dict[str, Any]:
    if not rank_write or not rank_read:
        return {"profile": None, "incidence": None}
    rows, columns = rank_grid(rank_write), rank_grid(rank_read)
    diagonal = rank_grid(min(rank_write, rank_read))
    profile = [(r, float(f"{float(surface[r - 1, r - 1]) * d / (r * r):.6g}")) for r in diagonal]
    return {
        "profile": profile,
        "incidence": Incidence(
            ranks_write=rows, ranks_read=columns, surface=at_ranks(surface, rows, columns)
        ),
    }


def _product_fields(
    sigma: Tensor, sides: tuple[Noisy, Noisy], rank_write: int, exponent: int
) -> dict[str, Any]:
    """Spectrum of M = W2 W1, and what of the write space it loses.

    M is 2^exponent times what has the singular values `sigma`.

    The storage noise of M is bounded by δ1‖W2‖ + δ2‖W1‖ + δ1δ2, and its round-off by the norms of
    the factors. A singular value between the two may or may not be zero in truth: the kernel
    intersection is then left open.
    """
    write, read = sides
    top1, top2 = float(write.sigma[0]), float(read.sigma[0])
    rounding = max(write.matrix.shape + read.matrix.shape) * torch.finfo(sigma.dtype).eps
    floor = rounding * top1 * top2
    noise = write.delta * top2 + read.delta * top1 + write.delta * read.delta
    certain, possible = (int((sigma > bound).sum()) for bound in (max(noise, floor), floor))
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
    return {"functional": functional, "kernel_intersection": kernel}


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


def _balanced_records(
    group: PairGroup,
    members: list[Member],
    write: Matrices,
    read: Matrices,
    rule: RankRule,
    seed: int,
    products: Tensor,
) -> list[Balanced | None]:
    """The observables after gauge fixing; for all of GL on one pair only the spectrum of W2 W1."""
    if group.freedom not in GAUGES:
        return [None] * len(members)
    gauge = GAUGES[group.freedom]
    if fixes_completely(group, members):
        return [_spectrum_balanced(gauge, sigma, write.values.shape[1]) for sigma in products]
    fixed = balanced_maps(group, members, write.values, read.values)
    return _measured_balanced(gauge, fixed, (write, read), rule, seed)


def _spectrum_balanced(gauge: str, sigma: Tensor, d: int) -> Balanced:
    """What is left of a pair that balances completely: the spectrum of M = W2 W1."""
    # The balanced maps have singular values √σ(M): their participation ratio is (Σσ)²/Σσ².
    total = float(sigma.square().sum())
    rank = float(sigma.sum()) ** 2 / total if total > 0 else None
    floor = d * torch.finfo(sigma.dtype).eps * float(sigma[0])
    full = len(sigma) == d and float(sigma[-1]) > floor
    return Balanced(
        gauge=gauge, effective_rank=number(rank), status="ok" if full else "rank deficient"
    )


def _rescaled(raw: Matrices, values: Tensor) -> Matrices:
    """Gauge-fixed maps with the noise of the raw ones in proportion to their norms."""
    norms = [torch.linalg.matrix_norm(maps).cpu().double() for maps in (values, raw.values)]
    factor = norms[0] / norms[1]
    return Matrices(values, raw.delta * factor, raw.mean_square * factor.square())


def _measured_balanced(
    gauge: str,
    fixed: BalancedMaps,
    raw: tuple[Matrices, Matrices],
    rule: RankRule,
    seed: int,
) -> list[Balanced | None]:
    spectra = pair_spectra(fixed.write, fixed.read)
    write, read = (_rescaled(*one) for one in zip(raw, (fixed.write, fixed.read), strict=True))
    grams = gram_observables(spectra, _gram_noise(write), _gram_noise(read), seed=seed)
    ranks = [
        _ranks(maps, sigma, rule).effective
        for maps, sigma in ((write, spectra.sigma_write), (read, spectra.sigma_read))
    ]
    surface = incidence_surface_of_overlaps(spectra.cosines)
    records: list[Balanced | None] = []
    for i, status in enumerate(fixed.statuses):
        row, r1, r2 = grams[i], ranks[0][i], ranks[1][i]
        if status != "ok" or not r1 or not r2:
            records.append(Balanced(gauge=gauge, status=status if status != "ok" else row.status))
            continue
        total = min(float(surface[i, r1 - 1, r2 - 1]), min(r1, r2))
        records.append(
            Balanced(
                gauge=gauge,
                commutator_ratio=row.commutator_ratio,
                gram_correlation=row.gram_correlation,
                gram_correlation_z=row.gram_correlation_z,
                commutation_defect=row.commutation_defect,
                imbalance=row.imbalance,
                overlap_ratio=total / (r1 * r2 / spectra.d),
                overlap_z=overlap_significance(total, r1, r2, spectra.d).z,
                status=row.status,
            )
        )
    return records
