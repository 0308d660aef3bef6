"""Reader of a safetensors file behind a URL: the header, then the bytes of what is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.files.checks import checked_bytes
from flagscope.checkpoint.files.disguises import SEEN
from flagscope.checkpoint.indexing import Index, covering_span
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.safetensors.header import header_entries, header_length

# Runs that were read for slices across them: such a tensor is asked for in two or three slices
# (queries, keys and values side by side) one after the other.
_KEPT = 2
_LARGEST_KEPT = 2**28


class RemoteSafetensors(Checkpoint):
    """One .safetensors file behind a URL.

    Opening takes a request for the size and one or two for the header; a tensor or a slice of
    leading rows takes one for each 8 MiB. Nothing else is fetched.

    Parameters
    ----------
    path
        The file.
    source
        What the user named, if not the path.
    config
        The model's configuration.

    Raises
    ------
    MissingFileError, MissingExtraError, SourceError
        If there is no such file, or it cannot be reached.
    CorruptFileError
        If it is empty, truncated, or its header is not consistent with its size.
    UnknownDtypeError
        If the header names a data type that the format does not have.
    """

    def __init__(
        self, path: RemotePath, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        shown, size = str(path), path.size
        path.check_ranges()
        start = bytes(path.read_range(0, min(size, path.first)))
        checked_bytes(start[:SEEN], shown)
        stop = 8 + header_length(start, size, shown=shown)
        if stop > len(start):
            start += path.read_range(len(start), stop)
        entries, self._begins = header_entries(start[8:stop], size, shown=shown)
        self._path = path
        self._recent: OrderedDict[tuple[str, int, int], Tensor] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(source or shown, entries, config=config)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._path, self._source, self._config)

    def _read(self, stored: str, index: Index) -> Tensor:
        info = self._entries[stored]
        start, stop, block, rest = covering_span(index, info.shape)
        if all(part == slice(None) or part == slice(0, size)
               for part, size in zip(rest, block, strict=True)):  # fmt: skip
            return self._run(stored, start, stop).reshape(block)
        key = (stored, start, stop)
        with self._lock:
            run = self._recent.pop(key, None)
        if run is None:
            run = self._run(stored, start, stop)
        if run.nbytes > _LARGEST_KEPT:
            return run.reshape(block)[rest]
        with self._lock:
            self._recent[key] = run
            while len(self._recent) > _KEPT:
                self._recent.popitem(last=False)
        return run.reshape(block)[rest]

    def _run(self, stored: str, start: int, stop: int) -> Tensor:
        """Elements start … stop of the row-major order."""
        dtype = getattr(torch, self._entries[stored].dtype)
        if start == stop:
            return torch.zeros(0, dtype=dtype)
        begin, size = self._begins[stored], dtype.itemsize
        data = self._path.read_range(begin + start * size, begin + stop * size)
        self._path.check_unchanged()
        return torch.frombuffer(data, dtype=dtype)

    @property
    def stamps(self) -> Mapping[str, tuple[str, str]]:
        """State of the file when it was opened."""
        return {str(self._path): (self._path.name, self._path.stamp)}

    @property
    def is_remote(self) -> bool:
        """Always."""
        return True

    def read_runs(self, runs: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Bytes start … stop of the data of tensors, by the file's names."""
        places = ((self._begins[name], start, stop) for name, start, stop in runs)
        parts = self._path.read_spans([(at + start, at + stop) for at, start, stop in places])
        self._path.check_unchanged()
        return parts

    def _release(self) -> None:
        self._recent.clear()


def _reopened(path: RemotePath, source: str, config: dict[str, Any] | None) -> RemoteSafetensors:
    return RemoteSafetensors(path, source=source, config=config)
