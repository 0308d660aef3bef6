"""One tensor that torch.save wrote at a place inside a file: its layout, then slices of it."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.files import DAMAGED
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.inert_pickle import Record, inert_value
from flagscope.checkpoint.placed import PlacedBytes
from flagscope.checkpoint.spans import covering_span
from flagscope.errors import CorruptFileError

_REBUILD = "torch._utils._rebuild_tensor_v2"
# The types that came after the storage classes.
_REBUILD_TYPED = "torch._utils._rebuild_tensor_v3"
_PARAMETER = "torch._utils._rebuild_parameter"
_UNTYPED = "torch.storage.UntypedStorage"
_STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.ComplexFloatStorage": torch.complex64,
}
_CALLS = {*(_REBUILD, _REBUILD_TYPED, _PARAMETER, _UNTYPED), "collections.OrderedDict"}
# The description of one tensor takes a few hundred bytes.
_LONGEST_PICKLE = 2**16
# The fixed part of a member's header inside the archive (PKWARE APPNOTE 4.3.7).
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True, slots=True)
class Piece:
    """Where the elements of a stored tensor lie.

    Attributes
    ----------
    dtype, shape, strides
        As torch names them; strides count elements.
    start, stop
        Bytes of the tensor's first element and of the storage's end in the file.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    stop: int

    def read(self, data: PlacedBytes, index: Index) -> Tensor:
        """A slice; of a dense tensor only the rows that it crosses are read."""
        size = self.dtype.itemsize
        order = sorted(range(len(self.shape)), key=lambda axis: -self.strides[axis])
        shape = tuple(self.shape[axis] for axis in order)
        dense = all(
            self.strides[axis] == prod(shape[place + 1 :])
            for place, axis in enumerate(order) if self.shape[axis] > 1
        )  # fmt: skip
        if not dense:
            whole = data.read(self.start, self.start + self._reach() * size)
            return whole.view(self.dtype).as_strided(self.shape, self.strides)[index]
        start, stop, block, rest = covering_span(
            tuple(_as_slice(index[axis]) for axis in order), shape
        )
        run = data.read(self.start + start * size, self.start + stop * size)
        part = run.view(self.dtype).reshape(block)[rest]
        part = part.permute([order.index(axis) for axis in range(len(order))])
        return part[tuple(0 if isinstance(entry, int) else slice(None) for entry in index)]

    def _reach(self) -> int:
        """Elements from the first to the last of the tensor in its storage."""
        return 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))

    def fits(self) -> bool:
        """Whether all elements lie in the storage, and none stands for many."""
        room = (self.stop - self.start) // self.dtype.itemsize
        return self.stop >= self.start and prod(self.shape) <= room and self._reach() <= room


def _as_slice(entry: slice | int) -> slice:
    return slice(entry, entry + 1) if isinstance(entry, int) else entry


def located_piece(path: Path, start: int, length: int, *, tensor: str) -> Piece:
    """Layout of a tensor that bytes `start` … `start + length` of a file hold, none of them run.

    Raises
    ------
    CorruptFileError
        If they are no file of torch.save that holds one dense tensor, or it does not fit in them.
    UnsafeFileError
        If they ask for more than a tensor's own functions.
    """
    shown = f"the part of {path} that holds {tensor!r}"
    try:
        with path.open("rb") as raw, zipfile.ZipFile(_Window(raw, start, length)) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            description = members["data.pkl"]
            if description.file_size > _LONGEST_PICKLE:
                raise ValueError(f"its description has {description.file_size} bytes")
            pickled = archive.read(description)
            order = members.get("byteorder")
            if order is not None and order.file_size < 16 and archive.read(order) != b"little":
                raise ValueError("its bytes are in the order of another kind of machine")
            value = inert_value(pickled, allowed=_is_allowed, source=shown, persistent=True)
            dtype, key, offset, shape, strides = _layout(value)
            storage = members[f"data/{key}"]
            if storage.compress_type != zipfile.ZIP_STORED:
                raise ValueError("its data are compressed")
            begin = _data_begin(raw, start + storage.header_offset)
        stop = begin + storage.file_size
        piece = Piece(dtype, shape, strides, begin + offset * dtype.itemsize, stop)
        if stop > start + length or not piece.fits():
            raise ValueError("its elements reach beyond its data")
    except KeyError as error:
        raise CorruptFileError(f"{shown} lacks {error}.", hint=DAMAGED) from error
    except (zipfile.BadZipFile, OSError, ValueError, TypeError, IndexError, EOFError, struct.error,
            NotImplementedError, RuntimeError) as error:  # fmt: skip
        raise CorruptFileError(
            f"{shown} is not a whole tensor: {str(error)[:200]}.", hint=DAMAGED
        ) from error
    return piece


def _data_begin(raw: io.BufferedReader, header: int) -> int:
    """Where a member's data begin, by the local header in front of them."""
    raw.seek(header)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    if magic != _LOCAL_MAGIC:
        raise ValueError("no header is in front of its data")
    return header + _LOCAL_HEADER.size + name_length + extra_length


def _is_allowed(name: str) -> bool:
    return name in _CALLS or name in _STORAGES or _dtype(name) is not None


def _dtype(name: str) -> torch.dtype | None:
    module, _, attribute = name.rpartition(".")
    dtype = getattr(torch, attribute, None) if module == "torch" else None
    return dtype if isinstance(dtype, torch.dtype) else None


def _layout(value: Any) -> tuple[torch.dtype, str, int, tuple[int, ...], tuple[int, ...]]:
    """Type, storage, first element, shape and strides of a tensor that is to be rebuilt."""
    if isinstance(value, Record) and value.kind == _PARAMETER and value.arguments:
        value = value.arguments[0]
    if not isinstance(value, Record) or value.kind not in (_REBUILD, _REBUILD_TYPED):
        raise ValueError("it holds something else than a dense tensor")
    arguments: tuple[Any, ...] = value.arguments or ()
    storage, offset, shape, strides = arguments[:4]
    reference = storage.arguments[0] if isinstance(storage, Record) and storage.arguments else None
    if not isinstance(reference, tuple) or len(reference) != 5 or reference[0] != "storage":
        raise ValueError("its storage is not told")
    kind, key = reference[1], reference[2]
    if not isinstance(kind, Record) or not isinstance(key, str):
        raise ValueError("its storage is not told")
    dtype = _STORAGES.get(kind.kind)
    if value.kind == _REBUILD_TYPED:
        dtype = _dtype(arguments[6].kind) if isinstance(arguments[6], Record) else None
    elif arguments[6:] and arguments[6]:
        raise ValueError("its elements are conjugated or negated when read")
    counts = (offset, *shape, *strides)
    if dtype is None or len(shape) != len(strides):
        raise ValueError("its type or shape is not told")
    if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
        raise ValueError("its shape is not one of counts")
    return dtype, key, offset, tuple(shape), tuple(strides)


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, raw: io.BufferedReader, start: int, length: int) -> None:
        self._raw, self._start, self._length, self._place = raw, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise ValueError("a place in front of its beginning")
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(self._length - self._place, 0)
        self._raw.seek(self._start + self._place)
        data = self._raw.read(left if size is None or size < 0 else min(size, left))
        self._place += len(data)
        return data
