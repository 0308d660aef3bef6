"""Scales next to scaled weights: which tensor scales which, and how it spreads over it.

All of them multiply what is stored, whatever the name says. Of a weight `<m>.weight`:

| scale of it | written by |
|---|---|
| `<m>.weight_scale_inv` | DeepSeek-V3, transformers' fine-grained FP8 (quantizer_finegrained_fp8.py), Qwen3 |
| `<m>.weight_scale` | compressed-tensors, FBGEMM, ModelOpt, Quark, ComfyUI (QUANTIZATION.md) |
| `<m>.scale_weight` | ComfyUI and Musubi files with the marker `scaled_fp8` |
| `<m>.scale` | DeepSeek's own inference code (inference/convert.py renames `weight_scale_inv`), GLM |
| `<m>.scales` | gpt-fast's int8 (quantize.py, WeightOnlyInt8Linear) |
| `<m>.qscale_weight` | Mistral's own format (vLLM's mistral_mapping renames it to `weight_scale`) |
| `<m>.weights_scaling_factor` | TensorRT-LLM (models/convert_utils.py, modeling_utils.py) |
| `<m>.SCB` | bitsandbytes' int8: the largest magnitude of each row, for which 127 is stored |

`<name>_scale`, `_scale_inv`, `_scales`, `.scale` and `.scales` are those of a tensor of any name. Scales
of activations (`input_scale`, `scale_input`, `activation_scale`, `qscale_act`) are not scales of weights.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError, UnknownDtypeError

# What is put behind the name of a tensor, and in place of its last part, `weight`. Transformer
# Engine stores `scale` and `scale_inv`, of which the second multiplies: it comes first.
_BEHIND = ("_scale_inv", "_scale", "_scales", "_qscale", ".scale_inv", ".scale", ".scales")
_INSTEAD = (
    *("scale_weight", "qscale_weight", "weights_scaling_factor", "weight_scaling_factor"),
    *("scale_inv", "scale", "scales", "qscale", "_scale_inv", "_scale", "fp8_scale"),
)
_WEIGHT = "weight"
# Ends of names of scales, whatever they belong to.
_SCALES = (*_BEHIND, *_INSTEAD)
# A name that may be a scale's; nothing is multiplied by what may be.
_LIKE_SCALE = re.compile(r"^[^.]*(scal|amax|absmax)[^.]*$", re.IGNORECASE)
# Next to a scaled weight: scales of activations, and ComfyUI's description of the format.
_ACTIVATIONS = (
    *("input_scale", "scale_input", "activation_scale", "qscale_act", "activation_scaling_factor"),
    *("output_scale", "comfy_quant"),
)
# A tensor by whose presence ComfyUI knows files of `scale_weight`.
_MARKER = "scaled_fp8"
# bitsandbytes' int8: the largest magnitude of each row, which the stored 127 stands for.
_ROW_MAXIMA = "SCB"
# Rows and columns that share a scale where the config does not say: DeepSeek's choice.
_BLOCK = 128
# Entries of the last axis that share an exponent in the MX formats (OCP MX specification 1.0, 5.2).
_MX_BLOCK = 32
_MX_BIAS = 127
_MX_NAN = 255


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
    >>> scale_names({"a.weight": "float8_e4m3fn", "a.scale_weight": "float32"})
    {'a.weight': 'a.scale_weight'}
    """
    found = {}
    scalable = {dtype for dtype in set(dtypes.values()) if _is_float8(dtype) or dtype == "int8"}
    for name, dtype in dtypes.items() if scalable else ():
        if dtype not in scalable:
            continue
        candidates = [name + suffix for suffix in _BEHIND]
        if name == _WEIGHT or name.endswith("." + _WEIGHT):
            module = name.removesuffix(_WEIGHT)
            candidates += [module + part for part in _INSTEAD]
            if dtype == "int8":
                candidates.append(module + _ROW_MAXIMA)
        scale = next((candidate for candidate in candidates if candidate in dtypes), None)
        if scale is not None:
            found[name] = scale
    return found


def companion_names(names: Collection[str], scaled: Collection[str]) -> set[str]:
    """Names of what lies next to scaled weights and is neither a weight nor its scale.

    Examples
    --------
    >>> companion_names({"a.weight", "a.scale_weight", "a.scale_input"}, {"a.weight"})
    {'a.scale_input'}
    """
    modules = {name.removesuffix(_WEIGHT) for name in scaled}
    found = {module + part for module in modules for part in _ACTIVATIONS}
    found |= {name for name in names if name.rpartition(".")[2] == _MARKER}
    return found & set(names) if scaled else set()


def unscaled_note(
    dtypes: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], scaled: Collection[str]
) -> tuple[str, ...]:
    """A note on matrices of a type that is stored over a scale (float8, int8) that have none."""
    kinds = {dtype for dtype in set(dtypes.values()) if _is_float8(dtype) or dtype == "int8"}
    bare = [name for name, dtype in dtypes.items() if dtype in kinds and len(shapes[name]) > 1
            and name not in scaled and not name.endswith(_SCALES)]  # fmt: skip
    if not bare:
        return ()
    module = bare[0].removesuffix(_WEIGHT)
    near = [name for name in dtypes if name.startswith(module) and name != bare[0]
            and _LIKE_SCALE.search(name.removeprefix(module))
            and not name.endswith(_ACTIVATIONS)]  # fmt: skip
    hint = f"; next to it lies {near[0]}, which is not a name that is known" if near else ""
    types = " and ".join(sorted({dtypes[name].partition("_")[0] for name in bare}))
    return (
        f"{len(bare)} {types} tensors have no scale that is known, such as {bare[0]}; they are "
        f"taken as stored, which leaves out whatever scales their rows or blocks{hint}",
    )


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
        As stored: one number; one for each entry of the leading axes; or as many axes as the
        tensor, each of size 1, the tensor's, or the number of its blocks. Bytes are exponents of 2
        (E8M0) where there is one for every 32 entries of the last axis, and nothing else.
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
        If the scale is neither a floating-point number nor such an exponent.
    """
    if scale.dtype == torch.uint8 and _is_mx(tuple(scale.shape), shape):
        scale = _powers(scale)
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
    if 0 < wide.ndim < len(shape) and wide.shape[0] == shape[0] and all(
        factors in (1, extent) for factors, extent in zip(wide.shape, shape, strict=False)
    ):  # fmt: skip
        wide = wide.reshape(*wide.shape, *[1] * (len(shape) - wide.ndim))
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
    told = _told_blocks(config)
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


def _told_blocks(config: Mapping[str, Any] | None) -> Any:
    """Block sizes given by a config: DeepSeek's and transformers', or compressed-tensors'."""
    settings = (config or {}).get("quantization_config")
    if not isinstance(settings, Mapping):
        return None
    groups = settings.get("config_groups")
    blocks = []
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        blocks.append(weights.get("block_structure") if isinstance(weights, Mapping) else None)
    shared = blocks[0] if blocks and all(block == blocks[0] for block in blocks) else None
    return settings.get("weight_block_size", shared)


def _is_mx(scale: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether there is one scale for every 32 entries of the last axis."""
    if not shape or shape[-1] == 0 or shape[-1] % _MX_BLOCK:
        return False
    return scale == (*shape[:-1], shape[-1] // _MX_BLOCK)


def _powers(exponents: Tensor) -> Tensor:
    """The powers of 2 that bytes of type E8M0 stand for, 255 being NaN."""
    # In float64, since the smallest is a subnormal of float32, which holds all of them.
    powers = torch.exp2(exponents.to(torch.float64) - _MX_BIAS).to(torch.float32)
    return powers.masked_fill(exponents == _MX_NAN, torch.nan)
