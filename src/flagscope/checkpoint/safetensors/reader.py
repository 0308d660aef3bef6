"""Reader of one safetensors file: the header first, then one tensor or slice at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from flagscope.checkpoint.dtypes import stored_dtype
from flagscope.checkpoint.files.checks import DAMAGED, checked_start
from flagscope.checkpoint.files.placed import PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.indexing import Index, covering_span
from flagscope.checkpoint.safetensors.header import header_entries, header_length
from flagscope.errors import CorruptFileError


class SafetensorsFile(FileCheckpoint):
    """One .safetensors file.

    A slice of the leading axis costs its own bytes alone, a slice of another axis the rows that it
    crosses. Offsets, shapes and coverage of the file are checked when it is opened.

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
    MissingFileError
        If there is no such file.
    CorruptFileError
        If it is empty, truncated, or its header is not consistent with the file.
    UnknownDtypeError
        If the header names a data type that the format does not have.
    SourceError
        If the header is longer than the format allows.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        self._bytes = PlacedBytes(path)
        start, shown = checked_start(path), os.fspath(path)
        stop = 8 + header_length(start, self._bytes.size, shown=shown)
        header = self._bytes.read(8, stop).numpy().tobytes()
        entries, self._begins = header_entries(header, self._bytes.size, shown=shown)
        super().__init__(path, entries, source=source, config=config, files=[self._bytes])

    def _read(self, stored: str, index: Index) -> Tensor:
        info, begin = self._entries[stored], self._begins[stored]
        dtype = stored_dtype(info.dtype, tensor=stored)
        start, stop, block, rest = covering_span(index, info.shape)
        size = dtype.itemsize
        try:
            run = self._bytes.read(begin + start * size, begin + stop * size)
        except OSError as error:
            raise CorruptFileError(
                f"cannot read tensor {stored!r} of {self._path}: {error}.", hint=DAMAGED
            ) from error
        return run.view(dtype).reshape(block)[rest]
