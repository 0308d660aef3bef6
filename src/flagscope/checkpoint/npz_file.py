"""Reader of NumPy archives: headers first, arrays when asked for, objects never."""

from __future__ import annotations

import lzma
import math
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files import DAMAGED, FileCheckpoint, checked_start
from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError, UnsafeFileError

# Weights hardly shrink; zeros shrink about 1000-fold, the most that deflate can do. A member that
# inflates like zeros to more than this is a bomb, or not worth scanning: with its widened copy it
# would take half a gigabyte.
_BOMB_BYTES = 2**27
_BOMB_RATIO = 200
_MOST_AXES = 64  # what NumPy allows
# The fixed part of a member's header inside the archive, and where the lengths of its variable
# parts stand in it (PKWARE APPNOTE 4.3.7).
_LOCAL_HEADER = struct.Struct("<26xHH")
_BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, ValueError, EOFError,
           struct.error)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    """One array: where its data lie, and how."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int | None  # of the data in the file; None if they are compressed

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile(FileCheckpoint):
    """One archive that numpy.savez or numpy.savez_compressed wrote.

    Of an uncompressed array only the slice asked for is read; a compressed one is unpacked whole,
    and the last is kept for the next slice. Arrays of Python objects are pickles: they are passed
    over with a note and never loaded.

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
    UnsafeFileError
        If it holds nothing but pickled objects.
    CorruptFileError
        If it is empty, truncated, inconsistent or no NumPy archive.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        checked_start(path)
        members, passed_over = _members(path)
        self._members = {member.name: member for member in members}
        self._unpacked: tuple[str, np.ndarray[Any, Any]] | None = None
        entries = {
            member.name: TensorInfo(
                member.name, member.shape, member.dtype.name, member.nbytes, os.fspath(path)
            )
            for member in members
        }
        notes = []
        if passed_over:
            notes.append(
                f"passed over {len(passed_over)} members of {path} that are not arrays of numbers: "
                + ", ".join(passed_over[:6])
            )
        super().__init__(path, entries, source=source, config=config, notes=notes)

    def _read(self, stored: str, index: Index) -> Tensor:
        member = self._members[stored]
        try:
            whole = self._mapped(member) if member.offset is not None else self._inflated(member)
        except _BROKEN as error:
            raise CorruptFileError(
                f"cannot read array {stored!r} of {self._path}: {error}.", hint=DAMAGED
            ) from error
        # A copy, since data in the archive are neither aligned nor always in this machine's order.
        native = member.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(whole[index], dtype=native, order="C", copy=True))

    def _mapped(self, member: _Member) -> np.ndarray[Any, Any]:
        order = "F" if member.fortran_order else "C"
        if member.nbytes == 0:  # nothing to map
            return np.empty(member.shape, member.dtype, order)
        return np.memmap(
            self._path, member.dtype, "r", member.offset or 0, member.shape or (1,), order
        ).reshape(member.shape)

    def _inflated(self, member: _Member) -> np.ndarray[Any, Any]:
        last = self._unpacked
        if last is not None and last[0] == member.name:
            return last[1]
        with zipfile.ZipFile(self._path) as archive, archive.open(member.name + ".npy") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
        self._unpacked = (member.name, array)
        return array

    def _release(self) -> None:
        self._unpacked = None


def _members(path: Path) -> tuple[list[_Member], list[str]]:
    """Arrays of numbers in an archive, and names of what else is there."""
    found: dict[str, _Member] = {}
    passed_over: list[str] = []
    pickled = 0
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    passed_over.append(info.filename)
                    continue
                with archive.open(info) as file:
                    member, header_length = _header(file, info.filename.removesuffix(".npy"))
                if member.dtype.hasobject or member.dtype.kind in "USMm" or member.dtype.fields:
                    pickled += member.dtype.hasobject
                    passed_over.append(member.name)
                    continue
                if member.name in found:
                    raise CorruptFileError(
                        f"{path} has two arrays named {member.name!r}.",
                        hint="save the archive again under names that differ.",
                    )
                found[member.name] = _located(path, raw, info, member, header_length)
    except _BROKEN as error:
        raise CorruptFileError(
            f"{path} is not a whole NumPy archive: {error}.", hint=DAMAGED
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or packed in another way
        raise CorruptFileError(
            f"{path} is not an archive that NumPy writes: {error}.",
            hint="save it again with numpy.savez.",
        ) from error
    if pickled and not found:
        raise UnsafeFileError(
            f"{path} holds only pickled Python objects, which are never loaded.",
            hint="save the weights as plain arrays with numpy.savez.",
        )
    return list(found.values()), passed_over


def _header(file: IO[bytes], name: str) -> tuple[_Member, int]:
    version = np.lib.format.read_magic(file)
    # Version 3.0 differs from 2.0 only for names of fields, and those arrays are passed over.
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
        (3, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"array {name!r} has the unknown format version {version}")
    try:
        shape, fortran_order, dtype = read(file)
    except Exception as error:
        # NumPy parses the header as Python's own literals, and lets any error of that through.
        first = str(error).partition("\n")[0]
        raise ValueError(f"the header of array {name!r} cannot be read: {first}") from error
    if len(shape) > _MOST_AXES or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"array {name!r} has the shape {str(shape)[:100]}")
    return _Member(name, tuple(shape), dtype, fortran_order, None), file.tell()


def _located(
    path: Path, raw: IO[bytes], info: zipfile.ZipInfo, member: _Member, header_length: int
) -> _Member:
    """The member with the place of its data, once its sizes agree with the archive's."""
    if header_length + member.nbytes != info.file_size:
        raise CorruptFileError(
            f"array {member.name!r} of {path}: its header says {member.nbytes} bytes of data, "
            f"the archive {info.file_size - header_length}.",
            hint=DAMAGED,
        )
    if info.compress_type != zipfile.ZIP_STORED:
        if member.nbytes > _BOMB_BYTES and member.nbytes > _BOMB_RATIO * info.compress_size:
            raise CorruptFileError(
                f"array {member.name!r} of {path} would unpack from {info.compress_size} to "
                f"{member.nbytes} bytes.",
                hint="do not use this archive unless you know where it comes from.",
            )
        return member
    raw.seek(info.header_offset)
    name_length, extra_length = _LOCAL_HEADER.unpack(raw.read(_LOCAL_HEADER.size))
    offset = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length + header_length
    if offset + member.nbytes > path.stat().st_size:
        raise CorruptFileError(
            f"array {member.name!r} of {path} reaches beyond the end of the file.", hint=DAMAGED
        )
    return _Member(member.name, member.shape, member.dtype, member.fortran_order, offset)
