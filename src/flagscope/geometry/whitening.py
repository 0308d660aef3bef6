"""Small factors that make the rows of maps orthonormal: bases at the speed of matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flagscope.geometry.matrices import Matrices

# Up to this √(tr W Wᵀ)·‖L⁻¹‖_F, a bound on the condition, L⁻¹W is orthonormal to 2e-7: its error is
# a small multiple of ε κ² (Golub and Van Loan, Matrix Computations, section 5.2).
_CONDITION = 3e4
# How far the smallest singular value must lie above the noise to need no closer look.
_CLEAR = 2.0


@dataclass(frozen=True)
class Whitening:
    """Factors C of H maps W, such that C W has orthonormal rows that span the rows of W.

    Attributes
    ----------
    factors
        Shape (H, r, r), float64; rows beyond a map's rank are zero.
    ranks
        Numerical rank of each map, as in `head_spaces`; 0 where it is zero, not finite or noise.
    sharp
        Where the rows of C W, in float64, are orthonormal to 2e-7. Elsewhere they are to ε times
        the map's condition.
    statuses
        "ok", or why the rank is 0.
    """

    factors: Float[Tensor, "H r r"]
    ranks: Int[Tensor, " H"]
    sharp: Bool[Tensor, " H"]
    statuses: tuple[str, ...]

    def rows(
        self, maps: Float[Tensor, "H r d"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "H r s"]:
        """Coordinates start to stop of the orthonormal rows."""
        # What is not finite has the factor 0, and must not meet it.
        sound = (self.ranks > 0)[:, None, None]
        values = maps[..., start:stop].to(self.factors.dtype)
        return self.factors @ (values if bool(sound.all()) else values.where(sound, 0))


def whitening(maps: Matrices) -> Whitening:
    """The factors of H maps of shape (r, d), for the spans of their rows.

    By Cholesky of W Wᵀ where that is certain to keep the rank and is accurate; by QR and an SVD of
    the triangle for the few maps where it is not.

    References
    ----------
    Y. Yamamoto, Y. Nakatsukasa, Y. Yanagisawa, T. Fukaya, "Roundoff error analysis of the
    CholeskyQR2 algorithm", Electron. Trans. Numer. Anal. 44 (2015) 306-326.

    Examples
    --------
    >>> w = torch.tensor([[[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]]], dtype=torch.float64)
    >>> found = whitening(Matrices(w, torch.zeros(1), torch.zeros(1)))
    >>> found.rows(w), found.ranks
    (tensor([[[0.6000, 0.0000, 0.8000],
             [0.0000, 1.0000, 0.0000]]], dtype=torch.float64), tensor([2]))
    """
    faults = maps.faults()
    sound = torch.tensor([fault is None for fault in faults])
    values, delta = maps.values.double(), maps.delta.where(sound, 0)
    if any(faults):
        values = values.where(sound.to(values.device)[:, None, None], 0)
    scaled = Matrices(values, delta, maps.mean_square).normalised()
    values, noise = scaled.values, scaled.delta.to(values)
    factors, sharp = cholesky_whitening(values, noise, condition=_CONDITION)
    ranks = torch.full((len(values),), values.shape[1], device=values.device)
    for h in torch.nonzero(~sharp).flatten().tolist():
        factors[h], ranks[h] = _by_svd(values[h], float(noise[h]))
    scale = torch.ldexp(torch.ones(len(values), dtype=torch.float64), -scaled.exponents)
    factors *= scale.to(factors)[:, None, None]
    statuses = tuple(
        fault or ("below its storage noise" if rank == 0 else "ok")
        for fault, rank in zip(faults, ranks.tolist(), strict=True)
    )
    return Whitening(factors, ranks, sharp, statuses)


def orthonormal_rows(maps: Matrices, found: Whitening) -> Float[Tensor, "H r d"]:
    """Orthonormal rows of all maps in float32, re-orthonormalised for ill-conditioned maps."""
    rows = found.rows(maps.values)
    for h in torch.nonzero(~found.sharp & (found.ranks > 0)).flatten().tolist():
        rank = int(found.ranks[h])
        rows[h, :rank] = torch.linalg.qr(rows[h, :rank].mT).Q.mT
    return rows.float()


def cholesky_whitening(
    values: Float[Tensor, "H r d"], noise: Float[Tensor, " H"], *, condition: float
) -> tuple[Float[Tensor, "H r r"], Bool[Tensor, " H"]]:
    """Factors L⁻¹ with W Wᵀ = L Lᵀ, and where they can be trusted at full rank.

    They can where the smallest singular value stands clear of the noise, and a bound on the
    condition is below the one given.
    """
    r, d = values.shape[1:]
    gram = values @ values.mT
    triangle, info = torch.linalg.cholesky_ex(gram)
    one = torch.eye(r, dtype=gram.dtype, device=gram.device)
    triangle = triangle.where((info == 0)[:, None, None], one)
    factors = torch.linalg.solve_triangular(triangle, one.expand_as(gram), upper=False)
    # σ_1 ≤ √(tr W Wᵀ) and σ_r ≥ 1/‖L⁻¹‖_F.
    largest = gram.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
    smallest = torch.linalg.matrix_norm(factors).reciprocal()
    floor = torch.maximum(noise, max(r, d) * torch.finfo(gram.dtype).eps * largest)
    sharp = (info == 0) & (smallest > _CLEAR * floor) & (largest < condition * smallest)
    return factors, sharp


def _by_svd(map_: Float[Tensor, "r d"], noise: float) -> tuple[Tensor, int]:
    """S⁻¹Vᵀ of the triangle R = U S Vᵀ with Wᵀ = QR, at the numerical rank."""
    r, d = map_.shape
    factor = map_.new_zeros(r, r)
    triangle = torch.linalg.qr(map_.mT, mode="r").R
    _, sigma, vt = torch.linalg.svd(triangle, full_matrices=False)
    floor = max(noise, max(r, d) * torch.finfo(map_.dtype).eps * float(sigma[0]))
    rank = int((sigma > floor).sum())
    factor[:rank] = vt[:rank] / sigma[:rank, None]
    return factor, rank
