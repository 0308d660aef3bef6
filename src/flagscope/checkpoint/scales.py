"""Scales beside scaled weights: which tensor scales which, and how it spreads over it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError, UnknownDtypeError

# By what the name of a weight's scale ends: DeepSeek's block scales and transformers', those of
# compressed-tensors, FBGEMM and ModelOpt. Whatever the name says, all of them multiply.
_SUFFIXES = ("_scale_inv", "_scale")
# bitsandbytes' int8: the largest magnitude of each row, which the stored 127 stands for.
_ROW_MAXIMA = "SCB"
# Rows and columns that share a scale where the config does not say: DeepSeek's choice.
_BLOCK = 128


def scale_names(dtypes: Mapping[str, str]) -> dict[str, str]:
    """Name of the scale of each scaled tensor.

    Parameters
    ----------
    dtypes
        Stored type of every tensor by name. Only float8 and int8 tensors are scaled.

    Examples
    --------
    >>> scale_names({"a.weight": "float8_e4m3fn", "a.weight_scale_inv": "float32"})
    {'a.weight': 'a.weight_scale_inv'}
    """
    found = {}
    scalable = {dtype for dtype in set(dtypes.values()) if _is_float8(dtype) or dtype == "int8"}
    for name, dtype in dtypes.items() if scalable else ():
        if dtype not in scalable:
            continue
        candidates = [name + suffix for suffix in _SUFFIXES]
        if dtype == "int8" and name.endswith("weight"):
            candidates.append(name.removesuffix("weight") + _ROW_MAXIMA)
        scale = next((candidate for candidate in candidates if candidate in dtypes), None)
        if scale is not None:
            found[name] = scale
    return found


def unscaled_note(dtypes: Mapping[str, str], scaled: Collection[str]) -> tuple[str, ...]:
    """A note on float8 matrices that have no scale where others have one."""
    if not scaled:
        return ()
    kinds = {dtype for dtype in set(dtypes.values()) if _is_float8(dtype)}
    bare = [name for name, dtype in dtypes.items()
            if dtype in kinds and name not in scaled and not name.endswith(_SUFFIXES)]  # fmt: skip
    if not bare:
        return ()
    return (f"{len(bare)} float8 tensors have no scale beside them and are taken as stored, "
            f"such as {bare[0]}",)  # fmt: skip


def _is_float8(dtype: str) -> bool:
    """Whether numbers are stored as float8; e8m0 holds the scales themselves."""
    return dtype.startswith("float8") and "e8m0" not in dtype


def spread_scale(
    scale: Tensor,
    index: Index,
    shape: tuple[int, ...],
    *,
    tensor: str,
    name: str,
    config: Mapping[str, Any] | None,
) -> Float[Tensor, "*part"]:
    """The factor of each element of a slice, or one factor for all.

    Parameters
    ----------
    scale
        As stored: one number; one for each entry of the leading axis; or as many axes as the
        tensor, each of size 1, the tensor's, or the number of its blocks.
    index
        The slice of the tensor, resolved.
    shape
        Of the whole tensor.
    tensor, name
        Names of the tensor and of its scale.
    config
        The model's; `quantization_config.weight_block_size` gives the blocks, else 128.

    Returns
    -------
    Tensor
        float32 or float64; no axes if it is the same for all elements, else the slice's shape
        (a view where factors repeat along an axis).

    Raises
    ------
    CorruptFileError
        If the scale's shape fits no such pattern.
    UnknownDtypeError
        If the scale is no floating-point number.
    """
    if not scale.is_floating_point():
        raise UnknownDtypeError(
            f"tensor {tensor!r} has a scale {name!r} of type {scale.dtype}, whose meaning is not "
            "known.",
            hint="dequantise the checkpoint to bfloat16 first.",
        )
    wide = scale if scale.dtype == torch.float64 else scale.to(torch.float32)
    if name.endswith(_ROW_MAXIMA):
        wide = wide / 127
    if wide.numel() == 1:
        return wide.reshape(())
    if wide.ndim == 1 and len(shape) > 1 and wide.shape[0] == shape[0]:
        wide = wide.reshape(-1, *[1] * (len(shape) - 1))
    sizes = _block_sizes(tuple(wide.shape), shape, config)
    if sizes is None:
        raise CorruptFileError(
            f"the scale {name!r} of shape {tuple(scale.shape)} does not fit tensor {tensor!r} of "
            f"shape {shape}.",
            hint="is the config's quantization_config.weight_block_size that of this checkpoint?",
        )
    wanted = []
    for axis, (entry, block) in enumerate(zip(index, sizes, strict=True)):
        one = isinstance(entry, int)
        span = slice(entry, entry + 1) if isinstance(entry, int) else entry
        if block < shape[axis]:
            wide = wide.index_select(axis, torch.arange(span.start, span.stop) // block)
        if one:
            wide = wide.select(axis, 0).unsqueeze(axis)
        else:
            wanted.append(span.stop - span.start)
    kept = tuple(0 if isinstance(entry, int) else slice(None) for entry in index)
    return wide[kept].expand(wanted)


def _block_sizes(
    scale: tuple[int, ...], shape: tuple[int, ...], config: Mapping[str, Any] | None
) -> tuple[int, ...] | None:
    """Entries of each axis that share a scale; None if the shapes do not fit."""
    if len(scale) != len(shape):
        return None
    told = ((config or {}).get("quantization_config") or {}).get("weight_block_size")
    blocks = [_BLOCK] * len(shape)
    if isinstance(told, list) and 0 < len(told) <= len(shape):
        blocks[-len(told) :] = [b if isinstance(b, int) and b > 0 else _BLOCK for b in told]
    sizes = []
    for factors, extent, block in zip(scale, shape, blocks, strict=True):
        if factors == 1:
            sizes.append(max(extent, 1))
        elif factors == extent:
            sizes.append(1)
        elif factors == -(-extent // block):
            sizes.append(block)
        elif factors and extent % factors == 0 and told is None:
            sizes.append(extent // factors)
        else:
            return None
    return tuple(sizes)
