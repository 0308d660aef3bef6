"""The three levels of alignment of an adjacent pair: rank, subspace, basis, each as a grade."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from flagscope.errors import InputError
from flagscope.geometry import (
    PairSpectra,
    RankRule,
    centred_spectrum,
    commutation_defect,
    pair_spectra,
    singular_blocks,
    trace_free,
)
from flagscope.records import Record

# The relative accuracy to which singular values count as known where the caller names none: values
# within some 2 % of each other (of the largest, for small ones more) are one block.
RESOLUTION = 0.003
# How much a grade may fall short of 1 and its level still count as reached.
TOLERANCE = 0.1


class LevelsRecord(Record):
    """How far a pair has come on each level; every grade is in [0, 1], and 1 is full alignment."""

    rank_write: int | None = Field(description="r1, of the dominant write space V.")
    rank_read: int | None = Field(description="r2, of the dominant read space U.")
    rank_product: int | None = Field(description="Rank of the map that W2 W1 makes of V and U.")
    rank: float | None = Field(description="Level 1: min(r1, r2, rank_product) / max(r1, r2).")
    subspace: float | None = Field(description="Level 2: Σcos² / max(r1, r2); 1 iff V = U.")
    subspace_chance: float | None = Field(description="Its Haar mean, min(r1, r2) / d.")
    commutation: float | None = Field(description="1 - min(1, ν): 1 iff A and B commute.")
    commutation_within: float | None = Field(
        description="The same of the Grams cut down to V, centred there, and to U: the lesser."
    )
    blocks: float | None = Field(
        description="Σ_b ‖V_bᵀ U_b‖² / max(r1, r2) over matched singular blocks b."
    )
    blocks_chance: float | None = Field(
        description="Mean of `blocks` over bases turned at random within V = U."
    )
    basis: float | None = Field(description="Level 3: the lesser of `commutation` and `blocks`.")
    reached: int | None = Field(
        ge=0,
        le=3,
        description="The highest level up to which all grades are at least 1 - tolerance.",
    )
    tolerance: float
    status: str = Field(description="'ok', or why numbers are missing.")


def alignment_levels(
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
    *,
    rule: RankRule | None = None,
    noise_write: float = 0.0,
    noise_read: float = 0.0,
    resolution: float = RESOLUTION,
    tolerance: float = TOLERANCE,
) -> list[LevelsRecord]:
    """Grades of the three levels of alignment of a batch of pairs.

    Level 1, *rank*: the dominant ranks agree and W2 W1 loses none of them, which generic maps of
    equal rank pass. Level 2, *subspace*: the dominant write and read spaces coincide. Level 3,
    *basis*: the Grams commute and matched blocks of singular directions agree.

    Parameters
    ----------
    w1
        Write maps, shape (n, d, m1).
    w2
        Read maps, shape (n, m2, d).
    rule
        How to choose the dominant ranks; the participation ratio by default.
    noise_write, noise_read
        Estimates of the spectral norms of the errors of W1 and W2.
    resolution
        Relative error to which singular values, as multiples of the largest, count as known.
        Blocks are those of `singular_blocks` at that error; a cut counts where both maps have it.
    tolerance
        What a grade may lack of 1 for its level to count as reached.

    Returns
    -------
    list of LevelsRecord
        One a pair. A map that is zero or not finite gives nulls and a status.

    Raises
    ------
    InputError
        If the shapes do not match, or a setting is out of range.

    Notes
    -----
    `commutation_within` distinguishes bases where spaces coincide, which `commutation` hardly does;
    it weighs directions by the gaps between their singular values and needs no blocks.

    Computed in float64 through Gram matrices, so that grades are good to about u·κ² of the dominant
    spaces. `blocks` ≤ `subspace`, so level 3 fails where level 2 does. Where one of the spectra is
    flat within the resolution there is a single block, and level 3 asks no more than level 2 and
    commutation: `blocks_chance` is then 1. All grades are invariant under orthogonal changes of the
    shared basis and under scalings of either map, and are otherwise gauge.

    References
    ----------
    .. [1] Xiao, Sui, Ruan, arXiv 2605.09861 (2026), for the levels.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import alignment_levels
    >>> from flagscope.geometry import RankRule
    >>> w1 = torch.diag(torch.tensor([3.0, 2.0, 0.0]))
    >>> turned = torch.tensor([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    >>> rule = RankRule.parse("numerical")
    >>> [alignment_levels(w1[None], w2[None], rule=rule)[0].reached for w2 in (w1, w1 @ turned)]
    [3, 2]
    """
    _check(noise_write, noise_read, resolution, tolerance)
    rule = rule or RankRule.parse("participation")
    w1, w2 = w1.detach().to(torch.float64), w2.detach().to(torch.float64)
    sizes = [w.abs().amax((-2, -1)) for w in (w1, w2)]
    good = torch.ones_like(sizes[0], dtype=torch.bool)
    for size in sizes:
        good &= torch.isfinite(size) & (size > 0)
    # Grades do not depend on scale, and eighth powers of singular values must stay in range.
    scaled = [
        torch.where(good[:, None, None], w / size[:, None, None], 1.0)
        for w, size in zip((w1, w2), sizes, strict=True)
    ]
    spectra = pair_spectra(*scaled)
    commuting = _commutation(spectra)
    records = []
    for i, ok in enumerate(good.tolist()):
        if not ok:
            records.append(_blank(tolerance, "a map is zero or not finite"))
            continue
        write = _Side(
            spectra.sigma_write[i], (spectra.d, w1.shape[2]), noise_write / float(sizes[0][i]), rule
        )
        read = _Side(
            spectra.sigma_read[i], (w2.shape[1], spectra.d), noise_read / float(sizes[1][i]), rule
        )
        commutation = float(commuting[i])
        records.append(
            _graded(spectra.d, spectra.cosines[i], write, read, commutation, resolution, tolerance)
        )
    return records


class _Side:
    """Singular values of one map, its dominant rank and the estimate of its error."""

    def __init__(self, sigma: Tensor, shape: tuple[int, int], noise: float, rule: RankRule) -> None:
        self.sigma, self.noise = sigma, noise
        self.rank = rule.rank(sigma, shape=shape, noise=noise, gram=True)

    def turn(self) -> float:
        """Error bound (a sine) of the dominant space: noise, and the Gram's rounding."""
        first, last = float(self.sigma[0]), float(self.sigma[self.rank - 1])
        return self.noise / last + torch.finfo(self.sigma.dtype).eps * (first / last) ** 2

    def cuts(self, resolution: float) -> set[int]:
        """Where a block of singular directions ends."""
        sd = resolution * float(self.sigma[0])
        sizes = singular_blocks(self.sigma[: self.rank], noise_sd=sd).sizes
        return set(torch.tensor(sizes).cumsum(0).tolist())


def _graded(
    d: int,
    cosines: Float[Tensor, "p q"],
    write: _Side,
    read: _Side,
    commutation: float,
    resolution: float,
    tolerance: float,
) -> LevelsRecord:
    if not (write.rank and read.rank):
        return _blank(tolerance, "a map is below its noise")
    low, high = sorted((write.rank, read.rank))
    block = cosines[: write.rank, : read.rank]
    kept = int((torch.linalg.svdvals(block) > write.turn() + read.turn()).sum())
    # Rounding may carry a sum of squared cosines past the dimension.
    overlap = min(float(block.square().sum()), low)
    cuts = write.cuts(resolution) & read.cuts(resolution)
    edges = sorted({0, low} | {cut for cut in cuts if cut < low})
    within = sum(float(block[a:b, a:b].square().sum()) for a, b in pairwise(edges))
    grades = min(low, kept) / high, overlap / high, min(within, overlap) / high
    basis = min(commutation, grades[2])
    reached = 0
    for grade in (grades[0], grades[1], basis):
        if grade < 1 - tolerance:
            break
        reached += 1
    return LevelsRecord(
        rank_write=write.rank,
        rank_read=read.rank,
        rank_product=kept,
        rank=grades[0],
        subspace=grades[1],
        subspace_chance=low / d,
        commutation=commutation,
        commutation_within=_commutation_within(write, read, cosines),
        blocks=grades[2],
        blocks_chance=sum((b - a) ** 2 for a, b in pairwise(edges)) / (low * high),
        basis=basis,
        reached=reached,
        tolerance=tolerance,
        status="ok",
    )


def _commutation(spectra: PairSpectra) -> Float[Tensor, " n"]:
    """1 - min(1, ν), and 1 where Ã or B̃ is nothing but rounding: multiples of I commute."""
    defect = commutation_defect(spectra)
    rounding = 8 * spectra.d * torch.finfo(defect.dtype).eps
    flat = torch.zeros_like(defect, dtype=torch.bool)
    for eigenvalues in (spectra.alpha, spectra.beta):
        centred = centred_spectrum(eigenvalues, spectra.d).square
        flat |= centred <= (rounding * eigenvalues[:, 0]) ** 2
    return torch.where(flat | torch.isnan(defect), 0, defect).clamp(0, 1).neg().add(1)


def _commutation_within(write: _Side, read: _Side, cosines: Float[Tensor, "p q"]) -> float:
    """1 - min(1, ν) of the two Grams cut down to V, and to U; the lesser of the two.

    The Grams of coincident spaces of low rank nearly commute whatever their bases, as A and B are
    then little but multiples of one projector. Within the space that common part is centred away.
    """
    found = []
    for one, other, k in ((write, read, cosines), (read, write, cosines.mT)):
        r, kept = one.rank, k[: one.rank]
        # Of largest eigenvalue 1, or less.
        own = (one.sigma[:r] / one.sigma[0]).square()
        gram = (kept * (other.sigma / other.sigma[0]).square()) @ kept.mT
        own, gram = own - own.mean(), trace_free(gram)
        commutator = ((own[:, None] - own[None, :]) * gram).square().sum()
        product = 2 * (own[:, None] * gram).square().sum()
        # What is left of spectra that are flat is the rounding of their centring.
        floor = 2 * (8 * r * torch.finfo(own.dtype).eps) ** 2
        found.append(min(1.0, float(commutator / product)) if product > floor else 0.0)
    return 1 - max(found)


def _blank(tolerance: float, status: str) -> LevelsRecord:
    return LevelsRecord(
        rank_write=None, rank_read=None, rank_product=None, rank=None, subspace=None,
        subspace_chance=None, commutation=None, commutation_within=None, blocks=None,
        blocks_chance=None, basis=None, reached=None, tolerance=tolerance, status=status,
    )  # fmt: skip


def _check(noise_write: float, noise_read: float, resolution: float, tolerance: float) -> None:
    for name, value in (("noise_write", noise_write), ("noise_read", noise_read)):
        if not value >= 0:
            raise InputError(f"{name} is {value}; expected 0 or more", hint="it estimates a norm")
    for name, value in (("resolution", resolution), ("tolerance", tolerance)):
        if not 0 <= value < 1:
            raise InputError(f"{name} is {value}; expected 0 or more and below 1")
