"""Bytes at a place of a local file, read into memory of their own.

A mapping of the file would be simpler. But its pages count as the process's memory from their first
use until the file is closed, so that a scan would seem to hold all that it ever read, and may be
killed for it under a limit; and a file that is cut short under a mapping kills the process.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from flagscope.errors import CorruptFileError


class PlacedBytes:
    """A file's bytes by their place; any number of threads may read at once.

    No file stays open: a checkpoint may have more shards than a process may have open files.

    Parameters
    ----------
    path
        The file, which must stay as it is now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path.stat())

    def read(self, start: int, stop: int) -> UInt8[Tensor, " bytes"]:
        """Bytes start … stop.

        Raises
        ------
        CorruptFileError
            If the file has changed since, or is shorter.
        OSError
            If it cannot be read.
        """
        part = torch.empty(stop - start, dtype=torch.uint8)
        view = memoryview(part.numpy())  # pyright: ignore[reportArgumentType] (an array is a buffer)
        with self._path.open("rb", buffering=0) as file:
            if _state(os.fstat(file.fileno())) != self._state:
                raise CorruptFileError(
                    f"{self._path} was changed while it was being read.",
                    hint="wait until it is written, and start again.",
                )
            file.seek(start)
            done = 0
            # One call reads 2 GiB at most.
            while done < len(view):
                count = file.readinto(view[done:])
                if not count:
                    raise CorruptFileError(
                        f"{self._path} ends at byte {start + done}, in the middle of a tensor.",
                        hint="the file is damaged; fetch or save it again.",
                    )
                done += count
        return part


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ino
