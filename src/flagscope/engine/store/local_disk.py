"""Identifies the file system of a path, and refuses network file systems for a database."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flagscope.errors import StoreError

_MOUNTS = Path("/proc/self/mounts")
_OCTAL = re.compile(r"\\([0-7]{3})")
# Common network file systems by the kernel's names, which add "fuse." to those in user space. On
# others, opening the write-ahead log may still fail.
_NETWORK = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "afs", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs",
    "sshfs", "s3fs",
})  # fmt: skip


def file_system(path: str | os.PathLike[str], mounts: Path = _MOUNTS) -> str | None:
    """Kind of the file system on which a path is, or will be.

    Parameters
    ----------
    path
        Need not exist.
    mounts
        Table of mounts, in the format of /proc/self/mounts (fstab(5)).

    Returns
    -------
    str or None
        For example "ext4" or "nfs4"; None if the system has no such table.

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
        # Of two mounts on one point, the later hides the earlier.
        if where.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = fields[2], len(point.parts)
    return kind


def check_local(folder: str | os.PathLike[str], mounts: Path = _MOUNTS) -> None:
    """Raise if a folder is on a network file system.

    SQLite's write-ahead log needs memory shared by all processes, and its locks need a file system
    that honours them; over a network neither is certain (sqlite.org/wal.html).

    Raises
    ------
    StoreError
        If the folder is on one.
    """
    kind = file_system(folder, mounts)
    if kind is not None and kind.removeprefix("fuse.") in _NETWORK:
        raise StoreError(
            f"the store {os.fspath(folder)} lies on a network file system ({kind}), which cannot "
            "keep a database safe",
            hint="give a folder on a local disk of the machine that starts the scan; the "
            "checkpoint itself may lie anywhere",
        )
