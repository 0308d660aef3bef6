"""Reader of one safetensors file: the header first, then one tensor or slice at a time."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.dtypes import stored_dtype
from flagscope.checkpoint.files import DAMAGED, FileCheckpoint, checked_start
from flagscope.checkpoint.indexing import Index
from flagscope.checkpoint.placed import PlacedBytes
from flagscope.checkpoint.safetensors_header import DTYPES, check_limit, without_duplicates
from flagscope.checkpoint.spans import covering_span
from flagscope.errors import CorruptFileError, SourceError, UnknownDtypeError


class SafetensorsFile(FileCheckpoint):
    """One .safetensors file.

    A slice of the leading axis costs its own bytes alone, a slice of another axis the rows that it
    crosses. Offsets, shapes and coverage of the file are checked by the safetensors library when it
    is opened.

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
        check_limit(checked_start(path), path.stat().st_size, shown=os.fspath(path))
        self._bytes = PlacedBytes(path)
        _check(path)
        entries, self._begins = _entries(path)
        super().__init__(path, entries, source=source, config=config)

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


def _check(path: Path) -> None:
    """Have the library check the file."""
    try:
        with safe_open(os.fspath(path), framework="pt", device="cpu"):
            pass
    except SafetensorError as error:
        reason = str(error)
        unknown = re.search(r"unknown variant `([^`]*)`", reason)
        if unknown:
            raise UnknownDtypeError(
                f"{path} holds tensors of type {unknown[1]!r}, which the safetensors library "
                "does not know.",
                hint="update safetensors; if it is the newest, convert the checkpoint to float32 "
                "or bfloat16.",
            ) from error
        raise CorruptFileError(
            f"{path} is not a whole safetensors file: "
            f"{reason.removeprefix('Error while deserializing header: ')}.",
            hint=DAMAGED,
        ) from error
    except OSError as error:
        raise SourceError(
            f"cannot map {path}: {error}.", hint="copy it to a local disk and try again."
        ) from error


def _entries(path: Path) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    """Headers of all tensors, in the order of their data, and where in the file each begins.

    The library has validated the header by now, save that of a name that occurs twice it keeps
    the last without a word; which one was meant nobody can know.
    """

    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=without_duplicates)
    except ValueError as error:
        raise CorruptFileError(
            f"in the header of {path} {error}.",
            hint="save the checkpoint again under names that differ.",
        ) from error
    header.pop("__metadata__", None)
    entries, begins, file_name = {}, {}, str(path)
    for name, fields in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = fields["data_offsets"]
        code = str(fields["dtype"])
        dtype, _ = DTYPES.get(code, (code, 0))
        entries[name] = TensorInfo(name, tuple(fields["shape"]), dtype, stop - start, file_name)
        begins[name] = 8 + length + start
    return entries, begins
