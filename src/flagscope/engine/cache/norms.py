"""Folds norms into the adjacent maps, so that maps are compared in the basis that they share.

A BatchNorm after a map multiplies its output channels by γ/√(σ² + ε). A LayerNorm or RMSNorm
before a reader W turns it into W diag(γ). A LayerNorm also removes the mean of the stream: both
sides are then written in an orthonormal basis of the complement of (1, …, 1), so that every
observable and every null sees d - 1 dimensions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.arch import Norm
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.errors import ArchitectureError
from flagscope.geometry import Matrices, even_exponents, power_of_two

# Scales up to 2^±_FAR are left as they are: products with maps that have room, and sums of their
# squares, stay in the range of float32.
_FAR = 40


def fold_before(
    maps: Matrices, norm: Norm | None, reader: TaskReader, *, centred: bool = True
) -> Matrices:
    """Readers (n, m, d) with the preceding norm of the stream folded in.

    After a LayerNorm they see d - 1 dimensions (`centred_columns`). If `centred` is False, the mean
    stays in and the coordinates are those of the stream.
    """
    if norm is None:
        return maps
    gain = reader.gain(norm)
    if gain is not None:
        _check_length(gain, maps.values.shape[-1], norm)
        maps = scaled_columns(maps, gain)
    return centred_columns(maps) if centred and norm.kind == "layernorm" else maps


def fold_behind(
    maps: Matrices, norm: Norm | None, reader: TaskReader, *, centred: bool = False
) -> Matrices:
    """Writers (n, d, m) with the norm or layer scale that follows them folded in.

    The divisor of a norm differs from token to token and is left out. `centred` means that the
    reader has a LayerNorm: the writers are then written in its d - 1 dimensions.
    """
    if norm is not None:
        if norm.kind == "layernorm":
            maps = rows_without_mean(maps)
        scale = reader.batchnorm_scale(norm) if norm.kind == "batchnorm" else reader.gain(norm)
        if scale is not None:
            _check_length(scale, maps.values.shape[-2], norm)
            maps = scaled_rows(maps, scale)
    return centred_rows(maps) if centred else maps


def _check_length(gain: Float[Tensor, " k"], length: int, norm: Norm) -> None:
    """Raise unless a gain holds one factor per channel, or a single one."""
    if len(gain) not in (1, length):
        raise ArchitectureError(
            f"the norm {norm.name!r} has a gain of {len(gain)} entries, and the maps next to it "
            f"have {length} channels",
            hint="is this the family of the checkpoint? Say another one (--family NAME), or none",
        )


def scaled_rows(maps: Matrices, scale: Float[Tensor, " rows"]) -> Matrices:
    """diag(scale) W; the noise estimate is scaled with it."""
    maps, scale = _in_range(maps, scale)
    return _scaled(maps, maps.values * scale[:, None], scale)


def scaled_columns(maps: Matrices, scale: Float[Tensor, " columns"]) -> Matrices:
    """W diag(scale); the noise estimate is scaled with it."""
    maps, scale = _in_range(maps, scale)
    return _scaled(maps, maps.values * scale, scale)


def centred_columns(maps: Matrices) -> Matrices:
    """W in an orthonormal basis of the complement of (1, …, 1): shape (n, rows, columns - 1)."""
    return replace(maps, values=_without_mean(maps.values))


def centred_rows(maps: Matrices) -> Matrices:
    """As `centred_columns`, for the other side: shape (n, rows - 1, columns)."""
    return replace(maps, values=_without_mean(maps.values.mT).mT)


def rows_without_mean(maps: Matrices) -> Matrices:
    """(I - 11ᵀ/d) W: a map followed directly by a LayerNorm, in all d dimensions."""
    return replace(maps, values=maps.values - maps.values.mean(-2, keepdim=True))


def _in_range(maps: Matrices, scale: Float[Tensor, " k"]) -> tuple[Matrices, Float[Tensor, " k"]]:
    """Maps and scales in the dtype of the maps, such that no product leaves its range.

    A power of two is moved from the scales to the units of the maps.
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
    """W Hᵀ without its first column; the reflection H takes (1, …, 1)/√d to the first axis."""
    n, _, d = w.shape
    v = torch.full((d,), 1 / math.sqrt(d), dtype=w.dtype, device=w.device)
    v[0] -= 1
    along = (w @ v)[..., None]
    # One pass over the maps, which may be the largest tensors in memory.
    return torch.baddbmm(
        w[..., 1:], along, v[1:].expand(n, 1, d - 1), alpha=-2 / float(v.square().sum())
    )
