"""Part of an open file as if it were a file: an archive that lies in another one as it is."""

from __future__ import annotations

import io
from typing import Any, BinaryIO


class Window(io.RawIOBase):
    """Bytes `begin` … `begin + size` of an open file, for reading."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._file, self._begin, self._size, self._place = file, begin, size, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        start = (0, self._place, self._size)[whence]
        if start + offset < 0:
            raise ValueError("a place before the beginning")
        self._place = start + offset
        return self._place

    def tell(self) -> int:
        """The place."""
        return self._place

    def seekable(self) -> bool:
        """Always."""
        return True

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none beyond the end of the part."""
        data = self._file.read(self._found(size))
        self._place += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the part goes; the number of bytes."""
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view[: self._found(len(view))])  # pyright: ignore[reportAttributeAccessIssue]
        self._place += count
        return count

    def readline(self, size: int | None = -1) -> bytes:
        """One line, of at most `size` bytes."""
        data = self._file.readline(self._found(size))
        self._place += len(data)
        return data

    def _found(self, size: int | None) -> int:
        """How many of `size` bytes there are; the file is put to the place of the first."""
        left = max(0, self._size - self._place)
        self._file.seek(self._begin + min(self._place, self._size))
        return left if size is None or size < 0 else min(size, left)
