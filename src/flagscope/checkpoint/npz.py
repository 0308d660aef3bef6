"""Reader of NumPy archives: headers first, arrays when asked for, objects never."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint.base import TensorInfo
from flagscope.checkpoint.files.checks import DAMAGED, checked_start
from flagscope.checkpoint.files.placed import Checksum, PlacedBytes
from flagscope.checkpoint.files.reader import FileCheckpoint
from flagscope.checkpoint.files.zip_members import DAMAGED_ZIP, data_begin
from flagscope.checkpoint.indexing import Index, covering_span
from flagscope.errors import CorruptFileError, UnsafeFileError

# Weights hardly shrink; zeros shrink about 1000-fold, the most that deflate can do. A member that
# inflates like zeros to more than this is a bomb, or not worth scanning: with its widened copy it
# would take half a gigabyte.
_BOMB_BYTES = 2**27
_BOMB_RATIO = 200
_MOST_AXES = 64  # what NumPy allows


@dataclass(frozen=True)
class _Member:
    """One array: where its data lie, and how."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int | None = None  # of the data in the file; None if they are compressed
    checksum: Checksum | None = None  # of data that are not

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile(FileCheckpoint):
    """One archive that numpy.savez or numpy.savez_compressed wrote.

    Of an uncompressed array only the slice asked for is read; a compressed one is unpacked whole,
    and the last is kept for the next slice. Arrays of Python objects are pickles: they are passed
    over with a note and never loaded.

    Raises
    ------
    UnsafeFileError
        If it holds nothing but pickled objects.
    CorruptFileError
        If it is not a NumPy archive.
    """

    def __init__(
        self, path: Path, *, source: str | None = None, config: dict[str, Any] | None = None
    ) -> None:
        checked_start(path)
        self._bytes = PlacedBytes(path)
        members, passed_over = _members(self._bytes)
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
        super().__init__(
            path, entries, files=[self._bytes], source=source, config=config, notes=notes
        )

    def _read(self, name: str, index: Index) -> Tensor:
        member = self._members[name]
        try:
            if member.offset is None:
                part = self._inflated(member)[index]
            else:
                part = self._part(member, member.offset, index)
        except DAMAGED_ZIP as error:
            raise CorruptFileError(
                f"cannot read array {name!r} of {self._path}: {error}.", hint=DAMAGED
            ) from error
        # A copy, since data in the archive are neither aligned nor always in this machine's order.
        native = member.dtype.newbyteorder("=")
        return torch.from_numpy(np.array(part, dtype=native, order="C", copy=True))

    def _part(self, member: _Member, offset: int, index: Index) -> np.ndarray[Any, Any]:
        """A slice of an array that is stored as it is: the run of bytes that covers it is read."""
        turned = member.fortran_order
        shape, along = (member.shape[::-1], index[::-1]) if turned else (member.shape, index)
        start, stop, block, rest = covering_span(along, shape)
        size = member.dtype.itemsize
        raw = self._bytes.read(offset + start * size, offset + stop * size, member.checksum)
        part = raw.numpy().view(member.dtype).reshape(block)[rest]
        return part.T if turned else part

    def _inflated(self, member: _Member) -> np.ndarray[Any, Any]:
        last = self._unpacked
        if last is not None and last[0] == member.name:
            return last[1]
        with (
            self._bytes.opened() as raw,
            zipfile.ZipFile(raw) as archive,
            archive.open(member.name + ".npy") as file,
        ):
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read(1)  # at the end the checksum is compared
        self._unpacked = (member.name, array)
        return array

    def _release(self) -> None:
        self._unpacked = None


def _members(placed: PlacedBytes) -> tuple[list[_Member], list[str]]:
    """Arrays of numbers in an archive, and names of what else is there."""
    path = placed.path
    found: dict[str, _Member] = {}
    passed_over: list[str] = []
    pickled = 0
    try:
        with placed.opened() as raw, zipfile.ZipFile(raw) as archive:
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
                found[member.name] = _located(placed, raw, info, member, header_length)
    except DAMAGED_ZIP as error:
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
    return _Member(name, tuple(shape), dtype, fortran_order), file.tell()


def _located(
    placed: PlacedBytes, raw: IO[bytes], info: zipfile.ZipInfo, member: _Member, header_length: int
) -> _Member:
    """The member with the place of its data, once its sizes agree with the archive's."""
    path = placed.path
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
    begin = data_begin(raw, info)
    offset = begin + header_length
    if offset + member.nbytes > placed.size:
        raise CorruptFileError(
            f"array {member.name!r} of {path} reaches beyond the end of the file.", hint=DAMAGED
        )
    checksum = Checksum(begin, offset + member.nbytes, info.CRC, info.filename)
    return replace(member, offset=offset, checksum=checksum)
