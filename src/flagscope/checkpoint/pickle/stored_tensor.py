"""A tensor as a file of PyTorch describes it: a strided window on a storage somewhere in a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from flagscope.checkpoint.files.placed import Checksum, PlacedBytes
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.pickle.records import PickleError

_MOST_AXES = 64  # what PyTorch allows
_LARGEST = 2**63


@dataclass(slots=True, eq=False)
class Storage:
    """A run of bytes in a file, and what the type of its elements is.

    Attributes
    ----------
    begin, nbytes
        Where it lies. A file of the older format says `begin` behind the pickle alone, so that it
        is set later.
    dtype
        Type of its elements; None for one without a type, whose tensors have their own.
    key
        What the pickle calls it.
    swapped
        Whether the bytes of each element are in the order of the other kind of machine.
    data
        The bytes that `begin` counts in, where a pickle holds them; None where the file does.
    checksum
        That the archive has of it, where it has one.
    """

    begin: int
    nbytes: int
    dtype: torch.dtype | None
    key: str
    swapped: bool = False
    data: bytes | None = None
    checksum: Checksum | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Description of one tensor in a pickle.

    Attributes
    ----------
    storage
        Where its elements lie; None for a tensor without values (on the meta device).
    dtype, shape, stride, offset
        As PyTorch counts them, in elements.
    conjugated, negated
        Whether what is stored is the conjugate or the negative.
    """

    storage: Storage | None
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    conjugated: bool = False
    negated: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, repeated ones counted as often as they occur."""
        return prod(self.shape) * self.dtype.itemsize

    def read(self, placed: PlacedBytes, index: Index) -> Shaped[Tensor, "*shape"]:
        """The part that a resolved index selects. Only the span of bytes that holds it is read.

        Raises
        ------
        CorruptFileError
            If the file has changed, is shorter, or the storage has not its checksum.
        OSError
            If it cannot be read.
        """
        if self.storage is None:
            raise PickleError("a tensor without values")
        offset, shape, stride = self.offset, [], []
        for entry, step in zip(index, self.stride, strict=True):
            if isinstance(entry, slice):
                offset += entry.start * step
                shape.append(entry.stop - entry.start)
                stride.append(step)
            else:
                offset += entry * step
        size, count = self.dtype.itemsize, elements_spanned(shape, stride)
        begin = self.storage.begin + offset * size
        if not count:
            raw = torch.empty(0, dtype=torch.uint8)
        elif self.storage.data is None:
            raw = placed.read(begin, begin + count * size, self.storage.checksum)
        else:
            part = bytearray(memoryview(self.storage.data)[begin : begin + count * size])
            raw = torch.frombuffer(part, dtype=torch.uint8)
        if self.storage.swapped:
            raw = _swapped(raw, self.dtype)
        tensor = raw.view(self.dtype).as_strided(shape, stride)
        if self.conjugated:
            tensor = tensor.conj().resolve_conj()
        return -tensor if self.negated else tensor


def elements_spanned(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Elements from the first to the last, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def stored_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *, dtype: torch.dtype | None = None
) -> StoredTensor:
    """A tensor, its numbers checked against its storage.

    Raises
    ------
    PickleError
        If they are not counts, do not fit each other, or point outside of the storage.
    """
    if not isinstance(storage, Storage):
        raise PickleError("a tensor has no storage")
    shape, stride = _counts(shape), _counts(stride)
    if len(shape) != len(stride) or not _is_count(offset):
        raise PickleError("shape, strides and offset of a tensor do not fit each other")
    dtype = storage.dtype if dtype is None else dtype
    if dtype is None:
        raise PickleError("a tensor has no data type")
    if (offset + elements_spanned(shape, stride)) * dtype.itemsize > storage.nbytes:
        raise PickleError(
            f"a tensor of shape {shape} points outside of its storage of {storage.nbytes} bytes"
        )
    return StoredTensor(storage, dtype, shape, stride, offset)


def without_values(dtype: torch.dtype, shape: Any) -> StoredTensor:
    """A tensor on the meta device.

    Raises
    ------
    PickleError
        If its shape is none.
    """
    shape = _counts(shape)
    return StoredTensor(None, dtype, shape, (0,) * len(shape), 0)


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (tuple, list)) or len(values) > _MOST_AXES:
        raise PickleError("the shape or the strides of a tensor are none")
    if not all(map(_is_count, values)):
        raise PickleError("the shape or the strides of a tensor are no counts")
    return tuple(values)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST


def _swapped(raw: Tensor, dtype: torch.dtype) -> Tensor:
    """The bytes of each number in reverse; a complex one is two numbers."""
    size = dtype.itemsize // (2 if dtype.is_complex else 1)
    return raw.reshape(-1, size).flip(1).reshape(-1)
