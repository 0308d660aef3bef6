"""Records of adjacent pairs: every observable beside what chance gives for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flagscope.arch import Member, PairGroup, Side
from flagscope.diagnose.balanced import GAUGES, BalancedMaps, balanced_maps, fixes_completely
from flagscope.diagnose.fields import facts_of, gram_noise, measured_fields, ranks_of
from flagscope.diagnose.grams import gram_observables
from flagscope.diagnose.matrices import Matrices
from flagscope.diagnose.prepared import PreparedMap
from flagscope.diagnose.products import product_singular_values, single_product_singular_values
from flagscope.diagnose.records import Balanced, MapReference, PairRecord
from flagscope.diagnose.single import single_pair_spectra
from flagscope.diagnose.spectra import Remembered, meeting, pair_spectra
from flagscope.diagnose.values import number
from flagscope.geometry import RankRule
from flagscope.null import overlap_significance


def pair_records(
    group: PairGroup,
    write: Matrices,
    read: Matrices,
    *,
    rule: RankRule | None = None,
    seed: int = 0,
    folded: Sequence[str] = (),
    remembered: Remembered | None = None,
) -> list[PairRecord]:
    """Diagnose all pairs of a group, batched.

    Parameters
    ----------
    group
        Names, freedom and members of the pairs.
    write, read
        The n write maps (n, d, m1) and read maps (n, m2, d), in the order of the members. Maps in
        float32 are measured in single precision, with double where it matters.
    rule
        How to choose the dimensions of the dominant spaces; the participation ratio by default.
    seed
        Of the Haar draws that stand in where no closed form holds.
    folded
        Names of norms that were folded into the maps, for the record.
    remembered
        The same for groups with read maps in common.

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
        measured = _measure(
            group, members, write.take(good), read.take(good), rule, seed, remembered
        )
        for i, fields in zip(good, measured, strict=True):
            records[i] = PairRecord(**identities[i], **fields)
    return records


def residual_record(
    group: PairGroup,
    write: PreparedMap,
    read: PreparedMap,
    *,
    rule: RankRule | None = None,
    seed: int = 0,
    folded: Sequence[str] = (),
) -> PairRecord:
    """Diagnose one pair across the residual stream, of maps that meet many others there.

    As `pair_records` for one pair without a freedom of its own, but that for maps prepared in
    single precision the singular values of W2 W1 are left out, an eigenproblem for each of many
    pairs: of them the participation ratio is told, and the rank and the kernel intersection where
    they follow from those of the maps.

    Parameters
    ----------
    group
        Names of the pair; it has one member.
    write, read
        The two maps, prepared in the same precision.
    rule, seed, folded
        As for `pair_records`.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    identity = _identity(group, group.members[0], write.facts.shape[0], folded)
    fault = _fault("write", group.write, write.fault) or _fault("read", group.read, read.fault)
    if fault or write.system is None or read.system is None:
        return _blank(identity, fault)
    spectra = meeting(write.system, read.system)
    products = None
    size = max(*write.facts.shape, *read.facts.shape)
    if spectra.cosines.dtype == torch.float64:
        products = product_singular_values(
            spectra,
            lambda: (write.facts.matrix(0)[None], read.facts.matrix(0).mT[None]),
            size=size,
        )
    rule = rule or RankRule.parse("participation")
    (fields,) = measured_fields(
        spectra, write.facts, read.facts, products=products,
        resolution=[size * torch.finfo(torch.float64).eps], balanced=[None], rule=rule, seed=seed,
        sigma=(write.system.values.sqrt(), read.system.values.sqrt()),
    )  # fmt: skip
    return PairRecord(**identity, **fields)


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


def _measure(
    group: PairGroup,
    members: list[Member],
    write: Matrices,
    read: Matrices,
    rule: RankRule,
    seed: int,
    remembered: Remembered | None,
) -> list[dict[str, Any]]:
    # From here on the maps are known up to powers of two; what depends on scale is told of it.
    write, write_exponents = write.normalised()
    read, read_exponents = read.normalised()
    facts = (
        facts_of(write, write_exponents, read=False),
        facts_of(read, read_exponents, read=True),
    )
    spectra, sigma = _spectra(write.values, read.values, remembered=remembered)
    size = max(*facts[0].shape, *facts[1].shape)
    maps = write.values, read.values
    if spectra.cosines.dtype == torch.float32:
        products, resolution = single_product_singular_values(spectra, lambda: maps, size=size)
    else:
        products = product_singular_values(spectra, lambda: maps, size=size)
        resolution = [size * torch.finfo(products.dtype).eps] * len(products)
    return measured_fields(
        spectra, *facts, products=products, resolution=resolution,
        balanced=_balanced_records(
            group, members, write, read, rule, seed, products, spectra.composite
        ),
        rule=rule, seed=seed, sigma=sigma,
    )  # fmt: skip


def _spectra(
    w1: Tensor,
    w2: Tensor,
    *,
    composite: Tensor | None = None,
    remembered: Remembered | None = None,
) -> tuple[PairSpectra, tuple[Tensor, Tensor]]:
    """The spectra of pairs, and the singular values of both maps as well as they are known."""
    if w1.dtype == torch.float32:
        return single_pair_spectra(w1, w2, composite=composite, remembered=remembered)
    spectra = pair_spectra(w1, w2, composite=composite, remembered=remembered)
    return spectra, (spectra.sigma_write, spectra.sigma_read)


def _balanced_records(
    group: PairGroup,
    members: list[Member],
    write: Matrices,
    read: Matrices,
    rule: RankRule,
    seed: int,
    products: Tensor,
    composite: Tensor | None,
) -> list[Balanced | None]:
    """The observables after gauge fixing; for all of GL on one pair only the spectrum of W2 W1."""
    if group.freedom not in GAUGES:
        return [None] * len(members)
    gauge = GAUGES[group.freedom]
    if fixes_completely(group, members):
        return [_spectrum_balanced(gauge, sigma, write.values.shape[1]) for sigma in products]
    fixed = balanced_maps(group, members, write.values, read.values)
    return _measured_balanced(gauge, fixed, (write, read), rule, seed, composite)


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
    composite: Tensor | None,
) -> list[Balanced | None]:
    # No gauge changes W2 W1.
    spectra, sigma = _spectra(fixed.write, fixed.read, composite=composite)
    write, read = (
        facts_of(_rescaled(maps, values), torch.zeros(len(values), dtype=torch.int64), read=side)
        for maps, values, side in zip(raw, (fixed.write, fixed.read), (False, True), strict=True)
    )
    noises = gram_noise(write, spectra), gram_noise(read, spectra)
    grams = gram_observables(spectra, *noises, seed=seed)
    ranks = [
        ranks_of(facts, known, rule).effective
        for facts, known in zip((write, read), sigma, strict=True)
    ]
    records: list[Balanced | None] = []
    for i, status in enumerate(fixed.statuses):
        row, r1, r2 = grams[i], ranks[0][i], ranks[1][i]
        if status != "ok" or not r1 or not r2:
            records.append(Balanced(gauge=gauge, status=status if status != "ok" else row.status))
            continue
        total = min(float(spectra.squares[i, :r1, :r2].sum()), min(r1, r2))
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
