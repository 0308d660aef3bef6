"""How far rounding to the grid of a side's format can move an entry."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from flagscope.checkpoint import TensorInfo
from flagscope.comparison.content.reading import Side
from flagscope.spacing import spacing

# Scales of blocks are stored in 16 bits at least, and codes are made with the scale before it is
# rounded to them: a value of k steps moves by k half units of the scale's last place.
_HALF_UNITS = {"f16": 2.0**-11, "bf16": 2.0**-9}
# Half the spacing of float16's subnormals, which small scales fall among.
_HALF_SUBNORMAL = 2.0**-25
# A quotient by a scale and a product with it, each rounded in float32.
_ARITHMETIC = 2.0**-22
# Largest code of types of signed codes whose other end is one larger: what lies beyond it is
# clipped. The second number is how many steps beyond: the scale is chosen by the largest entry,
# or searched for, which K-quants do.
_SIGNED_ENDS = {"Q4_0": (7, 1.0), "Q5_0": (15, 1.0), "Q3_K": (3, 2.0), "Q6_K": (31, 2.0)}
# Types whose codes count from the least entry of a block: levels of codes, length of a block, and
# levels of the scales and least entries of the blocks that lie together in 256 entries.
_FROM_LEAST = {"Q2_K": (3, 16, 15), "Q4_K": (15, 32, 63), "Q5_K": (31, 32, 63)}
_TOGETHER = 256
# Types with a stored least entry, which is rounded as well.
_WITH_LEAST = ("Q4_1", "Q5_1")


def half_steps(side: Side, info: TensorInfo) -> Float[Tensor, "*rows"]:
    """How far each entry may lie from what was rounded to it, in float64.

    Half the spacing of the grid there: that of the stored type times the scale, or the format's
    own step. Where codes were made with a scale that was then rounded itself, its rounding comes
    on top, and the arithmetic in float32.
    """
    values = side.values.abs()
    if side.step is not None:
        step = side.step.to(torch.float64)
        bound = step / 2 + _ARITHMETIC * values
        kind = info.quantised or ""
        if kind.endswith("_K"):
            return bound  # its codes are made with the scales as they are stored
        reach = values + 15 * step if kind in _WITH_LEAST else values
        counts = torch.where(step > 0, reach / step, 0.0)
        unit = _HALF_UNITS["f16"] if info.quantised else 0.0
        return bound + (1 + (kind in _WITH_LEAST)) * (unit * reach + counts * _HALF_SUBNORMAL)
    step = spacing(side.stored)
    if step is None:
        return torch.zeros_like(values)
    if side.scale is not None:
        factor = side.scale.to(torch.float64).abs()
        return step * factor / 2 + _ARITHMETIC * values
    return step / 2


def clipped_ends(
    side: Side, other: Float[Tensor, "*rows"], info: TensorInfo
) -> Bool[Tensor, "*rows"]:
    """Entries at the end of what the format holds there, whose counterpart lies beyond it."""
    values = side.values
    one_sign = other.sign() == values.sign()
    kind = info.quantised or ""
    if side.step is None:
        # What overflowed to infinity lay beyond the largest number.
        return one_sign & (other.abs() >= _largest(side)) & (values.abs() >= _largest(side))
    beyond = one_sign & (other.abs() >= values.abs())
    if kind in _SIGNED_ENDS:
        end, most = _SIGNED_ENDS[kind]
        step = side.step.to(torch.float64)
        codes = (values.abs() / step).round()
        at_end = (codes == end) | ((codes == end + 1) & (most > 1))
        return beyond & at_end & ((other - values).abs() <= most * step * (1 + 1e-3))
    if kind in _FROM_LEAST:
        return _beyond_block(values, other, side.step.to(torch.float64), *_FROM_LEAST[kind])
    return torch.zeros_like(beyond)


def _largest(side: Side) -> Tensor:
    """The type's largest number at each entry; NaN for types that hold more than any weight."""
    kind = side.stored.dtype
    short = kind.is_floating_point and kind.itemsize <= 2
    factor = torch.ones((), dtype=torch.float64) if side.scale is None else side.scale.abs()
    return factor.to(torch.float64) * (torch.finfo(kind).max if short else torch.nan)


def _beyond_block(
    values: Tensor, other: Tensor, step: Tensor, levels: int, block: int, scales: int
) -> Tensor:
    """Entries at an end of a block, and what lies beyond by no more than its encoder leaves.

    The search for the least squared error leaves a step or two beyond the ends; the scale and the
    least entry are rounded to levels that all blocks of 256 entries share.
    """
    if values.shape[-1] % _TOGETHER:
        return torch.zeros(values.shape, dtype=torch.bool)
    shape = (*values.shape[:-1], values.shape[-1] // _TOGETHER, _TOGETHER // block, block)
    v, x, s = values.reshape(shape), other.reshape(shape), step.reshape(shape)
    low, high = v.amin(-1, keepdim=True), v.amax(-1, keepdim=True)
    coarse_scale = s.amax((-2, -1), keepdim=True) / (2 * scales)
    coarse_least = (-low).clamp_min(0.0).amax(-2, keepdim=True) / (2 * scales)
    # Both ends are known to be ends only where all levels lie between them.
    full = ((high - low) / s - levels).abs() < 0.01
    most = s * torch.where(full, 2.0, 1.0) + levels * coarse_scale + coarse_least
    near = (x - v).abs() <= most * (1 + 1e-3)
    ends = near & (((v == high) & (x > v)) | ((v == low) & (x < v)))
    return ends.reshape(values.shape)
