"""The two sides of a pair, a few rows at a time: stored numbers, values, steps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from flagscope.checkpoint import Checkpoint, TensorInfo, widen
from flagscope.checkpoint.dtypes import torch_dtype
from flagscope.comparison.content.pairing import Pair
from flagscope.comparison.row_blocks import row_blocks, row_index

# Bytes that are read at once: above the 32 MiB up to which the C library keeps freed blocks. And
# entries that are worked on at once: a few temporaries of half a MiB, which stay in a core's cache.
_READ, _WORK = 48 << 20, 1 << 16
# Types whose numbers float32 holds.
_NARROW = (
    torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e4m3fnuz,
    torch.float8_e5m2, torch.float8_e5m2fnuz,
)  # fmt: skip
# Types whose values int64 holds.
_INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "bool"}
# Rows by which a transpose is tried.
_PROBE = 4


@dataclass(frozen=True)
class Side:
    """Rows of one side.

    Attributes
    ----------
    stored
        As stored.
    scale
        Factor of the stored numbers, without axes or of their shape; None for 1.
    step
        Spacing of the grid where the format's is its own; None for that of the stored type.
    values
        float64.
    """

    stored: Shaped[Tensor, "*rows"]
    scale: Float[Tensor, "*scale"] | None
    step: Float[Tensor, "*rows"] | None
    values: Float[Tensor, "*rows"]

    @cached_property
    def total(self) -> float:
        """Sum of the values; not finite where one of them is not."""
        return float(self.values.sum())

    @property
    def plain(self) -> bool:
        """Whether the stored numbers are the values, on the grid of their own type."""
        return self.scale is None and self.step is None

    @property
    def narrow(self) -> bool:
        """Whether float32 holds the values, as they are stored."""
        return self.plain and self.stored.dtype in _NARROW

    def first(self, count: int) -> Side:
        """The first rows."""
        scale = self.scale if self.scale is None or self.scale.ndim == 0 else self.scale[:count]
        step = None if self.step is None else self.step[:count]
        return Side(self.stored[:count], scale, step, self.values[:count])


@dataclass(frozen=True)
class Rows:
    """Rows start … of both sides."""

    start: int
    a: Side
    b: Side

    @property
    def finite(self) -> bool:
        """Whether all values of both sides are known to be; of huge ones it may be False."""
        return math.isfinite(self.a.total) and math.isfinite(self.b.total)

    def first(self, count: int) -> Rows:
        """The first of them."""
        return Rows(self.start, self.a.first(count), self.b.first(count))


def bits_of(tensor: Tensor) -> Tensor:
    """The bits as integers of the same width."""
    if not tensor.is_floating_point():
        return tensor
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(kinds[tensor.element_size()])


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bits."""
    return one.shape == other.shape and torch.equal(bits_of(one), bits_of(other))


def _same_or_none(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return same_tensor(one, other)


def comparable(info: TensorInfo) -> bool:
    """Whether float64 holds a type's values, so that they can be subtracted."""
    return info.dtype not in ("int64", "uint64", "complex64", "complex128")


def _entries_read(pair: Pair) -> int:
    kinds = (torch_dtype(pair.a.dtype), torch_dtype(pair.b.dtype))
    return _READ // max(1 if kind is None else kind.itemsize for kind in kinds)


def rows_of(pair: Pair, a: Checkpoint, b: Checkpoint) -> Iterator[Rows]:
    """All rows that both hold, in order; B turned where only its transpose fits.

    Raises
    ------
    FlagscopeError
        As `Checkpoint.read`.
    """
    shape = pair.common_shape
    if shape is None or 0 in shape:
        return
    for block in row_blocks(shape, _entries_read(pair)):
        one = _read(a, pair.a.name, block, turned=False)
        other = _read(b, pair.b.name, block, turned=pair.transposed)
        for part in row_blocks(tuple(one[0].shape), _WORK):
            yield Rows(block.start + part.start, _side(one, part), _side(other, part))
        del one, other  # before the next are read


def first_rows(pair: Pair, a: Checkpoint, b: Checkpoint) -> Rows | None:
    """The first few rows, B turned where the pair is; None without any."""
    shape = pair.common_shape
    if shape is None or 0 in shape:
        return None
    rows = slice(0, min(_PROBE, shape[0]))
    one = _read(a, pair.a.name, rows, turned=False)
    other = _read(b, pair.b.name, rows, turned=pair.transposed)
    whole = slice(0, rows.stop)
    return Rows(0, _side(one, whole), _side(other, whole))


_Read = tuple[Tensor, Tensor | None, Tensor | None]


def _read(checkpoint: Checkpoint, name: str, rows: slice, *, turned: bool) -> _Read:
    shape = checkpoint.tensors[name].shape
    index = (slice(None), rows) if turned else row_index(shape, rows)
    stored = checkpoint.read(name, index)
    scale = checkpoint.scale(name, index)
    step = checkpoint.step(name, index)
    if not shape:
        stored = stored.reshape(1)
    if turned:
        stored = stored.T
        step = None if step is None else step.T
        scale = scale.T if scale is not None and scale.ndim == 2 else scale
    return stored, scale, step


def _side(read: _Read, rows: slice) -> Side:
    stored, scale, step = read
    part = stored[rows]
    factor = scale if scale is None or scale.ndim == 0 else scale[rows]
    grid = None if step is None else step.reshape(stored.shape)[rows]
    return Side(part, factor, grid, widen(part, torch.float64, scale=factor))


def same_integers(pair: Pair, a: Checkpoint, b: Checkpoint) -> bool:
    """Whether both hold the same integers, perhaps of other widths."""
    scaled = pair.a.name in a.scaled or pair.b.name in b.scaled
    if scaled or pair.a.shape != pair.b.shape:
        return False
    if not {pair.a.dtype, pair.b.dtype} <= _INTEGERS or pair.a.quantised or pair.b.quantised:
        return False
    for block in row_blocks(pair.a.shape, _READ):
        one = _read(a, pair.a.name, block, turned=False)[0]
        other = _read(b, pair.b.name, block, turned=False)[0]
        if not torch.equal(one.to(torch.int64), other.to(torch.int64)):
            return False
    return True


def same_bits(pair: Pair, a: Checkpoint, b: Checkpoint) -> bool:
    """Whether both are equal in every bit, type and scale included.

    Reads up to the first block that is not.
    """
    return broken_in_equal(pair, a, b) is not None


def broken_in_equal(pair: Pair, a: Checkpoint, b: Checkpoint) -> int | None:
    """Entries that are NaN or infinite in both, where both are equal in every bit; else None.

    Reads up to the first block that differs. Of quantised tensors none is counted.
    """
    if pair.a.shape != pair.b.shape or pair.a.dtype != pair.b.dtype:
        return None
    if pair.a.quantised != pair.b.quantised:
        return None
    broken = 0
    for block in row_blocks(pair.a.shape, _entries_read(pair)):
        one = _read(a, pair.a.name, block, turned=False)
        other = _read(b, pair.b.name, block, turned=False)
        if not same_tensor(one[0], other[0]):
            return None
        if not all(_same_or_none(x, y) for x, y in zip(one[1:], other[1:], strict=True)):
            return None
        broken += _not_finite(one[0])
        del one, other  # before the next are read
    return broken


def _not_finite(stored: Tensor) -> int:
    """Entries that are NaN or infinite; a sum shows whether there may be any."""
    if not stored.is_floating_point():
        return 0
    if stored.element_size() == 1:
        stored = stored.float()
    if math.isfinite(float(stored.sum())):
        return 0
    return stored.numel() - int(torch.isfinite(stored).sum())
