"""What every reader of a file does first: is it there, and is it what its name says."""

from __future__ import annotations

import functools
from abc import ABC
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.errors import CorruptFileError, MissingFileError, SourceError

DAMAGED = "the file is damaged or was cut short; fetch or save it again."

# How files begin that turn up under a checkpoint's name.
_DISGUISES: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "run `git lfs pull` in the repository, or download the file from its page.",
    ),
    (b"<!DOCTYPE", "a web page", "the download got a page instead of the file; fetch it again."),
    (b"<html", "a web page", "the download got a page instead of the file; fetch it again."),
    (b"\x1f\x8b", "gzip-compressed", "unpack it first: gunzip FILE."),
    (b"\xfd7zXZ", "xz-compressed", "unpack it first: unxz FILE."),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "unpack it first: unzstd FILE."),
)


class FileCheckpoint(Checkpoint, ABC):
    """Base of the readers of one file: can be pickled, and then opens the file again."""

    def __init__(
        self,
        path: Path,
        entries: Mapping[str, TensorInfo],
        *,
        source: str | None,
        config: dict[str, Any] | None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(source or path, entries, config=config, notes=notes)
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        opening = functools.partial(type(self), source=self._source, config=self._config)
        return opening, (self._path,)


def checked_start(path: Path, length: int = 64) -> bytes:
    """The first bytes of a file that exists, can be read, is not empty and is no disguise.

    Raises
    ------
    MissingFileError
        If there is no such file.
    SourceError
        If it is a folder, or may not be read.
    CorruptFileError
        If it is empty, a Git LFS pointer, a web page or compressed as a whole.
    """
    try:
        with path.open("rb") as file:
            start = file.read(length)
    except FileNotFoundError:
        raise MissingFileError(
            f"there is no file {path}.", hint="check the path for typing errors."
        ) from None
    except OSError as error:
        raise SourceError(
            f"cannot read {path}: {error.strerror or error}.",
            hint="check that it is a file and that you may read it.",
        ) from error
    checked_bytes(start, str(path))
    return start


def checked_bytes(start: bytes, shown: str) -> None:
    """Refuse a file that is empty or a disguise, by its first bytes.

    Raises
    ------
    CorruptFileError
        If it is empty, a Git LFS pointer, a web page or compressed as a whole.
    """
    if not start:
        raise CorruptFileError(f"{shown} is empty.", hint=DAMAGED)
    for magic, what, hint in _DISGUISES:
        if start[: len(magic)].lower() == magic.lower():
            raise CorruptFileError(f"{shown} is {what}.", hint=hint)


def is_plain_name(file: str) -> bool:
    """Whether a name stays in the folder, on every system: Windows knows / as well as its own."""
    return file not in ("", ".", "..") and "\0" not in file and PureWindowsPath(file).name == file
