"""Ridge along the orbit of a pair of maps: the function of Kempf and Ness and its moment map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flagscope.geometry import balancing_transform_of_maps
from flagscope.lab.imbalance import imbalance_matrix

_INPUTS, _WIDTH, _OUTPUTS = 10, 6, 8
# Distance of the neighbours on the orbit from the balanced pair.
_NEAR = 0.1


def ridge_on_orbit(w1: Tensor, w2: Tensor, g: Tensor) -> Tensor:
    """Ridge of (g W1, W2 g⁻¹), tr A + tr B.

    Examples
    --------
    >>> one = torch.eye(2)
    >>> ridge_on_orbit(one, one, 2 * one).item()  # 4 + 4 + 1/4 + 1/4
    8.5
    """
    return (g @ w1).square().sum() + torch.linalg.solve(g, w2, left=False).square().sum()


def orbit_of_random_maps(seed: int) -> dict[str, Any]:
    """Ridge and moment map at a random pair of full rank, and near the balanced pair of its orbit.

    Returns
    -------
    dict
        "derivative" of ridge along g = exp(sX) at s = 0, by automatic differentiation, and
        "predicted", 2 tr X(A - B); "ridge" and "moment" = ‖A - B‖² at the pair, with the suffix
        "_balanced" at the balanced pair; "ridge_near", the least ridge at neighbours of that;
        "nuclear" = ‖W2 W1‖_*.
    """
    generator = torch.Generator().manual_seed(seed)
    w1, w2, drawn = (
        torch.randn(m, n, generator=generator, dtype=torch.float64)
        for m, n in ((_WIDTH, _INPUTS), (_OUTPUTS, _WIDTH), (_WIDTH, _WIDTH))
    )
    x = (drawn + drawn.mT) / 2
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    along = ridge_on_orbit(w1, w2, torch.linalg.matrix_exp(s * x))
    (derivative,) = torch.autograd.grad(along, s)
    balancing = balancing_transform_of_maps(w1, w2)
    g = balancing.transform
    near = [torch.linalg.matrix_exp(sign * _NEAR * x) @ g for sign in (-1, 1)]
    moment, balanced = imbalance_matrix(w1, w2), imbalance_matrix(g @ w1, w2 @ balancing.inverse)
    return {
        "seed": seed,
        "derivative": float(derivative),
        "predicted": float(2 * (x * moment).sum()),
        "ridge": float(ridge_on_orbit(w1, w2, torch.eye(_WIDTH, dtype=x.dtype))),
        "moment": float(moment.square().sum()),
        "ridge_balanced": float(ridge_on_orbit(w1, w2, g)),
        "moment_balanced": float(balanced.square().sum()),
        "ridge_near": min(float(ridge_on_orbit(w1, w2, h)) for h in near),
        "nuclear": float(torch.linalg.svdvals(w2 @ w1).sum()),
    }
