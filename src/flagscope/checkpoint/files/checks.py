"""Checks of a file before it is read: is it there, and is it what its name says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from flagscope.checkpoint.files.disguises import SEEN, disguise
from flagscope.checkpoint.files.placed import refuse_special
from flagscope.errors import CorruptFileError, MissingFileError, SourceError
from flagscope.shortening import listed

DAMAGED = "the file is damaged or was cut short; fetch or save it again."
_LISTED = 4  # files that a message names


def checked_start(path: Path, length: int = SEEN) -> bytes:
    """First bytes of a file that is readable, not empty and not another kind in disguise.

    Raises
    ------
    MissingFileError
        If there is no such file, or it is a link to one that is not there.
    SourceError
        If it is a folder, a pipe or a device, or may not be read.
    CorruptFileError
        If it is empty, a pointer of a repository, a web page or compressed as a whole.
    """
    refuse_special(path)
    try:
        with path.open("rb") as file:
            start = file.read(length)
    except FileNotFoundError:
        refuse_broken_link(path)
        raise MissingFileError(
            f"there is no file {path}.", hint="check the path for typos."
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
        If it is empty, a pointer of a repository, a web page or compressed as a whole.
    """
    if not start:
        raise CorruptFileError(
            f"{shown} is empty.", hint="its download or its saving was not finished; do it again."
        )
    known = disguise(start)
    if known is not None:
        raise CorruptFileError(f"{shown} is {known.what}.", hint=known.hint)


def refuse_broken_link(path: Path) -> None:
    """Say where a link leads if what it names is not there.

    Raises
    ------
    MissingFileError
        If the path is such a link.
    """
    try:
        if not path.is_symlink() or path.exists():
            return
    except OSError:  # a longer name than any file has
        return
    target = os.fspath(path.readlink())
    parts = Path(target).parts
    if "annex" in parts:
        hint = f"its content was not fetched: git annex get {path.name}."
    elif "blobs" in parts:
        hint = (
            "it is a link of the hub's cache whose file was removed or not copied with it: "
            "download the model again, or copy the folder with its links followed (cp -rL)."
        )
    else:
        hint = "fetch the file that it names, or copy the folder with links followed (cp -rL)."
    raise MissingFileError(f"{path} is a link to {target}, which is not there.", hint=hint)


def is_there(path: Path) -> bool:
    """Whether there is such a file; names that a file gives may be longer than any can be."""
    try:
        return path.is_file()
    except OSError:
        return False


def require_files(index: Path, names: Iterable[str]) -> None:
    """Refuse an index or table whose files are not all in its folder.

    Raises
    ------
    MissingFileError
        If some are not there, or are links to what is not there.
    """
    missing = sorted(name for name in names if not is_there(index.parent / name))
    for name in missing:
        refuse_broken_link(index.parent / name)
    if missing:
        raise MissingFileError(
            f"{index} names {len(missing)} files that are not in its folder: "
            f"{listed(missing, _LISTED)}.",
            hint="fetch the missing files into the same folder.",
        )


def is_plain_name(file: str) -> bool:
    """Whether a name stays in the folder, on every system: Windows knows / as well as its own."""
    return file not in ("", ".", "..") and "\0" not in file and PureWindowsPath(file).name == file
