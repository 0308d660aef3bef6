"""Folding of norms into the maps beside them, so that maps are compared in the basis they share.

A BatchNorm behind a map multiplies its output channels by γ/√(σ² + ε). A LayerNorm or RMSNorm in
front of a reader W makes it W diag(γ), and a LayerNorm moreover removes the mean of the stream:
then both sides are written in an orthonormal basis of the complement of (1, …, 1), so that every
observable and every null sees d - 1 dimensions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose import Matrices
from flagscope.diagnose.matrices import even_exponents, power_of_two

# Exponents of two up to which scales are left as they are: products with maps that have room, and
# sums of their squares, stay in the range of float32.
_FAR = 40


def scaled_rows(maps: Matrices, scale: Float[Tensor, " rows"]) -> Matrices:
    """diag(scale) W, with the estimate of the noise scaled along."""
    maps, scale = _in_range(maps, scale)
    return _scaled(maps, maps.values * scale[:, None], scale)


def scaled_columns(maps: Matrices, scale: Float[Tensor, " columns"]) -> Matrices:
    """W diag(scale), with the estimate of the noise scaled along."""
    maps, scale = _in_range(maps, scale)
    return _scaled(maps, maps.values * scale, scale)


def centred_columns(maps: Matrices) -> Matrices:
    """W in an orthonormal basis of the complement of (1, …, 1): shape (n, rows, columns - 1)."""
    return replace(maps, values=_without_mean(maps.values))


def centred_rows(maps: Matrices) -> Matrices:
    """As `centred_columns`, for the other side: shape (n, rows - 1, columns)."""
    return replace(maps, values=_without_mean(maps.values.mT).mT)


def rows_without_mean(maps: Matrices) -> Matrices:
    """(I - 11ᵀ/d) W: what a LayerNorm directly behind a map leaves of it, in all d dimensions."""
    return replace(maps, values=maps.values - maps.values.mean(-2, keepdim=True))


def _in_range(maps: Matrices, scale: Float[Tensor, " k"]) -> tuple[Matrices, Float[Tensor, " k"]]:
    """Maps and scales in the type of the maps, none of whose products leaves its range.

    A power of two that is taken from the scales goes to the units of the maps.
    """
    exponent = even_exponents(scale.abs().max())
    if abs(int(exponent)) > _FAR:
        scale = power_of_two(scale, -exponent)
        maps = replace(maps, units=maps.exponents + int(exponent))
    return maps.with_room(maps.values.dtype), scale.to(maps.values.dtype)


def _scaled(maps: Matrices, values: Tensor, scale: Tensor) -> Matrices:
    largest = float(scale.abs().max())
    mean = float(scale.square().mean())
    return replace(
        maps, values=values, delta=maps.delta * largest, mean_square=maps.mean_square * mean
    )


def _without_mean(w: Float[Tensor, "n rows d"]) -> Float[Tensor, "n rows c"]:
    """W Hᵀ without its first column, H the reflection that takes (1, …, 1)/√d to the first axis."""
    n, _, d = w.shape
    v = torch.full((d,), 1 / math.sqrt(d), dtype=w.dtype, device=w.device)
    v[0] -= 1
    along = (w @ v)[..., None]
    # One pass over the maps, which may be the largest thing in memory.
    return torch.baddbmm(
        w[..., 1:], along, v[1:].expand(n, 1, d - 1), alpha=-2 / float(v.square().sum())
    )
