"""Weights that a quantiser packed: unpacked exactly where the format is known, else refused."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.coded import coded_weights
from flagscope.checkpoint.compressed import compressed_weights
from flagscope.checkpoint.dequantised import DequantisedCheckpoint
from flagscope.checkpoint.four_bit import four_bit_weights
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.integers import WORD, unpacked_integers
from flagscope.errors import CorruptFileError, SourceError

Method = Literal["gptq", "awq"]
# Which of the eight neighbours the nibbles of a word hold, the lowest nibble first.
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_GPTQ_BITS = (2, 4, 8)
# Ends of names by which a packed format is known, and what it is.
_REFUSED = (
    (".quant_state.bitsandbytes__nf4", "bitsandbytes in 4 bits (NF4)"),
    (".quant_state.bitsandbytes__fp4", "bitsandbytes in 4 bits (FP4)"),
    (".weight.absmax", "bitsandbytes in 4 bits"),
    (".weight_packed", "compressed-tensors, packed"),
    (".weight_zero_point", "compressed-tensors with zero points"),
    (".weight_scale_2", "NVFP4"),
    ("proj_blocks", "MXFP4, packed"),
    (".W_q", "HQQ"),
    (".weight._data", "Quanto"),
    ("._weight_qdata", "torchao"),
    (".codebooks", "AQLM"),
    (".Qidxs", "QuIP#"),
)
_REFUSED_ENDINGS = tuple(ending for ending, _ in _REFUSED)


def unpacked(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, its packed weights given as the numbers that they stand for.

    Parameters
    ----------
    checkpoint
        Any; the result closes it.

    Returns
    -------
    Checkpoint
        The same one where nothing is packed.

    Raises
    ------
    SourceError
        If the weights are packed by a quantiser that is not supported, or it cannot be told which.
    CorruptFileError
        If the parts of a packed weight do not fit each other.
    """
    integers, dropped = compressed_weights(checkpoint)
    weights = [*four_bit_weights(checkpoint), *integers, *coded_weights(checkpoint)]
    if weights or dropped:
        checkpoint = DequantisedCheckpoint(checkpoint, weights, dropped)
    suspects = [name for name in checkpoint.tensors if name.endswith(_REFUSED_ENDINGS)]
    for ending, what in _REFUSED:
        name = next((name for name in suspects if name.endswith(ending)), None)
        if name is not None:
            raise SourceError(
                f"{checkpoint.source} is quantised by {what}, as {name!r} tells, which is not "
                "supported.",
                hint="scan the original checkpoint, or dequantise this one (in transformers: "
                "model.dequantize()) and save it.",
            )
    modules = [name.removesuffix("qweight") for name in checkpoint.tensors
               if name.endswith(".qweight")]  # fmt: skip
    return PackedCheckpoint(checkpoint, modules) if modules else checkpoint


@dataclass(frozen=True)
class _Packed:
    """A matrix of (inputs, outputs) in groups of inputs that share scale and zero."""

    at: str
    method: Method
    bits: int
    inputs: int
    outputs: int
    offset: int  # what the stored zeros lack


class PackedCheckpoint(Checkpoint):
    """Weights that GPTQ or AWQ packed, as `<module>.weight` of shape (outputs, inputs), float32.

    Each is scale · (integer - zero), exact in float32; `step` is the scale. The packed parts are
    not listed.

    Parameters
    ----------
    inner
        The checkpoint as stored. It is closed with this one.
    modules
        Names of the packed modules, with the dot behind.

    Raises
    ------
    SourceError
        If the config does not say which quantiser it was, or names an unsupported variant.
    CorruptFileError
        If the parts of a weight do not fit each other.

    References
    ----------
    Frantar et al., "GPTQ", arXiv 2210.17323; Lin et al., "AWQ", arXiv 2306.00978.
    """

    def __init__(self, inner: Checkpoint, modules: list[str]) -> None:
        self._inner, self._modules = inner, modules
        found = [_packed(inner, module) for module in modules]
        self._packed = {one.at + "weight": one for one in found}
        parts = {at + part for at in modules for part in ("qweight", "qzeros", "scales", "g_idx")}
        entries = {name: info for name, info in inner.tensors.items() if name not in parts}
        for name, one in self._packed.items():
            if name in entries:
                raise CorruptFileError(
                    f"{inner.source} holds {name!r} both packed and as it is.",
                    hint="fetch or save the checkpoint again.",
                )
            shape = (one.outputs, one.inputs)
            file = inner.tensors[one.at + "qweight"].file
            kind = f"{one.method.upper()} {one.bits}-bit"
            entries[name] = TensorInfo(name, shape, "float32", 4 * prod(shape), file, kind)
        notes = (
            *inner.header_notes,
            f"dequantised when read: {len(found)} {found[0].method.upper()}",
        )
        super().__init__(inner.source, entries, config=inner.config, notes=notes)
        self.group, self.stored_config = inner.group, inner.stored_config

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedCheckpoint, (self._inner, self._modules)

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """States of the files as stored."""
        return self._inner.stamps

    @property
    def buffers(self) -> frozenset[str] | None:
        """Those of the checkpoint as stored; what is unpacked is none."""
        known = self._inner.buffers
        return None if known is None else known - set(self._packed)

    def memory_stored(self, stored: str) -> Hashable | None:
        """Where a tensor lies, by the file's name."""
        return None if stored in self._packed else self._inner.memory(stored)

    def _read(self, stored: str, index: Index) -> Tensor:
        one = self._packed.get(stored)
        if one is None:
            return self._inner.read(stored, index)
        order = _AWQ_ORDER if one.method == "awq" else None
        axis = 0 if one.method == "gptq" else 1
        integers = unpacked_integers(self._part(one, "qweight"), one.bits, axis=axis, order=order)
        zeros = unpacked_integers(self._part(one, "qzeros"), one.bits, axis=1, order=order)
        # The zero 0 was stored as -1, all bits set.
        zeros = (zeros + one.offset) & (2**one.bits - 1)
        groups = self._groups(one)
        scales = self._part(one, "scales").to(torch.float32)
        weight = (integers - zeros[groups]).to(torch.float32) * scales[groups]
        return weight.T[index]

    def _step(self, name: str, index: Index) -> Tensor | None:
        one = self._packed.get(name)
        if one is None:
            return self._inner.step(name, index)
        scales = self._part(one, "scales").to(torch.float32).abs()
        return scales[self._groups(one)].T[index]

    def _part(self, one: _Packed, part: str) -> Tensor:
        return self._inner.read(one.at + part)

    def _groups(self, one: _Packed) -> Int[Tensor, " inputs"]:
        """The group of each input."""
        count = self._inner.tensors[one.at + "scales"].shape[0]
        if one.method == "awq" or one.at + "g_idx" not in self._inner.tensors:
            return torch.arange(one.inputs) // (one.inputs // count)
        groups = self._part(one, "g_idx").to(torch.int64)
        if bool(((groups < 0) | (groups >= count)).any()):
            raise CorruptFileError(
                f"tensor {one.at + 'g_idx'!r} of {self.source} names groups that are not there.",
                hint="fetch or save the checkpoint again.",
            )
        return groups

    def _release(self) -> None:
        self._inner.close()


def _packed(inner: Checkpoint, at: str) -> _Packed:
    """What the header and the config say of a packed weight."""
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
    return _Packed(at, method, bits, inputs, outputs, known[str(variant).lower()])


def _unfit(inner: Checkpoint, at: str, shapes: list[tuple[int, ...]]) -> CorruptFileError:
    return CorruptFileError(
        f"the parts of the packed weight {at!r} of {inner.source} do not fit each other: qweight, "
        f"qzeros and scales have shapes {', '.join(map(str, shapes))}.",
        hint="is quantization_config (quant_method, bits) of the config that of this checkpoint?",
    )
