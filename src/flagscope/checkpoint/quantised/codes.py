"""Codes of 4 or 8 bits with scales of groups, as floating-point formats of quantisers store them.

| format | codes | scales |
|---|---|---|
| NVFP4, ModelOpt | `weight` | `weight_scale` (float8, of 16 inputs) times `weight_scale_2` |
| NVFP4, compressed-tensors | `weight_packed` | `weight_scale` over `weight_global_scale` |
| MXFP4, compressed-tensors | `weight_packed` | `weight_scale`, exponents of 32 inputs |
| torchao, flattened | `_weight_qdata` | `_weight_scale` |

The codes of the first three lie two in a byte; those of torchao are float8 or int8.

References: compressed_tensors/compressors/nvfp4 and mxfp4; ModelOpt's NVFP4QTensor.dequantize;
torchao/prototype/safetensors; OCP Microscaling Formats 1.0, section 5.3.3, for the codes of E2M1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.dtypes import stored_dtype
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.quantised.dequantised import PackedWeight, code_spacings
from flagscope.checkpoint.scales import spread_scale

_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_E2M1 = (*_MAGNITUDES, *(-magnitude for magnitude in _MAGNITUDES))
_NV_GROUP, _MX_GROUP = 16, 32


@dataclass(frozen=True)
class CodedWeight(PackedWeight):
    """A matrix of codes.

    Attributes
    ----------
    format
        The format's name.
    data, scale
        Names of the tensors of codes and of scales.
    common
        Name of one more scale, of all scales; "" without it.
    over
        Whether scales are divided by it, rather than multiplied.
    paired
        Whether a byte holds two codes of E2M1, the first in its lower half.
    """

    name: str
    shape: tuple[int, ...]
    format: str
    data: str
    scale: str
    common: str = ""
    over: bool = False
    paired: bool = False

    @property
    def kind(self) -> str:
        """The format's name."""
        return self.format

    @property
    def parts(self) -> tuple[str, ...]:
        """The codes and their scales."""
        return tuple(part for part in (self.data, self.scale, self.common) if part)

    def values(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The weight; a rounding in float32 for each scale."""
        if not self.paired:
            return inner.read(self.data, index).to(torch.float32) * self._factor(inner, index)
        return torch.tensor(_E2M1)[self._codes(inner, index)] * self._factor(inner, index)

    def step(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The spacing of the codes at each weight, times its scale."""
        factor = self._factor(inner, index).abs()
        if self.paired:
            return code_spacings(torch.tensor(_E2M1))[self._codes(inner, index)] * factor
        codes = inner.read(self.data, index)
        every = torch.arange(256, dtype=torch.uint8).view(codes.dtype).to(torch.float32)
        finite = every.isfinite()
        spacings = torch.full_like(every, torch.nan)
        spacings[finite] = code_spacings(every[finite])
        return spacings[codes.contiguous().view(torch.uint8).to(torch.int64)] * factor

    def _codes(self, inner: Checkpoint, index: Index) -> Tensor:
        rows, columns = index
        span = columns if isinstance(columns, slice) else slice(columns, columns + 1)
        packed = inner.read(self.data, (rows, slice(span.start // 2, -(-span.stop // 2))))
        codes = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2).to(torch.int64)
        codes = codes[..., span.start % 2 :][..., : span.stop - span.start]
        return codes if isinstance(columns, slice) else codes[..., 0]

    def _factor(self, inner: Checkpoint, index: Index) -> Tensor:
        scale = inner.read(self.scale)
        if self.common:
            common = inner.read(self.common).to(torch.float32).reshape(())
            scale = scale.to(torch.float32)
            scale = scale / common if self.over else scale * common
        return spread_scale(
            scale, index, self.shape, tensor=self.name, name=self.scale, config=None
        )


def coded_weights(checkpoint: Checkpoint) -> list[PackedWeight]:
    """Weights of NVFP4, MXFP4 and torchao, by the names, types and shapes of their parts."""
    weights = []
    for name in checkpoint.tensors:
        for end, find in _FINDERS.items():
            if name.endswith(end):
                weight = find(checkpoint, name.removesuffix(end))
                weights += [] if weight is None else [weight]
    return weights


def _model_opt(checkpoint: Checkpoint, module: str) -> CodedWeight | None:
    weight = module + "weight"
    parts = weight, weight + "_scale", weight + "_scale_2"
    shape = _paired_shape(checkpoint, parts[0], parts[1], "float8_e4m3fn", _NV_GROUP)
    if shape is None or not _is_number(checkpoint, parts[2]):
        return None
    return CodedWeight(weight, shape, "NVFP4", *parts, paired=True)


def _compressed(checkpoint: Checkpoint, module: str) -> CodedWeight | None:
    weight = module + "weight"
    parts = weight + "_packed", weight + "_scale", weight + "_global_scale"
    shape = _paired_shape(checkpoint, parts[0], parts[1], "float8_e4m3fn", _NV_GROUP)
    if shape is not None and _is_number(checkpoint, parts[2]):
        return CodedWeight(weight, shape, "NVFP4", *parts, over=True, paired=True)
    if parts[2] in checkpoint.tensors:
        return None
    for exponents in ("uint8", "float8_e8m0fnu"):
        shape = _paired_shape(checkpoint, parts[0], parts[1], exponents, _MX_GROUP)
        if shape is not None:
            return CodedWeight(weight, shape, "MXFP4", *parts[:2], paired=True)
    return None


def _torchao(checkpoint: Checkpoint, module: str) -> CodedWeight | None:
    data, scale = module + "_weight_qdata", module + "_weight_scale"
    info = checkpoint.tensors[data]
    readable = info.dtype == "int8" or info.dtype.startswith("float8_e4m3") or (
        info.dtype.startswith("float8_e5m2"))  # fmt: skip
    if not readable or len(info.shape) < 2 or scale not in checkpoint.tensors:
        return None
    zero = module + "_weight_zero_point"
    if zero in checkpoint.tensors and bool(checkpoint.read(zero).to(torch.float32).any()):
        return None
    stored_dtype(info.dtype, tensor=data)
    return CodedWeight(module + "weight", info.shape, f"torchao {info.dtype}", data, scale)


_FINDERS = {
    "weight_scale_2": _model_opt,
    "weight_packed": _compressed,
    "._weight_qdata": lambda checkpoint, module: _torchao(checkpoint, module + "."),
}


def _paired_shape(
    checkpoint: Checkpoint, data: str, scale: str, dtype: str, group: int
) -> tuple[int, int] | None:
    """Shape of a matrix of codes in bytes, if there is a scale for each group of inputs."""
    codes, scales = checkpoint.tensors.get(data), checkpoint.tensors.get(scale)
    if codes is None or scales is None or codes.dtype != "uint8" or scales.dtype != dtype:
        return None
    if len(codes.shape) != 2 or 0 in codes.shape:
        return None
    rows, columns = codes.shape[0], 2 * codes.shape[1]
    return (rows, columns) if scales.shape == (rows, columns / group) else None


def _is_number(checkpoint: Checkpoint, name: str) -> bool:
    info = checkpoint.tensors.get(name)
    return info is not None and info.shape in ((), (1,)) and info.dtype == "float32"
