"""Limits of ridge descent of a deep linear network, in closed form for whitened inputs.

With E x xᵀ = 1 and E y xᵀ = T the loss is ½ ‖W_L … W_1 - T‖² + (λ/2) Σ ‖W_l‖² up to a constant.
At a stationary point all layers are balanced and the network is diagonal in the singular vectors of
T: a direction of strength t is carried by one singular value σ of every layer, with

    σ^{L-1} (σ^L - t) + λ σ = 0,   so   σ = 0   or   σ^{2L-2} - t σ^{L-2} + λ = 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.optimize import root_scalar
from torch import Tensor


def survival_threshold(decay: float, depth: int) -> float:
    """Least strength t of a direction that can survive ridge λ: min over σ of σ^L + λ σ^{2-L}.

    λ at depth 2, 4 (λ/3)^{3/4} at depth 3.

    Parameters
    ----------
    decay
        λ.
    depth
        L ≥ 2.

    Examples
    --------
    >>> survival_threshold(0.3, 2), round(survival_threshold(0.3, 3), 6)
    (0.3, 0.711312)
    """
    return _strength(_turning_point(decay, depth), decay, depth)


def optimal_threshold(decay: float, depth: int) -> float:
    """Strength above which survival has the lower objective: 2 λ^{3/4} at depth 3.

    Surviving lowers ½ (s - t)² + (L/2) λ σ², s = σ^L, below ½ t² exactly if σ^{2L-2} > (L - 2) λ.

    Parameters
    ----------
    decay, depth
        λ and L ≥ 2.

    Examples
    --------
    >>> optimal_threshold(0.3, 2), round(optimal_threshold(0.3, 3), 6)
    (0.3, 0.81072)
    """
    return _strength(((depth - 2) * decay) ** (1 / (2 * depth - 2)), decay, depth)


def surviving_value(strength: float, decay: float, depth: int) -> float | None:
    """Singular value s = σ^L of the network in a direction of strength t that survives.

    t - λ at depth 2. Beyond that the larger root: the smaller is a saddle. None below the
    threshold.

    Parameters
    ----------
    strength, decay, depth
        t, λ and L ≥ 2.

    Examples
    --------
    >>> surviving_value(1.0, 0.25, 2), surviving_value(0.2, 0.25, 2)
    (0.75, None)
    >>> round(surviving_value(1.0, 0.4, 3), 9)
    0.49399913
    """
    if strength <= survival_threshold(decay, depth):
        return None
    if depth == 2 or not decay:
        return strength - decay
    low, high = _turning_point(decay, depth), strength ** (1 / depth)
    # σ^L + λ σ^{2-L} - t decreases up to the turning point, then increases; at σ^L = t it is > 0.
    root = root_scalar(
        lambda x: _strength(x, decay, depth) - strength, bracket=(low, high), xtol=1e-15
    ).root
    return root**depth


def _turning_point(decay: float, depth: int) -> float:
    return ((depth - 2) * decay / depth) ** (1 / (2 * depth - 2))


def _strength(sigma: float, decay: float, depth: int) -> float:
    """The strength at which σ is stationary."""
    return sigma**depth + (decay * sigma ** (2 - depth) if decay else 0.0)


def nuclear_certificate(
    product: Float[Tensor, "seeds c d"], xx: Tensor, yx: Tensor, decay: float
) -> tuple[Float[Tensor, " seeds"], Float[Tensor, " seeds"]]:
    """Distance of M = W2 W1 from the minimum of ½ E ‖y - M x‖² + λ ‖M‖_*, for any inputs.

    Ridge on both layers is equivalent to that convex problem, since the least ½ (‖W1‖² + ‖W2‖²)
    with W2 W1 = M is ‖M‖_*. If R = E y xᵀ - M E x xᵀ has spectral norm at most λ, the objective at
    M exceeds its minimum by at most λ ‖M‖_* - ⟨R, M⟩.

    Returns
    -------
    tuple of Tensor
        ‖R‖ / λ - 1, which must not be positive, and the gap λ ‖M‖_* - ⟨R, M⟩.

    References
    ----------
    .. [1] N. Srebro, J. Rennie, T. Jaakkola, Maximum-margin matrix factorization, NIPS 17 (2004).

    Examples
    --------
    >>> import torch
    >>> one = torch.eye(2, dtype=torch.float64)
    >>> excess, gap = nuclear_certificate(0.75 * one[None], one, one, decay=0.25)
    >>> excess.item(), gap.item()
    (0.0, 0.0)
    """
    residual = yx - product @ xx
    norm = torch.linalg.svdvals(product).sum(dim=-1)
    gap = decay * norm - (residual * product).sum(dim=(-2, -1))
    return torch.linalg.matrix_norm(residual, 2) / decay - 1, gap
