"""Reader of one safetensors file, here or behind a URL: the header, then what is asked for."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from flagscope.checkpoint.dtypes import stored_dtype
from flagscope.checkpoint.files.checks import checked_bytes, checked_start
from flagscope.checkpoint.files.disguises import SEEN
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.indexing import Index, covering_span
from flagscope.checkpoint.remote.bytes import RemoteBytes
from flagscope.checkpoint.remote.path import RemotePath
from flagscope.checkpoint.safetensors.header import (
    header_entries,
    header_length,
    header_metadata,
)

# Runs that were fetched for slices across them: such a tensor is asked for in two or three slices
# (queries, keys and values side by side) one after the other.
_KEPT = 2
_LARGEST_KEPT = 2**28


class SafetensorsFile(FileCheckpoint):
    """One .safetensors file, on this machine or behind a URL.

    A slice of the leading axis costs its own bytes alone, a slice of another axis the rows that it
    crosses. Offsets, shapes and coverage of the file are checked when it is opened. Behind a URL,
    opening takes a request for the size and one or two for the header, a tensor one for each 8 MiB.

    Raises
    ------
    MissingExtraError, SourceError
        If it cannot be reached, or its header is longer than the format allows.
    UnknownDtypeError
        If the header names a data type that the format does not have.
    """

    def __init__(
        self,
        path: Path | RemotePath,
        *,
        source: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._bytes, header = _opened(path)
        entries, self._begins = header_entries(header, self._bytes.size, shown=str(path))
        self._recent = _RecentRuns()
        super().__init__(path, entries, source=source, config=config, files=[self._bytes])

    def _read(self, name: str, index: Index) -> Tensor:
        info, begin = self._tensors[name], self._begins[name]
        dtype = stored_dtype(info.dtype, tensor=name)
        start, stop, block, rest = covering_span(index, info.shape)
        size = dtype.itemsize
        whole = all(
            part in (slice(None), slice(0, length))
            for part, length in zip(rest, block, strict=True)
        )
        with self._reading(name):
            run = self._run(begin + start * size, begin + stop * size, keep=not whole)
        return run.view(dtype).reshape(block)[rest]

    def _run(self, start: int, stop: int, *, keep: bool) -> Tensor:
        """Bytes start … stop; `keep` those that the next slice may ask for again."""
        if not (keep and self.is_remote):  # the system keeps what was read of a local file
            return self._bytes.read(start, stop)
        run = self._recent.pop(start, stop)
        if run is None:
            run = self._bytes.read(start, stop)
        self._recent.put(start, stop, run)
        return run

    @property
    def is_remote(self) -> bool:
        """Whether it lies behind a URL."""
        return isinstance(self._bytes, RemoteBytes)

    def runs(
        self, wanted: Sequence[tuple[str, int, int]], *, spare: float = math.inf
    ) -> list[bytes] | None:
        """Bytes start … stop of the data of tensors; None of a local file."""
        if not isinstance(self._bytes, RemoteBytes):
            return None
        places = ((self._begins[name], start, stop) for name, start, stop in wanted)
        return self._bytes.read_spans(
            [(at + start, at + stop) for at, start, stop in places], spare=spare
        )

    def _release(self) -> None:
        self._recent.clear()


class _RecentRuns:
    """The last few runs of bytes, by their place. Any number of threads may use it."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def pop(self, start: int, stop: int) -> Tensor | None:
        with self._lock:
            return self._runs.pop((start, stop), None)

    def put(self, start: int, stop: int, run: Tensor) -> None:
        if run.nbytes > _LARGEST_KEPT:
            return
        with self._lock:
            self._runs[start, stop] = run
            while len(self._runs) > _KEPT:
                self._runs.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._runs.clear()


def header_texts(path: Path | RemotePath) -> dict[str, str]:
    """What the header of a file holds next to its tensors (`__metadata__`).

    Raises
    ------
    CorruptFileError, SourceError
        As for opening it.
    """
    return header_metadata(_opened(path)[1], shown=str(path))


def _opened(path: Path | RemotePath) -> tuple[PlacedBytes | RemoteBytes, bytes]:
    """The bytes of a file by their place, and the JSON text of its header."""
    shown = str(path)
    if isinstance(path, Path):
        placed = PlacedBytes(path)
        stop = 8 + header_length(checked_start(path), placed.size, shown=shown)
        return placed, placed.read(8, stop).numpy().tobytes()
    far = RemoteBytes(path)
    path.check_ranges()
    start = path.read_range(0, min(far.size, path.first))
    checked_bytes(bytes(start[:SEEN]), shown)
    stop = 8 + header_length(bytes(start[:SEEN]), far.size, shown=shown)
    if stop > len(start):
        start += path.read_range(len(start), stop)
    return far, bytes(start[8:stop])
