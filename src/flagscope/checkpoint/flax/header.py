"""Positions of the arrays of a Flax msgpack file: the file is walked from header to header.

The msgpack library would take every array into memory to get behind it. Here their bytes are
stepped over, and every length is checked against the end of the file before it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import BinaryIO

import torch

from flagscope.checkpoint.dtypes import dtype_name

_DEEPEST = 100
_NDARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"
_LONGEST_NAME = 64


@dataclass(frozen=True)
class FlaxArray:
    """One array, in one run of bytes (start, stop) or, where it is large, in several."""

    shape: tuple[int, ...]
    dtype: str
    runs: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return sum(stop - start for start, stop in self.runs)


Leaf = FlaxArray | int | str | bool | None
Tree = dict[str, "Tree | Leaf"]
"""Names to arrays and further names; None for what is of no use here."""


class FlaxError(ValueError):
    """The file is not what it should be; says where."""


def flax_tree(file: BinaryIO, size: int) -> Tree:
    """The names and arrays of a file of `size` bytes.

    Raises
    ------
    FlaxError
        If it is not a whole msgpack file of names and arrays.

    References
    ----------
    The MessagePack specification, msgpack/msgpack, spec.md; flax/serialization.py.
    """
    walker = _Walker(file, size)
    found = walker.value(0)
    if not isinstance(found, dict):
        raise FlaxError("it holds no names")
    if walker.at != size:
        raise FlaxError(f"it goes on behind byte {walker.at}")
    return found


class _Walker:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.at = file, size, 0

    def value(self, depth: int) -> Tree | Leaf:
        if depth > _DEEPEST:
            raise FlaxError(f"it nests more than {_DEEPEST} levels deep")
        code = self._take(1)[0]
        if code <= 0x7F or code >= 0xE0:
            return code if code <= 0x7F else code - 256
        if code <= 0x8F or code in (0xDE, 0xDF):
            return self._map(code & 0x0F if code <= 0x8F else self._number(code - 0xDD), depth)
        if code <= 0x9F or code in (0xDC, 0xDD):
            for _ in range(code & 0x0F if code <= 0x9F else self._number(code - 0xDB)):
                self.value(depth + 1)
            return None
        if code <= 0xBF or code in (0xD9, 0xDA, 0xDB):
            return self._text(code & 0x1F if code <= 0xBF else self._number(code - 0xD9))
        if code in (0xC2, 0xC3):
            return code == 0xC3
        if code in (0xC4, 0xC5, 0xC6):
            self._skip(self._number(code - 0xC4))
        elif code in (0xC7, 0xC8, 0xC9):
            return self._extension(self._number(code - 0xC7))
        elif 0xD4 <= code <= 0xD8:
            return self._extension(1 << (code - 0xD4))
        elif 0xCC <= code <= 0xCF:
            return self._number(code - 0xCC)
        elif 0xD0 <= code <= 0xD3:
            self._skip(1 << (code - 0xD0))
        elif code in (0xCA, 0xCB):
            self._skip(4 if code == 0xCA else 8)
        elif code == 0xC1:
            raise FlaxError(f"byte {self.at - 1} begins nothing")
        return None

    def _map(self, count: int, depth: int) -> Tree | FlaxArray:
        found: Tree = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise FlaxError(f"a name at byte {self.at} is no text")
            if key in found:
                raise FlaxError(f"the name {key!r} occurs twice")
            found[key] = self.value(depth + 1)
        return _joined(found) if found.get(_CHUNKED) is True else found

    def _extension(self, length: int) -> FlaxArray | None:
        kind = self._take(1)[0]
        stop = self.at + length
        if stop > self._size:
            raise FlaxError(f"an array reaches beyond the end, byte {stop}")
        if kind not in (_NDARRAY, _SCALAR):
            self.at = stop
            return None
        array = self._array(stop)
        if self.at != stop:
            raise FlaxError(f"an array ends at byte {self.at}, not {stop}")
        return array

    def _array(self, stop: int) -> FlaxArray:
        """(shape, name of the type, bytes): of a scalar the shape is empty."""
        if self._take(1)[0] != 0x93:
            raise FlaxError(f"byte {self.at - 1} begins no array of shape, type and data")
        shape = self._shape()
        name = self.value(_DEEPEST)
        code = self._take(1)[0]
        if not isinstance(name, str) or len(name) > _LONGEST_NAME or not 0xC4 <= code <= 0xC6:
            raise FlaxError(f"an array before byte {self.at} has no type or no data")
        length = self._number(code - 0xC4)
        start = self.at
        if start + length > stop:
            raise FlaxError(f"an array reaches beyond its end, byte {stop}")
        self.at = start + length
        itemsize = _itemsize(name)
        if itemsize and math.prod(shape) * itemsize != length:
            raise FlaxError(f"an array of shape {shape} and type {name} has {length} bytes")
        return FlaxArray(shape, name, ((start, start + length),))

    def _shape(self) -> tuple[int, ...]:
        code = self._take(1)[0]
        if not 0x90 <= code <= 0x9F:
            raise FlaxError(f"byte {self.at - 1} begins no shape")
        sizes = [self.value(_DEEPEST) for _ in range(code & 0x0F)]
        if any(type(size) is not int or size < 0 for size in sizes):
            raise FlaxError(f"an array before byte {self.at} has no shape")
        return tuple(size for size in sizes if isinstance(size, int))

    def _number(self, power: int) -> int:
        """An unsigned number of 1, 2, 4 or 8 bytes."""
        return int.from_bytes(self._take(1 << power), "big")

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise FlaxError(f"a name before byte {self.at} is no UTF-8") from None

    def _skip(self, length: int) -> None:
        if self.at + length > self._size:
            raise FlaxError(f"it ends at byte {self._size}, in the middle of a value")
        self.at += length

    def _take(self, length: int) -> bytes:
        start = self.at
        self._skip(length)
        self._file.seek(start)
        taken = self._file.read(length)
        if len(taken) < length:
            raise FlaxError("it was cut short while it was being read")
        return taken


def _joined(found: Tree) -> FlaxArray:
    """A large array, which Flax writes in several flat ones."""
    sizes, chunks = found.get("shape"), found.get("chunks")
    if not isinstance(sizes, dict) or not isinstance(chunks, dict) or not chunks:
        raise FlaxError("an array in chunks has no shape or no chunks")
    shape = [sizes.get(str(axis)) for axis in range(len(sizes))]
    parts = [chunks.get(str(number)) for number in range(len(chunks))]
    arrays = [one for one in parts if isinstance(one, FlaxArray)]
    numbers = [size for size in shape if isinstance(size, int) and size >= 0]
    if len(arrays) < len(parts) or len(numbers) < len(shape):
        raise FlaxError("the shape or the chunks of an array are not numbered from 0")
    if len({one.dtype for one in arrays}) > 1 or any(len(one.shape) != 1 for one in arrays):
        raise FlaxError("the chunks of an array are of several types, or not flat")
    if sum(one.shape[0] for one in arrays) != math.prod(numbers):
        raise FlaxError(f"the chunks of an array are not of the size of its shape {numbers}")
    return FlaxArray(tuple(numbers), arrays[0].dtype, tuple(run for a in arrays for run in a.runs))


def _itemsize(name: str) -> int:
    """Bytes of an element; 0 for a type that PyTorch does not have."""
    dtype = getattr(torch, name, None)
    return dtype.itemsize if isinstance(dtype, torch.dtype) and dtype_name(dtype) == name else 0
