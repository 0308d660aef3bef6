"""Records of adjacent pairs: every observable next to what chance gives for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from flagscope.arch import Member, PairGroup
from flagscope.diagnose.balanced import missing_parts
from flagscope.diagnose.balanced_records import balanced_records
from flagscope.diagnose.pair_measurement import PairMeasurement, measured_pairs
from flagscope.diagnose.pair_record import PairIdentity, pair_fault, pair_record
from flagscope.geometry import (
    NOT_FINITE,
    Matrices,
    PreparedMap,
    RankRule,
    Remembered,
    noisy_maps,
    prepared_view,
    product_singular_values,
    profile_views,
    single_product_singular_values,
    spectra_from_eigensystems,
    spectra_in_precision,
)
from flagscope.records import PairRecord


def pair_records(
    group: PairGroup,
    write: Matrices,
    read: Matrices,
    *,
    rule: RankRule | None = None,
    seed: int = 0,
    folded: Sequence[str] = (),
    remembered: Remembered | None = None,
    plain: tuple[Matrices, Matrices] | None = None,
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
        How to choose the dimensions of the dominant spaces; the signal rank by default.
    seed
        Of the Haar draws that stand in where no closed form holds.
    folded
        Names of norms that were folded into the maps, for the record.
    remembered
        The same for groups with read maps in common.
    plain
        The maps before a mean was removed from them, where one was.

    Returns
    -------
    list of PairRecord
        One a member. A pair with a map that is zero, or not finite, gets a status and nulls.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026).
    """
    rule = rule or RankRule.parse("signal")
    both = list(zip(write.faults(), read.faults(), strict=True))
    faults = [pair_fault(group, *every) for every in both]
    good = [i for i, fault in enumerate(faults) if fault is None]
    d = write.values.shape[1]
    pairs = [
        PairIdentity(group, member, d, folded, (write.repeats(i), read.repeats(i)))
        for i, member in enumerate(group.members)
    ]
    measurements = [PairMeasurement(fault or "not measured") for fault in faults]
    if good:
        members = [group.members[i] for i in good]
        sides = write.take(good), read.take(good)
        whole = sides if plain is None else (plain[0].take(good), plain[1].take(good))
        missing = missing_parts(group, [NOT_FINITE not in fault for fault in both])
        measured = _measure(
            group, members, *sides, rule, seed, remembered, whole, [missing[i] for i in good]
        )
        for i, measurement in zip(good, measured, strict=True):
            measurements[i] = measurement
    return [pair_record(*both) for both in zip(pairs, measurements, strict=True)]


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
    pairs: of them the participation ratio is given, and the rank and the kernel intersection where
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
    (member,), repeated = group.members, (write.repeated, read.repeated)
    pair = PairIdentity(group, member, write.maps.shape[0], folded, repeated)
    fault = pair_fault(group, write.fault, read.fault)
    if fault or write.system is None or read.system is None:
        return pair_record(pair, PairMeasurement(fault or "not measured"))
    spectra = spectra_from_eigensystems(write.system, read.system)
    products = None
    size = max(*write.maps.shape, *read.maps.shape)
    if spectra.cosines.dtype == torch.float64:
        products = product_singular_values(
            spectra,
            lambda: (write.maps.matrix(0)[None], read.maps.matrix(0).mT[None]),
            size=size,
        )
    rule = rule or RankRule.parse("signal")
    (measurement,) = measured_pairs(
        spectra, write.maps, read.maps, products=products,
        resolution=[size * torch.finfo(torch.float64).eps], balanced=[None], rule=rule, seed=seed,
        sigma=(write.system.values.sqrt(), read.system.values.sqrt()),
        views=lambda some: [prepared_view(write, read) for _ in some],
    )  # fmt: skip
    return pair_record(pair, measurement)


def _measure(
    group: PairGroup,
    members: list[Member],
    write: Matrices,
    read: Matrices,
    rule: RankRule,
    seed: int,
    remembered: Remembered | None,
    plain: tuple[Matrices, Matrices],
    missing: list[str | None],
) -> list[PairMeasurement]:
    # From here on each map is in a unit of its own, which what depends on scale has to heed.
    whole = plain[0].normalised().values, plain[1].normalised().values
    write, read = write.normalised(), read.normalised()
    signal = rule.kind == "signal"
    sides = (
        noisy_maps(write, read=False, signal=signal, plain=whole[0]),
        noisy_maps(read, read=True, signal=signal, plain=whole[1]),
    )
    spectra, sigma = spectra_in_precision(write.values, read.values, remembered=remembered)
    size = max(*sides[0].shape, *sides[1].shape)
    maps = write.values, read.values
    if spectra.cosines.dtype == torch.float32:
        products, resolution = single_product_singular_values(spectra, lambda: maps, size=size)
    else:
        products = product_singular_values(spectra, lambda: maps, size=size)
        resolution = [size * torch.finfo(products.dtype).eps] * len(products)
    return measured_pairs(
        spectra, *sides, products=products, resolution=resolution,
        balanced=balanced_records(
            group, members, write, read, rule, seed, products, spectra.composite, missing
        ),
        rule=rule, seed=seed, sigma=sigma,
        views=lambda some: profile_views(
            whole[0], whole[1], spectra, some,
            measure=lambda w1, w2: spectra_in_precision(w1, w2)[0],
        ),
    )  # fmt: skip
