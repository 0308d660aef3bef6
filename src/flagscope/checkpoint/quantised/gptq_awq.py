"""GPTQ's and AWQ's weights: integers in words, with a scale and a zero for each group of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.quantised.dequantised import PackedWeight
from flagscope.checkpoint.quantised.packed_integers import WORD, unpacked_integers
from flagscope.errors import CorruptFileError, SourceError

Method = Literal["gptq", "awq"]
# Which of the eight neighbours the nibbles of a word hold, the lowest nibble first.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_GPTQ_BITS = (2, 4, 8)
_PACKED = "qweight"


@dataclass(frozen=True)
class GroupedWeight(PackedWeight):
    """A matrix of (outputs, inputs): scale · (integer - zero), exact in float32.

    Attributes
    ----------
    method, bits
        Who packed it, and how wide an integer is.
    offset
        What the stored zeros lack.

    References
    ----------
    Frantar et al., "GPTQ", arXiv 2210.17323; Lin et al., "AWQ", arXiv 2306.00978.
    """

    module: str
    shape: tuple[int, ...]
    method: Method
    bits: int
    offset: int

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the weight."""
        return f"{self.module}weight"

    @property
    def kind(self) -> str:
        """Who packed it, in how many bits."""
        return f"{self.method.upper()} {self.bits}-bit"

    @property
    def parts(self) -> tuple[str, ...]:
        """The integers, their zeros and scales, and the order of the groups."""
        return tuple(self.module + part for part in (_PACKED, "qzeros", "scales", "g_idx"))

    def values(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The weight."""
        order = _AWQ_ORDER if self.method == "awq" else None
        axis = 0 if self.method == "gptq" else 1
        packed, zeros = (inner.read(self.module + part) for part in (_PACKED, "qzeros"))
        integers = unpacked_integers(packed, self.bits, axis=axis, order=order)
        zeros = unpacked_integers(zeros, self.bits, axis=1, order=order)
        # The zero 0 was stored as -1, all bits set.
        zeros = (zeros + self.offset) & (2**self.bits - 1)
        groups = self._groups(inner)
        weight = (integers - zeros[groups]).to(torch.float32) * self._scales(inner)[groups]
        return weight.T[index]

    def step(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The scale."""
        return self._scales(inner).abs()[self._groups(inner)].T[index]

    def _scales(self, inner: Checkpoint) -> Float[Tensor, "groups outputs"]:
        return inner.read(self.module + "scales").to(torch.float32)

    def _groups(self, inner: Checkpoint) -> Int[Tensor, " inputs"]:
        """The group of each input."""
        inputs, order = self.shape[1], self.module + "g_idx"
        count = inner.tensors[self.module + "scales"].shape[0]
        if self.method == "awq" or order not in inner.tensors:
            return torch.arange(inputs) // (inputs // count)
        groups = inner.read(order).to(torch.int64)
        if bool(((groups < 0) | (groups >= count)).any()):
            raise CorruptFileError(
                f"tensor {order!r} of {inner.source} names groups that are not there.",
                hint="fetch or save the checkpoint again.",
            )
        return groups


def grouped_weights(checkpoint: Checkpoint) -> list[PackedWeight]:
    """The weights of a checkpoint that GPTQ or AWQ packed.

    Raises
    ------
    SourceError
        If the config does not say which quantiser it was, or names an unsupported variant.
    CorruptFileError
        If the parts of a weight do not fit each other.
    """
    return [
        _weight(checkpoint, name.removesuffix(_PACKED))
        for name in checkpoint.tensors
        if name.endswith(f".{_PACKED}")
    ]


def _weight(inner: Checkpoint, at: str) -> GroupedWeight:
    """Header and config entries of a packed weight."""
    told = (inner.config or {}).get("quantization_config")
    settings: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    method = settings.get("quant_method")
    if method not in ("gptq", "awq"):
        raise SourceError(
            f"{inner.source} holds packed weights ({at + 'qweight'!r}), and its config does not "
            f"say whether GPTQ or AWQ packed them (quant_method is {method!r}).",
            hint="give a config with quantization_config.quant_method and bits (--config F).",
        )
    shapes: list[tuple[int, ...]] = []
    for part in ("qweight", "qzeros", "scales"):
        info = inner.tensors.get(at + part)
        shapes.append(() if info is None else info.shape)
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise _unfit(inner, at, shapes)
    zeros = shapes[1]
    rows, columns, groups, outputs = *shapes[0], *shapes[2]
    variant = settings.get("checkpoint_format" if method == "gptq" else "version", method)
    known = {"gptq": 1, "gptq_v2": 0} if method == "gptq" else {"gemm": 0, "awq": 0}
    bits = settings.get("bits", 4)
    supported = bits in (_GPTQ_BITS if method == "gptq" else (4,))
    if str(variant).lower() not in known or not supported:
        raise SourceError(
            f"{inner.source} is packed by {method.upper()} with {bits} bits as {variant!r}, which "
            "is not supported.",
            hint="scan the original checkpoint, or dequantise this one and save it.",
        )
    per = WORD // bits
    inputs = rows * per if method == "gptq" else rows
    index = inner.tensors.get(at + "g_idx")
    wide = columns == outputs if method == "gptq" else columns * per == outputs
    fits = (
        wide
        and zeros == (groups, outputs // per)
        and outputs % per == 0
        and all(inner.tensors[at + part].dtype == "int32" for part in ("qweight", "qzeros"))
        and (index.shape == (inputs,) if index and method == "gptq" else inputs % groups == 0)
    )
    if not fits:
        raise _unfit(inner, at, shapes)
    return GroupedWeight(at, (outputs, inputs), method, bits, known[str(variant).lower()])


def _unfit(inner: Checkpoint, at: str, shapes: list[tuple[int, ...]]) -> CorruptFileError:
    return CorruptFileError(
        f"the parts of the packed weight {at!r} of {inner.source} do not fit each other: qweight, "
        f"qzeros and scales have shapes {', '.join(map(str, shapes))}.",
        hint="is quantization_config (quant_method, bits) of the config that of this checkpoint?",
    )
