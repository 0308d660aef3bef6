"""The formulas of neural collapse on class means, within-class scatter and a classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.collapse.records import SimplexFit
from flagscope.diagnose.values import number
from flagscope.errors import InputError


@dataclass(frozen=True)
class Spread:
    """NC1 and what it stands on."""

    rank: int
    nc1: float | None
    trace_ratio: float | None


def spread(means: Float[Tensor, "k d"], within: Float[Tensor, "d d"]) -> Spread:
    """tr(Σ_W Σ_B⁺)/K and tr Σ_W/tr Σ_B.

    Parameters
    ----------
    means
        Class means, float64; Σ_B is their covariance, every class counting alike.
    within
        Σ_W.

    Returns
    -------
    Spread
        None where all class means agree: there is then nothing to collapse onto.
    """
    k = len(means)
    centred = means - means.mean(0)
    _, sigma, vectors = torch.linalg.svd(centred / k**0.5, full_matrices=False)
    # Σ_B = V σ² Vᵀ. The centred means have rank K-1 at most; what the subtraction of their mean
    # leaves in other directions is the rounding of the means themselves.
    floor = max(means.shape) * torch.finfo(means.dtype).eps * torch.linalg.matrix_norm(means)
    rank = min(int((sigma > floor).sum()), k - 1)
    if rank == 0:
        return Spread(0, None, None)
    sigma, vectors = sigma[:rank], vectors[:rank]
    # Divided one after the other: the square of a small σ may underflow.
    along = ((vectors @ within) * vectors).sum(-1) / sigma / sigma
    ratio = within.trace() / sigma.square().sum()
    return Spread(rank, number(float(along.sum() / k)), number(float(ratio)))


def simplex_fit(vectors: Float[Tensor, "k d"]) -> SimplexFit:
    """How near K vectors are to a simplex equiangular tight frame (NC2).

    Parameters
    ----------
    vectors
        One a row, K ≥ 2. Class means are to be centred first; the rows of a classifier are taken
        as they are.

    Returns
    -------
    SimplexFit
        Four numbers, each 0 at a frame; None where a vector is zero and has no direction.

    Raises
    ------
    InputError
        If there are fewer than two vectors, or a value is not finite.

    Notes
    -----
    Computed in float64. Standard deviations are those of the population, as in [1]_.

    References
    ----------
    .. [1] Papyan, Han, Donoho, PNAS 117 (2020) 24652-24663, figures 2 to 4.

    Examples
    --------
    >>> import torch
    >>> frame = torch.eye(3, dtype=torch.float64) - 1 / 3
    >>> fit = simplex_fit(5 * frame)
    >>> max(fit.norm_variation, fit.cosine_excess, fit.simplex_distance) < 1e-15
    True
    >>> round(simplex_fit(torch.eye(3)).cosine_excess, 12)
    0.5
    """
    if vectors.ndim != 2 or len(vectors) < 2 or not bool(torch.isfinite(vectors).all()):
        raise InputError(
            f"vectors of shape {tuple(vectors.shape)} are not two or more finite rows",
            hint="give one vector a row, shape (classes, d)",
        )
    rows = vectors.to(torch.float64)
    k = len(rows)
    norms = torch.linalg.vector_norm(rows, dim=-1)
    mean_norm = norms.mean()
    unit = rows / norms[:, None]
    upper = torch.triu_indices(k, k, offset=1, device=rows.device)
    cosines = (unit @ unit.mT)[upper[0], upper[1]]
    # Scaled, so that squares of squares of small vectors do not underflow.
    gram = (rows / norms.max()) @ (rows / norms.max()).mT
    target = torch.eye(k, dtype=rows.dtype, device=rows.device) - 1 / k
    distance = gram / torch.linalg.matrix_norm(gram) - target / (k - 1) ** 0.5
    return SimplexFit(
        norm_variation=number(float(norms.std(correction=0) / mean_norm)),
        cosine_variation=number(float(cosines.std(correction=0))),
        cosine_excess=number(float((cosines + 1 / (k - 1)).abs().mean())),
        simplex_distance=number(float(torch.linalg.matrix_norm(distance))),
    )


def self_duality(weight: Float[Tensor, "k d"], means: Float[Tensor, "k d"]) -> float | None:
    """‖W/‖W‖_F - M/‖M‖_F‖_F (NC3); None where either vanishes."""
    one, other = (x / torch.linalg.matrix_norm(x) for x in (weight, means))
    return number(float(torch.linalg.matrix_norm(one - other)))
