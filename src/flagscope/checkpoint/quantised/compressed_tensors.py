"""compressed-tensors' integers (llm-compressor): packed in words, or as int8 with zero points.

`pack-quantized` stores a weight of (outputs, inputs) as `weight_packed`, int32 of (outputs,
inputs · bits / 32), the lowest bits first, each integer raised by half its range; `weight_shape`;
`weight_scale` for the tensor, each output, or each group of inputs; `weight_zero_point`, packed
down the outputs; and `weight_g_idx`, the group of each input where they are not in order.
`naive-quantized` stores int8 or float8 as they are, with `weight_scale` and `weight_zero_point`.

References: compressed_tensors/compressors/pack_quantized and quantization/lifecycle/forward.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.quantised.dequantised import PackedWeight
from flagscope.checkpoint.quantised.packed_integers import WORD, unpacked_integers
from flagscope.checkpoint.scales import spread_scale
from flagscope.errors import CorruptFileError

_PACKED, _SCALE, _SHAPE = "_packed", "_scale", "_shape"
_ZERO, _GROUPS = "_zero_point", "_g_idx"
# Integers that never lie across two words; others are not packed alike by all versions.
_BITS = (2, 4, 8)


@dataclass(frozen=True)
class PackedIntegers(PackedWeight):
    """A weight of `pack-quantized`.

    Attributes
    ----------
    bits
        Of an integer.
    groups
        Groups of inputs that have a scale of their own.
    zero
        How zero points are stored: "" (none), "words" or "int8".
    ordered
        Whether the groups are runs of inputs, rather than listed in `weight_g_idx`.
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    groups: int
    zero: str
    ordered: bool

    @property
    def kind(self) -> str:
        """The format and its bits."""
        return f"compressed-tensors int{self.bits}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The words and what belongs to them."""
        more = ((_ZERO,) if self.zero else ()) + (() if self.ordered else (_GROUPS,))
        return tuple(self.name + end for end in (_PACKED, _SCALE, _SHAPE, *more))

    def values(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The weight, scale · (integer - zero): exact for scales of 16 bits."""
        rows, columns, kept = _spans(index)
        per = WORD // self.bits
        words = inner.read(
            self.name + _PACKED, (rows, slice(columns.start // per, -(-columns.stop // per)))
        )
        integers = unpacked_integers(words, self.bits, axis=1)
        integers = integers[:, columns.start % per :][:, : columns.stop - columns.start]
        groups = self._groups(inner, columns)
        values = integers - self._zeros(inner, rows)[:, groups]
        return (values.to(torch.float32) * self._scales(inner, rows)[:, groups])[kept]

    def step(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The scale of each weight."""
        rows, columns, kept = _spans(index)
        scales = self._scales(inner, rows).abs()[:, self._groups(inner, columns)]
        return scales.expand(rows.stop - rows.start, -1)[kept]

    def _groups(self, inner: Checkpoint, columns: slice) -> Tensor:
        """The group of each input."""
        if self.ordered:
            size = self.shape[1] // self.groups
            return torch.arange(columns.start, columns.stop) // size
        groups = inner.read(self.name + _GROUPS, (columns,)).to(torch.int64)
        if bool(((groups < 0) | (groups >= self.groups)).any()):
            raise _unfit(
                inner, self.name, f"{self.name + _GROUPS!r} names groups that are not there"
            )
        return groups

    def _scales(self, inner: Checkpoint, rows: slice) -> Tensor:
        """Scales of (outputs, groups), with one row where all outputs share them."""
        scales = inner.read(self.name + _SCALE).to(torch.float32).reshape(-1, self.groups)
        return scales if scales.shape[0] == 1 else scales[rows]

    def _zeros(self, inner: Checkpoint, rows: slice) -> Tensor:
        """Zero point of the integers as stored: raised by half their range."""
        middle = 2 ** (self.bits - 1)
        if not self.zero:
            return torch.full((1, self.groups), middle)
        if self.zero == "int8":
            zeros = inner.read(self.name + _ZERO).to(torch.int64).reshape(-1, self.groups) + middle
            return zeros if zeros.shape[0] == 1 else zeros[rows]
        per = WORD // self.bits
        words = inner.read(
            self.name + _ZERO, (slice(rows.start // per, -(-rows.stop // per)), slice(None))
        )
        zeros = unpacked_integers(words, self.bits, axis=0)
        return zeros[rows.start % per :][: rows.stop - rows.start]


@dataclass(frozen=True)
class OffsetIntegers(PackedWeight):
    """A weight of int8 that is counted from zero points."""

    name: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The format and its bits."""
        return "compressed-tensors int8"

    @property
    def parts(self) -> tuple[str, ...]:
        """The integers, their zero points and scales."""
        return self.name, self.name + _ZERO, self.name + _SCALE

    def values(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The weight, scale · (integer - zero): exact for scales of 16 bits."""
        whole = inner.read(self.name, index).to(torch.float32)
        return (whole - self._spread(inner, _ZERO, index)) * self._spread(inner, _SCALE, index)

    def step(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The scale of each weight."""
        scale = self._spread(inner, _SCALE, index).abs()
        return scale.expand(inner.read(self.name, index).shape)

    def _spread(self, inner: Checkpoint, part: str, index: Index) -> Tensor:
        name = self.name + part
        stored = inner.read(name).to(torch.float32)
        return spread_scale(
            stored, index, self.shape, tensor=self.name, name=name, config=inner.config
        )


def compressed_weights(checkpoint: Checkpoint) -> tuple[list[PackedWeight], set[str]]:
    """Weights of compressed-tensors, and names of zero points that are all zero.

    Raises
    ------
    CorruptFileError
        If the parts of one do not fit each other.
    """
    tensors = checkpoint.tensors
    weights: list[PackedWeight] = []
    dropped: set[str] = set()
    for stored, info in tensors.items():
        if stored.endswith("weight" + _PACKED):
            name = stored.removesuffix(_PACKED)
            if info.dtype == "int32" and name + _SCALE in tensors and name + _SHAPE in tensors:
                weights.append(_packed(checkpoint, name))
        elif stored.endswith("weight" + _ZERO):
            name = stored.removesuffix(_ZERO)
            if name not in tensors or name + _SCALE not in tensors:
                continue
            zeros = checkpoint.read(stored)
            if not bool(zeros.to(torch.float32).any()):
                dropped.add(stored)
            elif tensors[name].dtype == "int8" and zeros.dtype == torch.int8:
                weights.append(OffsetIntegers(name, tensors[name].shape))
    return weights, dropped


def _packed(checkpoint: Checkpoint, name: str) -> PackedIntegers:
    tensors = checkpoint.tensors
    words, scale = tensors[name + _PACKED].shape, tensors[name + _SCALE].shape
    info = tensors[name + _SHAPE]
    if len(words) != 2 or info.shape != (2,) or info.dtype not in ("int64", "int32"):
        raise _unfit(checkpoint, name, "weight_packed and weight_shape are not those of a matrix")
    rows, columns = checkpoint.read(name + _SHAPE).tolist()
    bits = [b for b in _BITS if columns > 0 and words == (rows, -(-columns * b // WORD))]
    told = _told_bits(checkpoint.config)
    if len(bits) > 1 and told in bits:
        bits = [told]
    if len(bits) != 1 or (told is not None and told not in bits):
        raise _unfit(
            checkpoint, name,
            f"weight_shape says ({rows}, {columns}), weight_packed has shape {words}, the config "
            f"says {told} bits; 2, 4 and 8 bits are supported",
        )  # fmt: skip
    groups = scale[-1] if len(scale) == 2 else 1
    fits = scale in ((), (1,), (1, 1), (rows, groups)) and groups > 0
    index, zeros = tensors.get(name + _GROUPS), tensors.get(name + _ZERO)
    ordered = index is None or groups == 1
    if index is not None and not ordered:
        ordered = bool((checkpoint.read(name + _GROUPS) == -1).all())  # llm-compressor's "none"
        fits &= index.shape == (columns,) and index.dtype in ("int32", "int64")
    zero = "" if zeros is None else "words" if zeros.dtype == "int32" else "int8"
    expected = {"": None, "words": (-(-rows * bits[0] // WORD), groups), "int8": scale}[zero]
    if zeros is not None:
        fits &= zeros.shape == expected and zeros.dtype in ("int32", "int8")
    if not fits or (ordered and columns % groups):
        raise _unfit(checkpoint, name, f"weight_scale has shape {scale}, weight_zero_point "
                     f"{None if zeros is None else zeros.shape}")  # fmt: skip
    return PackedIntegers(name, (rows, columns), bits[0], groups, zero, ordered)


def _told_bits(config: Mapping[str, Any] | None) -> int | None:
    """Bits of a weight, where the config says the same of all groups of layers."""
    settings = (config or {}).get("quantization_config")
    groups = settings.get("config_groups") if isinstance(settings, Mapping) else None
    found: set[Any] = set()
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            found.add(str(weights.get("num_bits")))
    return (
        int(only) if len(found) == 1 and re.fullmatch("[0-9]{1,2}", only := found.pop()) else None
    )


def _spans(index: Index) -> tuple[slice, slice, Index]:
    """Rows and columns that an index takes, and how to take it from those."""
    rows, columns = (e if isinstance(e, slice) else slice(e, e + 1) for e in index)
    return rows, columns, tuple(slice(None) if isinstance(e, slice) else 0 for e in index)


def _unfit(checkpoint: Checkpoint, name: str, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"the parts of the packed weight {name!r} of {checkpoint.source} do not fit each other: "
        f"{reason}.",
        hint="is quantization_config of the config that of this checkpoint?",
    )
