"""bitsandbytes' 4-bit weights (NF4, FP4), dequantised by slices.

Two elements share a byte, the first in its upper half. Each half is an index into `quant_map`, and the
value found there is multiplied by its block's `absmax`. With double quantisation `absmax` holds bytes
itself: indices into `nested_quant_map`, times `nested_absmax` of their block, plus an offset.
"""  # noqa: E501

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.indexing import Index, covering_span
from flagscope.checkpoint.quantised.dequantised import PackedWeight, code_spacings
from flagscope.errors import CorruptFileError

_STATE = ".quant_state.bitsandbytes__"
_KINDS = ("nf4", "fp4")
# A description takes about 200 bytes.
_LONGEST_STATE = 2**14
_LARGEST = 2**48
_CODES = 16


@dataclass(frozen=True)
class FourBitWeight(PackedWeight):
    """A weight in 4 bits.

    Attributes
    ----------
    code
        "nf4" or "fp4".
    block
        Elements of the row-major order that share an absmax.
    nested_block
        Blocks that share a nested absmax; 0 where absmax is stored as it is.
    offset
        What is added to dequantised absmax.

    References
    ----------
    Dettmers et al., "QLoRA", arXiv 2305.14314, section 3; bitsandbytes/functional.py (QuantState)
    and backends/default/ops.py of bitsandbytes.
    """

    name: str
    shape: tuple[int, ...]
    code: str
    block: int
    nested_block: int
    offset: float

    @property
    def kind(self) -> str:
        """NF4 or FP4."""
        return self.code.upper()

    @property
    def parts(self) -> tuple[str, ...]:
        """The bytes, the scales and the description."""
        more = (".nested_absmax", ".nested_quant_map") if self.nested_block else ()
        ends = ("", ".absmax", ".quant_map", _STATE + self.code, *more)
        return tuple(self.name + end for end in ends)

    def values(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The weight; one rounding in float32."""
        return self._scaled(inner, index, inner.read(self.name + ".quant_map").to(torch.float32))

    def step(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The spacing that has the mean square of the rounding between unequal neighbours."""
        code = inner.read(self.name + ".quant_map").to(torch.float32)
        return self._scaled(inner, index, code_spacings(code)).abs()

    def _scaled(self, inner: Checkpoint, index: Index, table: Tensor) -> Tensor:
        start, stop, block, rest = covering_span(index, self.shape)
        if start == stop:
            return torch.zeros(block)[rest]
        values = table.index_select(0, self._indices(inner, start, stop))
        values *= self._absmax(inner, start, stop)
        return values.reshape(block)[rest]

    def _indices(self, inner: Checkpoint, start: int, stop: int) -> Tensor:
        """Indices of elements start … stop of the row-major order."""
        first, last = start // 2, -(-stop // 2)
        size = getattr(torch, inner.tensors[self.name].dtype).itemsize
        words = inner.read(self.name, (slice(first // size, -(-last // size)), 0))
        # The bytes may be stored as numbers of another type (`bnb_4bit_quant_storage`).
        packed: UInt8[Tensor, " bytes"] = words.contiguous().view(torch.uint8)
        packed = packed[first - first // size * size :][: last - first]
        pairs = torch.stack((packed >> 4, packed & 15), dim=-1).flatten()
        return pairs[start - 2 * first :][: stop - start].to(torch.int32)

    def _absmax(self, inner: Checkpoint, start: int, stop: int) -> Tensor:
        """The scale of each element."""
        first, last = start // self.block, (stop - 1) // self.block + 1
        absmax = inner.read(self.name + ".absmax", (slice(first, last),))
        if self.nested_block:
            table = inner.read(self.name + ".nested_quant_map").to(torch.float32)
            outer = (first // self.nested_block, (last - 1) // self.nested_block + 1)
            nested = inner.read(self.name + ".nested_absmax", (slice(*outer),)).to(torch.float32)
            spread = nested.repeat_interleave(self.nested_block)
            spread = spread[first - outer[0] * self.nested_block :][: last - first]
            absmax = table.index_select(0, absmax.to(torch.int32)) * spread + self.offset
        spread = absmax.to(torch.float32).repeat_interleave(self.block)
        return spread[start - first * self.block :][: stop - start]


def four_bit_weights(checkpoint: Checkpoint) -> list[PackedWeight]:
    """The weights that bitsandbytes stored in 4 bits, by what lies next to them.

    Raises
    ------
    CorruptFileError
        If the parts of one do not fit each other.
    """
    places = [
        (name.removesuffix(_STATE + code), code)
        for name in checkpoint.tensors
        for code in _KINDS
        if name.endswith(_STATE + code)
    ]
    needed = ("", ".absmax", ".quant_map")
    places = [
        place for place in places if all(place[0] + end in checkpoint.tensors for end in needed)
    ]
    names = [name + _STATE + code for name, code in places]
    return [_weight(checkpoint, *place, state)
            for place, state in zip(places, _states(checkpoint, names), strict=True)]  # fmt: skip


def _states(checkpoint: Checkpoint, names: Sequence[str]) -> list[bytes]:
    """The descriptions, in few requests where each costs time."""
    for name in names:
        info = checkpoint.tensors[name]
        if info.dtype != "uint8" or len(info.shape) != 1 or info.shape[0] > _LONGEST_STATE:
            raise _unfit(checkpoint, name, f"its description has type {info.dtype}, {info.shape}")
    read = checkpoint.runs([(name, 0, checkpoint.tensors[name].nbytes) for name in names])
    if read is not None:
        return read
    return [checkpoint.read(name).numpy().tobytes() for name in names]


def _weight(checkpoint: Checkpoint, name: str, code: str, state: bytes) -> FourBitWeight:
    try:
        told = json.loads(state)
    except (ValueError, RecursionError) as error:
        raise _unfit(checkpoint, name, "its description is not JSON") from error
    if not isinstance(told, dict):
        raise _unfit(checkpoint, name, "its description is not a JSON object")
    shape, block = told.get("shape"), told.get("blocksize", 0)
    if not isinstance(shape, list) or not shape or not all(map(_is_count, (*shape, block))):
        raise _unfit(checkpoint, name, "its shape or block size is not told")
    nested = "nested_blocksize" in told
    nested_block, offset = told.get("nested_blocksize", 0), told.get("nested_offset", 0.0)
    if nested and not (_is_count(nested_block) and _is_finite(offset)):
        raise _unfit(checkpoint, name, "its nested block size or offset is not told")
    weight = FourBitWeight(name, tuple(shape), code, block, nested_block, float(offset))
    _check_shapes(checkpoint, weight)
    return weight


def _check_shapes(checkpoint: Checkpoint, weight: FourBitWeight) -> None:
    """Refuse parts whose sizes do not follow from the shape."""
    missing = [part for part in weight.parts if part not in checkpoint.tensors]
    if missing:
        raise _unfit(checkpoint, weight.name, f"there is no {missing[0]!r}")
    infos = {part: checkpoint.tensors[part] for part in weight.parts}
    packed = infos[weight.name]
    size = getattr(getattr(torch, packed.dtype, None), "itemsize", 1)
    bytes_needed = -(-prod(weight.shape) // 2)
    blocks = -(-prod(weight.shape) // weight.block)
    expected: dict[str, tuple[int, ...]] = {
        weight.name: (-(-bytes_needed // size), 1),
        weight.name + ".absmax": (blocks,),
        weight.name + ".quant_map": (_CODES,),
    }
    if weight.nested_block:
        expected[weight.name + ".nested_absmax"] = (-(-blocks // weight.nested_block),)
        expected[weight.name + ".nested_quant_map"] = (256,)
    for part, shape in expected.items():
        if infos[part].shape != shape:
            raise _unfit(
                checkpoint, weight.name, f"{part!r} has shape {infos[part].shape}, not {shape}"
            )
    bytes_of_absmax = infos[weight.name + ".absmax"].dtype == "uint8"
    if bytes_of_absmax != bool(weight.nested_block):
        raise _unfit(checkpoint, weight.name, "its absmax is not of the type that it says")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < _LARGEST


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def _unfit(checkpoint: Checkpoint, name: str, reason: str) -> CorruptFileError:
    return CorruptFileError(
        f"the parts of the 4-bit weight {name!r} of {checkpoint.source} do not fit each other: "
        f"{reason}.",
        hint="fetch or save the checkpoint again.",
    )
