"""Intersections of the write space with the read space and the kernel of W2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import numerical_rank, principal_cosines
from flagscope.lab.rank_rule import lab_rule
from flagscope.null import count_beyond_chance

#: Gains below this share of the largest singular value of W2 count as none.
NEAR_KERNEL = 0.1


@dataclass(frozen=True)
class Intersections:
    """Position of the dominant write space V relative to the read space and kernel of W2.

    Attributes
    ----------
    read_exact
        dim(col W1 ∩ row W2) by numerical ranks, for generic maps.
    kernel_exact
        dim(col W1 ∩ ker W2) = rank W1 - rank(W2 W1), by numerical ranks.
    read_count
        Share of the principal cosines of V with the dominant read space U that are beyond chance,
        out of min(r1, r2).
    kernel_count
        1 - rank(W2 V)/r1, where singular values of W2 V below 0.1 of W2's largest count as zero:
        the kernel formula on the dominant space, as a share of it.
    read_soft
        Σ cos² of V and U over its Haar mean r1 r2/d, minus 1.
    kernel_soft
        Share of ‖W1‖² in the near-kernel K of W2, its right singular directions of such small
        gain, minus its Haar mean dim K/d: energy lost beyond chance.
    """

    read_exact: int
    kernel_exact: int
    read_count: float
    kernel_count: float
    read_soft: float
    kernel_soft: float


def intersections(w1: Float[Tensor, "d m1"], w2: Float[Tensor, "m2 d"]) -> Intersections:
    """Both intersections of one pair: exact, counted beyond chance, and soft.

    Parameters
    ----------
    w1, w2
        The maps; computed in float64. Dominant ranks are those of the laboratory's rule.

    References
    ----------
    Xiao, Sui, Ruan, arXiv 2605.09861 (2026), for the first; spec, section 2, for the second.

    Examples
    --------
    >>> import torch
    >>> write, read = torch.eye(8)[:, :3], torch.eye(8)[1:4]
    >>> found = intersections(write, read)
    >>> found.read_exact, found.kernel_exact, found.read_soft > 0, found.kernel_soft < 0
    (2, 1, True, True)
    """
    w1, w2 = w1.detach().double(), w2.detach().double()
    d = w1.shape[0]
    left, sigma1, _ = torch.linalg.svd(w1, full_matrices=False)
    _, sigma2, right = torch.linalg.svd(w2, full_matrices=True)
    r1, r2 = (max(1, _dominant(s, w)) for s, w in ((sigma1, w1), (sigma2, w2)))
    rank1, rank2 = _rank(sigma1, w1), _rank(sigma2, w2)
    product = w2 @ w1
    rank_product = _rank(torch.linalg.svdvals(product), product)
    read = int((sigma2 > NEAR_KERNEL * sigma2[0]).sum())
    kernel, dominant = right[read:].mT, left[:, :r1]
    gains = torch.linalg.svdvals(w2 @ dominant)
    cosines = principal_cosines(dominant, right[:r2].mT)
    # Two maps of these ranks in general position, apart from the kernel intersection.
    together = int(numerical_rank(torch.linalg.svdvals(torch.cat([left[:, :rank1],
                   right[:rank2].mT], 1)), shape=(d, rank1 + rank2)))  # fmt: skip
    lost = (kernel.mT @ w1).square().sum() / w1.square().sum()
    return Intersections(
        read_exact=rank1 + rank2 - together,
        kernel_exact=rank1 - rank_product,
        # None if the dimensions force every cosine: nothing is beyond chance then.
        read_count=(count_beyond_chance(cosines.clamp(max=1).tolist(), r1, r2, d) or 0)
        / min(r1, r2),
        kernel_count=1 - int((gains > NEAR_KERNEL * sigma2[0]).sum()) / r1,
        read_soft=float(cosines.square().sum()) * d / (r1 * r2) - 1,
        kernel_soft=float(lost) - (d - read) / d,
    )


def _dominant(sigma: Tensor, matrix: Tensor) -> int:
    return lab_rule().rank(sigma, shape=(matrix.shape[0], matrix.shape[1]))


def _rank(sigma: Tensor, matrix: Tensor) -> int:
    return int(numerical_rank(sigma, shape=(matrix.shape[0], matrix.shape[1])))
