"""Leading singular vectors of a large map in a bounded number of products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Width of the random block, and how often it is multiplied by W Wᵀ.
_BLOCK, _DEPTH = 24, 4
# A direction counts as found if its residual turns it by less than this, to first order.
_TURN = 1e-2


@dataclass(frozen=True)
class RitzSpace:
    """Leading singular values of one map, as many as few products determine.

    Attributes
    ----------
    sigma
        Descending, shape (k,), float64; each is a lower bound of the true one.
    left, right
        Shapes (p, k') and (m, k'), orthonormal, float64, k' ≤ k.
    turns
        Bound to first order on the sine between the space of the first i + 1 and the true one: the
        residuals over the gap behind them. Shape (k',).
    found
        How many of them are known to a turn of 0.01.
    following
        Largest singular value behind the `found` ones, as far as it is known.
    """

    sigma: Float[Tensor, " k"]
    left: Float[Tensor, "p f"]
    right: Float[Tensor, "m f"]
    turns: Float[Tensor, " f"]
    found: int
    following: float


def ritz_space(
    w: Float[Tensor, "p m"],
    *,
    generator: torch.Generator,
    block: int = _BLOCK,
    depth: int = _DEPTH,
) -> RitzSpace:
    """Leading singular values and vectors of W in the block Krylov space of (W Wᵀ)^j W Ω.

    Parameters
    ----------
    w
        One map.
    generator
        Of the random block Ω.
    block, depth
        Width of Ω, and number of products with W Wᵀ after the first.

    Returns
    -------
    RitzSpace
        block·(depth + 1) values at most. Where nothing stands out, as in a matrix of independent
        entries, `found` is 0.

    References
    ----------
    C. Musco and C. Musco, "Randomized block Krylov methods for stronger and faster approximate
    singular value decomposition", NeurIPS 2015, algorithm 2.

    Examples
    --------
    >>> w = torch.diag(torch.tensor([9.0, 5.0] + [1.0] * 198))
    >>> space = ritz_space(w, generator=torch.Generator().manual_seed(0))
    >>> space.found, [round(value, 3) for value in space.sigma[:2].tolist()]
    (2, [9.0, 5.0])
    """
    p, m = w.shape
    # Of a small map a narrow block, so that there is room for its images.
    width = max(1, min(block, min(p, m) // (depth + 2)))
    drawn = torch.randn(m, width, generator=generator, dtype=torch.float64).to(w)
    new = torch.linalg.qr(w @ drawn)[0]
    basis, images = new, w.mT @ new
    for _ in range(depth):
        if basis.shape[1] + width > min(p, m):
            break
        new = w @ images[:, -width:]
        # Twice is enough for what the basis lacks; where it lacks nothing, once more.
        for _ in range(3):
            new = torch.linalg.qr(new - basis @ (basis.mT @ new))[0]
        basis = torch.cat([basis, new], dim=1)
        images = torch.cat([images, w.mT @ new], dim=1)
    inner = images.mT.double() @ images.double()
    values, turned = torch.linalg.eigh((inner + inner.mT) / 2)
    values, turned = values.flip(-1).clamp_min(0), turned.flip(-1)
    sigma = values.sqrt()
    left = basis @ turned.to(basis)
    right = images @ turned.to(images)
    right = right / sigma.clamp_min(float(sigma[0]) * 1e-6 or 1.0).to(right)
    turns = _turns(w, sigma, left, right, whole=basis.shape[1] == min(p, m))
    resolved = (turns <= _TURN).nonzero().flatten()
    found = int(resolved[-1]) + 1 if len(resolved) else 0
    following = float(sigma[found]) if found < len(sigma) else 0.0
    kept = len(turns)
    return RitzSpace(
        sigma, orthonormalised(left[:, :kept]), orthonormalised(right[:, :kept]), turns, found,
        following,
    )  # fmt: skip


def orthonormalised(x: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """Nearly orthonormal columns made so to double precision, each where it was.

    Examples
    --------
    >>> orthonormalised(torch.tensor([[-0.9999999], [0.0]])).tolist()
    [[-1.0], [0.0]]
    """
    q, r = torch.linalg.qr(x.double())
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


def _turns(
    w: Tensor, sigma: Tensor, left: Tensor, right: Tensor, *, whole: bool
) -> Float[Tensor, " f"]:
    """Residuals of the leading triplets, W v - σ u, over the gaps behind them."""
    most = len(sigma) if whole else len(sigma) // 2
    if not most or float(sigma[0]) == 0:
        return sigma.new_ones(0)
    residual = w @ right[:, :most] - left[:, :most] * sigma[:most].to(left)
    lost = torch.linalg.vector_norm(residual.double(), dim=0).square().cumsum(0).sqrt()
    behind = torch.cat([sigma[1 : most + 1], sigma.new_zeros(max(0, most + 1 - len(sigma)))])
    gaps = (sigma[:most] - behind).clamp_min(torch.finfo(w.dtype).eps * float(sigma[0]))
    return (lost / gaps).clamp_max(1.0)
