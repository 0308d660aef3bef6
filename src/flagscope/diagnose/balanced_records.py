"""Records of pairs after gauge fixing, and what chance gives for a balanced correlation.

Gauge fixing makes diagonals of A and B agree, and that alone correlates them. So a balanced number
has a null of its own: A and B as they are on the coordinates that the gauge has made agree, and in
random position elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Member, PairGroup
from flagscope.diagnose.balanced import GAUGES, BalancedMaps, balanced_maps, fixes_completely
from flagscope.diagnose.facts import facts_of, gram_noise, ranks_of
from flagscope.diagnose.grams import gram_observables
from flagscope.diagnose.matrices import Matrices
from flagscope.diagnose.observables import centred_spectrum
from flagscope.diagnose.records import Balanced
from flagscope.diagnose.single import spectra_in_precision
from flagscope.diagnose.values import number
from flagscope.geometry import RankRule


def balanced_records(
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
    return _measured_balanced(group, fixed, (write, read), rule, seed, composite)


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
    group: PairGroup,
    fixed: BalancedMaps,
    raw: tuple[Matrices, Matrices],
    rule: RankRule,
    seed: int,
    composite: Tensor | None,
) -> list[Balanced | None]:
    # No gauge changes W2 W1.
    spectra, sigma = spectra_in_precision(fixed.write, fixed.read, composite=composite)
    write, read = (
        facts_of(
            _rescaled(maps, values), torch.zeros(len(values), dtype=torch.int64),
            read=side, rule=rule,
        )
        for maps, values, side in zip(raw, (fixed.write, fixed.read), (False, True), strict=True)
    )  # fmt: skip
    noises = gram_noise(write, spectra), gram_noise(read, spectra)
    grams = gram_observables(spectra, *noises, seed=seed)
    ranks = [
        ranks_of(facts, known, rule).effective
        for facts, known in zip((write, read), sigma, strict=True)
    ]
    norms = [
        centred_spectrum(values, spectra.d).square.sqrt()
        for values in (spectra.alpha, spectra.beta)
    ]
    rows = (
        torch.linalg.vector_norm(fixed.write, dim=-1),
        torch.linalg.vector_norm(fixed.read, dim=-2),
    )
    gauge = GAUGES[group.freedom]
    records: list[Balanced | None] = []
    for i, status in enumerate(fixed.statuses):
        row, r1, r2 = grams[i], ranks[0][i], ranks[1][i]
        if status != "ok":
            records.append(Balanced(gauge=gauge, status=status))
            continue
        total = min(float(spectra.squares[i, :r1, :r2].sum()), min(r1, r2))
        z = None
        if row.gram_correlation is not None:
            z = balanced_correlation_z(
                row.gram_correlation,
                rows[0][i].double().square(),
                rows[1][i].double().square(),
                norms=(float(norms[0][i]), float(norms[1][i])),
                planes=_planes(group, spectra.d),
            )
        records.append(
            Balanced(
                gauge=gauge,
                commutator_ratio=row.commutator_ratio,
                gram_correlation=row.gram_correlation,
                gram_correlation_z=z,
                commutation_defect=row.commutation_defect,
                imbalance=row.imbalance,
                overlap_ratio=total / (r1 * r2 / spectra.d) if r1 and r2 else None,
                status=row.status,
            )
        )
    return records


def _planes(group: PairGroup, d: int) -> list[list[int]] | None:
    """Coordinates whose mean scale the gauge has made agree; None where it fixes more than that."""
    if group.freedom == "scaling":
        return [[i] for i in range(d)]
    if group.freedom == "rotary" and group.rotary is not None:
        planes = [list(plane) for plane in group.rotary.planes()]
        return planes if 2 * len(planes) == d else None
    return None


def balanced_correlation_z(
    correlation: float,
    write: Float[Tensor, " d"],
    read: Float[Tensor, " d"],
    *,
    norms: tuple[float, float],
    planes: Sequence[Sequence[int]] | None,
) -> float | None:
    """Distance of a balanced ρ from its null, in standard deviations.

    The trace-free parts are split in what is constant on each plane of the gauge and the rest. The
    first is taken as it is and gives the mean ⟨ã, b̃⟩/(‖Ã‖‖B̃‖); the rest, of dimension
    n = (d-1)(d+2)/2 - (planes - 1), is in random position and gives the variance
    (1 - f_A)(1 - f_B)/n, where f is the share of ‖Ã‖² in the first part.

    Parameters
    ----------
    correlation
        ρ of the balanced pair.
    write, read
        A_ii and B_ii.
    norms
        ‖Ã‖ and ‖B̃‖.
    planes
        Coordinates with a common scale: single ones for neurons, two for a rotary plane.

    Returns
    -------
    float or None
        None where the gauge fixes more than scales, so that this null does not hold.

    References
    ----------
    Own derivation, by the second moment of the orthogonal group on each part (B. Collins and
    P. Śniady, Comm. Math. Phys. 264 (2006) 773-795).

    Examples
    --------
    >>> flat = torch.ones(4, dtype=torch.float64)
    >>> neurons = [[i] for i in range(4)]
    >>> z = balanced_correlation_z(0.5, flat, flat, norms=(1.0, 1.0), planes=neurons)
    >>> round(z, 4)  # 0.5·√6: six free entries above the diagonal
    1.2247
    """
    if planes is None or min(norms) <= 0:
        return None
    d = len(write)
    means = [
        torch.stack([side[list(plane)].mean() for plane in planes]) - side.mean()
        for side in (write, read)
    ]
    sizes = torch.tensor([len(plane) for plane in planes], dtype=torch.float64, device=write.device)
    shares = [
        min(1.0, float((sizes * mean.square()).sum()) / norm**2)
        for mean, norm in zip(means, norms, strict=True)
    ]
    mean = float((sizes * means[0] * means[1]).sum()) / (norms[0] * norms[1])
    free = (d - 1) * (d + 2) / 2 - (len(planes) - 1)
    variance = (1 - shares[0]) * (1 - shares[1]) / free if free > 0 else 0.0
    return number((correlation - mean) / variance**0.5) if variance > 0 else None
