"""PyTorch's older format: pickles one after the other, and the storages behind them."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from flagscope.checkpoint.files.window import Window
from flagscope.checkpoint.pickle.machine import unpickled
from flagscope.checkpoint.pickle.records import Global, PickleError
from flagscope.checkpoint.pickle.stored_tensor import Storage
from flagscope.checkpoint.pickle.tensors import TENSOR_MEANINGS, storage_dtype

# A pickle of the number 0x1950a86a20f9469cfc6c comes first, of protocol 2 by default.
_NUMBER = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_STARTS = tuple(bytes((0x80, protocol)) + _NUMBER for protocol in (2, 3))
_FRAMED = re.compile(rb"\x80[\x04\x05]\x95.{8}" + re.escape(_NUMBER), re.DOTALL)
LONGEST_START = 24
_PROTOCOL = 1001
_COUNT = struct.Struct("<q")
_LONGEST_LINE = 2**16


def is_legacy(start: bytes) -> bool:
    """Whether a file that begins so is of the older format, or was cut short before that shows.

    Examples
    --------
    >>> is_legacy(b"\\x80\\x02\\x8a\\x0a"), is_legacy(b"\\x80\\x02}q\\x00")
    (True, False)
    """
    if _FRAMED.match(start):
        return True
    return any(start.startswith(known) or known.startswith(start) for known in _STARTS)


class _Lines(Window):
    """A part of a file whose lines are short: those of a pickle are names and numbers."""

    def readline(self, size: int | None = -1) -> bytes:
        """One line."""
        return super().readline(_LONGEST_LINE if size is None or size < 0 else size)


def legacy_saved(file: BinaryIO, begin: int, size: int, names: set[Global]) -> Any:
    """Object of a file of the older format, tensors as `StoredTensor`.

    Parameters
    ----------
    file
        The file, open.
    begin, size
        The part of it that was saved by torch.save.
    names
        Gets the functions and classes that are named.

    Raises
    ------
    PickleError
        If it is not whole.
    """
    stream = _Lines(file, begin, size)
    storages: dict[str, Storage] = {}
    views: list[tuple[Storage, Storage, int]] = []

    def next_object() -> Any:
        return unpickled(
            stream, meanings=TENSOR_MEANINGS, persistent=_persistent(storages, views), names=names
        )

    next_object()
    if next_object() != _PROTOCOL:
        raise PickleError("it is of another version of the format")
    system = next_object()
    little = system.get("little_endian") if isinstance(system, dict) else None
    if not isinstance(little, bool):
        raise PickleError("it does not tell its byte order")
    saved = next_object()
    keys = next_object()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleError("it does not tell the order of its storages")
    if len(set(keys)) < len(keys) or not set(keys) >= set(storages):
        raise PickleError("it does not hold each of its storages once")
    for key in keys:
        storage = storages.get(key)
        if storage is None or storage.dtype is None:
            raise PickleError("it holds a storage that no tensor uses")
        count = stream.read(_COUNT.size)
        if len(count) < _COUNT.size:
            raise PickleError("it ends before its storages")
        storage.begin, storage.swapped = begin + stream.tell(), not little
        (elements,) = _COUNT.unpack(count)
        if elements * storage.dtype.itemsize != storage.nbytes:
            raise PickleError(f"its storage {key[:20]!r} is of another size than it tells")
        if stream.tell() + storage.nbytes > size:
            raise PickleError(f"it ends in its storage {key[:20]!r}")
        stream.seek(storage.nbytes, 1)
    for view, root, offset in views:
        view.begin, view.swapped = root.begin + offset, root.swapped
    return saved


def _persistent(
    storages: dict[str, Storage], views: list[tuple[Storage, Storage, int]]
) -> Callable[[Any], Any]:
    def meant(told: Any) -> Any:
        if not isinstance(told, tuple) or not told:
            raise PickleError("it refers to an object outside of it that is no storage")
        if told[0] == "module" and len(told) == 4:
            return told[1]  # a class, with its source, which nobody needs
        if told[0] != "storage" or len(told) < 5:
            raise PickleError("it refers to an object outside of it that is no storage")
        what, key, _, count = told[1:5]
        if not isinstance(key, str) or not isinstance(count, int) or not 0 <= count < sys.maxsize:
            raise PickleError("a storage has no name or no size")
        dtype = storage_dtype(what)
        if dtype is None:
            raise PickleError("a storage has no data type")
        if key not in storages:
            storages[key] = Storage(0, count * dtype.itemsize, dtype, key)
        if len(told) < 6 or told[5] is None:
            return storages[key]
        # Before PyTorch 0.4 a storage could be a part of another.
        root, part = storages[key], told[5]
        whole = isinstance(part, tuple) and len(part) == 3
        if not whole or not all(isinstance(n, int) and 0 <= n <= count for n in part[1:]):
            raise PickleError("it holds part of a storage that is none")
        if part[1] + part[2] > count:
            raise PickleError("it holds part of a storage that lies outside of it")
        view = Storage(0, part[2] * dtype.itemsize, dtype, key)
        views.append((view, root, part[1] * dtype.itemsize))
        return view

    return meant
