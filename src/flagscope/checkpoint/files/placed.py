"""A local file held to the state in which it was opened, and its bytes by their place.

A mapping of the file would be simpler. But its pages count as the process's memory from their first
use until the file is closed, so that a scan would seem to hold all that it ever read, and may be
killed for it under a limit; and a file that is cut short under a mapping kills the process.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import torch
from jaxtyping import UInt8
from torch import Tensor

from flagscope.errors import CorruptFileError, MissingFileError, SourceError

# Fingerprints sample a few kilobytes of every tensor. That alone does not have whole members of an
# archive read for their checksums.
_SAMPLE = 2**14
_CHUNK = 2**22
_SPECIAL = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"),
            (stat.S_ISBLK, "a device"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checksum:
    """The CRC-32 that an archive has of one of its members.

    Attributes
    ----------
    begin, stop
        Bytes of the file that it covers.
    crc
        As zip files have it.
    member
        Its name in the archive.
    """

    begin: int
    stop: int
    crc: int
    member: str

    def compare(self, found: int, *, shown: str) -> None:
        """Compare it with that of the data.

        Raises
        ------
        CorruptFileError
            If they differ; `shown` is the name of the archive.
        """
        if found != self.crc:
            raise CorruptFileError(
                f"{shown}: the data of {self.member[:100]!r} do not have the checksum that the "
                f"archive says ({found:08x}, not {self.crc:08x}).",
                hint="the file is damaged; fetch or save it again.",
            )


class PlacedBytes:
    """A file that must stay as it is now; any number of threads may read at once.

    Each reading looks before and after whether the file is still the one that was opened: the same
    file, of the same size and times of change, the one that nobody can set among them. No file
    stays open: a checkpoint may have more shards than a process may have open files.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    MissingFileError
        If it is not there.
    SourceError
        If it is a pipe or a device.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_special(path)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise MissingFileError(
                f"there is no file {path}.", hint="check the path for typos."
            ) from None
        self._state = _state(status)
        self._sound: set[int] = set()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._state[0]

    @property
    def stamp(self) -> tuple[str, str]:
        """Name, and size and time of change: they outlive a move, and distinguish two states."""
        return self.path.name, f"{self._state[0]} {self._state[1]}"

    def check(self) -> None:
        """Look whether the file is still the one that was opened.

        Raises
        ------
        CorruptFileError
            If it was changed, replaced or removed.
        """
        try:
            found = _state(self.path.stat())
        except OSError as error:
            raise CorruptFileError(
                f"{self.path} was removed while it was being read.",
                hint="put it back, and start again.",
            ) from error
        self._compare(found)

    @contextmanager
    def opened(self, *, buffering: int = -1) -> Iterator[BinaryIO]:
        """The file, open for reading; `buffering` as for `open`.

        Raises
        ------
        CorruptFileError
            If it is gone, or was changed since, or while it was open.
        OSError
            If it cannot be read.
        """
        self.check()
        with self.path.open("rb", buffering=buffering) as file:
            self._compare(_state(os.fstat(file.fileno())))
            try:
                yield cast("BinaryIO", file)
            finally:
                # Said first: what went wrong within may be no more than a consequence.
                self._compare(_state(os.fstat(file.fileno())))

    def read(
        self, start: int, stop: int, checksum: Checksum | None = None
    ) -> UInt8[Tensor, " bytes"]:
        """Bytes start … stop.

        Parameters
        ----------
        start, stop
            Of the file.
        checksum
            Of the member of an archive that they belong to: the first time that more than a sample
            of it is read, all of it is.

        Raises
        ------
        CorruptFileError
            If the file has changed since, is shorter, or a checksum is not that of the data.
        OSError
            If it cannot be read.
        """
        part = torch.empty(stop - start, dtype=torch.uint8)
        view = memoryview(part.numpy())  # pyright: ignore[reportArgumentType] (an array is a buffer)
        with self.opened(buffering=0) as file:
            if checksum is not None:
                self._verify(file, checksum, stop - start)
            file.seek(start)
            self._fill(file, view, start)
        return part

    def verify(self, checksum: Checksum) -> None:
        """Compare the checksum of a member with its data, once.

        Raises
        ------
        CorruptFileError, OSError
            As for `read`.
        """
        with self.opened(buffering=0) as file:
            self._verify(file, checksum, checksum.stop - checksum.begin)

    def _verify(self, file: BinaryIO, checksum: Checksum, wanted: int) -> None:
        whole = checksum.stop - checksum.begin
        if checksum.begin in self._sound or (wanted <= _SAMPLE and wanted < whole):
            return
        found, place = 0, checksum.begin
        chunk = memoryview(bytearray(min(_CHUNK, whole)))
        file.seek(place)
        while place < checksum.stop:
            piece = chunk[: min(len(chunk), checksum.stop - place)]
            self._fill(file, piece, place)
            found = zlib.crc32(piece, found)
            place += len(piece)
        if found != checksum.crc:
            # A file that was changed meanwhile is that, and not damaged.
            self._compare(_state(os.fstat(file.fileno())))
        checksum.compare(found, shown=str(self.path))
        self._sound.add(checksum.begin)

    def _fill(self, file: BinaryIO, view: memoryview, start: int) -> None:
        done = 0
        # One call reads 2 GiB at most.
        while done < len(view):
            count = file.readinto(view[done:])  # pyright: ignore[reportAttributeAccessIssue]
            if not count:
                self._compare(_state(os.fstat(file.fileno())))
                raise CorruptFileError(
                    f"{self.path} ends at byte {start + done}, in the middle of a tensor.",
                    hint="the file is damaged; fetch or save it again.",
                )
            done += count

    def _compare(self, found: tuple[int, ...]) -> None:
        if found != self._state:
            raise CorruptFileError(
                f"{self.path} was changed while it was being read.",
                hint="wait until it is written, and start again.",
            )


def refuse_special(path: Path) -> None:
    """Refuse a pipe, a socket or a device, without opening it: reading one may never end.

    Raises
    ------
    SourceError
        If it is one. A path that is not there, or may not be looked at, is left to who opens it.
    """
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = next((kind for is_kind, kind in _SPECIAL if is_kind(mode)), "something special")
        raise SourceError(
            f"{path} is {kind}, not a file.",
            hint="files are read in parts and more than once: save what comes from it as a file.",
        )


def _state(status: os.stat_result) -> tuple[int, ...]:
    # The time of the last change of the inode cannot be set back, as the other can (cp -p, rsync).
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
