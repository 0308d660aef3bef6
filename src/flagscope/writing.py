"""Writing a file whole or not at all: under another name first, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

_BINARY = getattr(os, "O_BINARY", 0)  # on Windows
# Of a folder that takes no new file, or of a file that is mounted by itself: written in place.
_IN_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV)


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that a full disk or a kill leaves the earlier one as it was.

    The content goes to a new file in the same folder, which takes the name when it is on the disk.
    It has the mode of the file that it replaces, or what the umask allows. A link is followed.
    Devices, pipes and what stdout or stderr lead to are written to directly.

    Parameters
    ----------
    path
        Where to write.
    content
        Text is written as UTF-8, its line ends as they are.

    Raises
    ------
    OSError
        If it cannot be written; no other file is left behind.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> write_whole(path, "first")
    >>> write_whole(path, "second")
    >>> path.read_text(), len(list(path.parent.iterdir()))
    ('second', 1)
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        found = None
    standard = None if found is None else _standard_stream(found)
    if standard is not None:
        # Through the descriptor: opened by its name it would be cut, and written from its start.
        _write_out(os.dup(standard), data)
    elif found is not None and not stat.S_ISREG(found.st_mode):
        _write_out(os.open(path, os.O_WRONLY | _BINARY), data)
    else:
        _replace(Path(os.path.realpath(path)), data, found)


def _standard_stream(found: os.stat_result) -> int | None:
    """The descriptor of stdout or stderr if that is the file."""
    for descriptor in (1, 2):
        try:
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
        except OSError:
            continue
    return None


def _replace(target: Path, data: bytes, found: os.stat_result | None) -> None:
    # A name of its own length: that of the target may already be as long as names can be.
    part = target.parent / f".flagscope-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        if found is None or error.errno not in _IN_PLACE:
            raise
        _write_out(os.open(target, os.O_WRONLY | os.O_TRUNC | _BINARY), data)
        return
    try:
        _write_out(descriptor, data)
        if found is not None:
            part.chmod(stat.S_IMODE(found.st_mode))
        try:
            part.replace(target)
        except OSError as error:
            if found is None or error.errno not in _IN_PLACE:
                raise
            _write_out(os.open(target, os.O_WRONLY | os.O_TRUNC | _BINARY), data)
            part.unlink()
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_out(descriptor: int, data: bytes) -> None:
    """Write all, see it on the disk where it is a file, and close."""
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            os.fsync(file.fileno())
