"""Finds the file system of a path, and refuses a network file system for a database."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flagscope.errors import StoreError

_MOUNTS = Path("/proc/self/mounts")
_OCTAL = re.compile(r"\\([0-7]{3})")
# The common ones, by the names of the kernel, which puts "fuse." before those in user space. Of
# others the write-ahead log may still fail to open.
_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "afs", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs",
    "sshfs", "s3fs",
})  # fmt: skip


def file_system(path: str | os.PathLike[str], mounts: Path = _MOUNTS) -> str | None:
    """Kind of the file system that a path lies on, or will lie on.

    Parameters
    ----------
    path
        Need not exist.
    mounts
        Table of what is mounted, in the form of /proc/self/mounts (fstab(5)).

    Returns
    -------
    str or None
        As in "ext4" or "nfs4"; None where the system has no such table.

    Examples
    --------
    >>> import tempfile
    >>> table = Path(tempfile.mkdtemp(), "mounts")
    >>> _ = table.write_text("/dev/sda / ext4 rw 0 0\\nhost:/a /net\\\\040disk nfs4 rw 0 0\\n")
    >>> file_system("/net disk/x", table), file_system("/net", table)
    ('nfs4', 'ext4')
    """
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    where, kind, depth = Path(path).resolve(), None, -1
    for line in table.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(_OCTAL.sub(lambda octal: chr(int(octal[1], 8)), fields[1]))
        # Of two on one point the later one hides the earlier.
        if where.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = fields[2], len(point.parts)
    return kind


def check_local(folder: str | os.PathLike[str], mounts: Path = _MOUNTS) -> None:
    """Refuse a folder on a network file system.

    SQLite's write-ahead log needs memory that all processes share, and its locks need a file system
    that keeps them; over a network neither is sure (sqlite.org/wal.html).

    Raises
    ------
    StoreError
        If the folder lies on one.
    """
    kind = file_system(folder, mounts)
    if kind is not None and kind.removeprefix("fuse.") in _NETWORK:
        raise StoreError(
            f"the store {os.fspath(folder)} lies on a network file system ({kind}), which cannot "
            "keep a database safe",
            hint="give a folder on a local disk of the machine that starts the scan; the "
            "checkpoint itself may lie anywhere",
        )
