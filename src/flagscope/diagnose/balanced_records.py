"""Records of pairs after gauge fixing, with the null of a balanced correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from flagscope.arch import Member, PairGroup
from flagscope.diagnose.balanced import GAUGES, BalancedMaps, balanced_maps, fixes_completely
from flagscope.diagnose.grams import gram_observables
from flagscope.diagnose.values import number
from flagscope.geometry import (
    Matrices,
    RankRule,
    centred_spectrum,
    gram_error,
    gram_weights,
    line_norms,
    map_ranks,
    noisy_maps,
    power_of_two,
    spectra_in_precision,
)
from flagscope.null import balanced_correlation_z
from flagscope.records import Balanced


def balanced_records(
    group: PairGroup,
    members: list[Member],
    write: Matrices,
    read: Matrices,
    rule: RankRule,
    seed: int,
    products: Tensor,
    composite: Tensor | None,
    missing: list[str | None],
) -> list[Balanced | None]:
    """The observables after gauge fixing; for all of GL on one pair only the spectrum of W2 W1.

    `missing` says of each member why the sum that it is part of is not known, or None where it is.
    """
    if group.freedom not in GAUGES:
        return [None] * len(members)
    gauge = GAUGES[group.freedom]
    # By all members of the group: one that is left out here still shares its maps.
    if fixes_completely(group, group.members):
        return [_spectrum_balanced(gauge, sigma, write.values.shape[1]) for sigma in products]
    fixed = balanced_maps(group, members, write, read)
    statuses = [lost or status for lost, status in zip(missing, fixed.statuses, strict=True)]
    moved = (write.exponents + read.exponents) - (fixed.write.exponents + fixed.read.exponents)
    if composite is not None and bool(moved.any()):
        composite = power_of_two(composite, moved.to(composite.device)[:, None, None])
    return _measured_balanced(group, fixed, statuses, rule, seed, composite)


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


def _measured_balanced(
    group: PairGroup,
    fixed: BalancedMaps,
    statuses: list[str],
    rule: RankRule,
    seed: int,
    composite: Tensor | None,
) -> list[Balanced | None]:
    # No gauge changes W2 W1.
    maps = fixed.write.values, fixed.read.values
    spectra, sigma = spectra_in_precision(*maps, composite=composite)
    write, read = (
        noisy_maps(side, read=side is fixed.read, signal=rule.kind == "signal")
        for side in (fixed.write, fixed.read)
    )
    roundoff = torch.finfo(spectra.alpha.dtype).eps
    noises = gram_error(write, roundoff=roundoff), gram_error(read, roundoff=roundoff)
    # No p-value is given of balanced numbers, so that nothing needs to be drawn.
    weights = gram_weights(spectra.alpha, write.exponents, read.exponents)
    grams = gram_observables(spectra, *noises, seed=seed, weights=weights, tested=False)
    ranks = [
        map_ranks(side, known, rule).effective
        for side, known in zip((write, read), sigma, strict=True)
    ]
    norms = [
        centred_spectrum(values, spectra.d).square.sqrt()
        for values in (spectra.alpha, spectra.beta)
    ]
    rows = line_norms(maps[0], dim=-1), line_norms(maps[1], dim=-2)
    gauge, scales_alone = GAUGES[group.freedom], _scales_alone(group, spectra.d)
    records: list[Balanced | None] = []
    for i, status in enumerate(statuses):
        row, r1, r2 = grams[i], ranks[0][i], ranks[1][i]
        if status != "ok":
            records.append(Balanced(gauge=gauge, status=status))
            continue
        total = min(float(spectra.squares[i, :r1, :r2].sum()), min(r1, r2))
        z = None
        if row.gram_correlation is not None and scales_alone:
            z = balanced_correlation_z(
                row.gram_correlation,
                *(of[i].double().square() for of in rows),
                norms=(float(norms[0][i]), float(norms[1][i])),
            )
        records.append(
            Balanced(
                gauge=gauge, commutator_ratio=row.commutator_ratio,
                gram_correlation=row.gram_correlation, gram_correlation_z=z,
                commutation_defect=row.commutation_defect, imbalance=row.imbalance,
                overlap_ratio=total / (r1 * r2 / spectra.d) if r1 and r2 else None,
                status=row.status,
            )
        )  # fmt: skip
    return records


def _scales_alone(group: PairGroup, d: int) -> bool:
    """Whether the gauge moves scales of coordinates and nothing else."""
    if group.freedom == "rotary" and group.rotary is not None:
        return 2 * len(group.rotary.planes()) == d
    return group.freedom == "scaling"
