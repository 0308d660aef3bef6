"""Members of zip archives: where their data begin, and what damaged archives raise."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from typing import IO

DAMAGED_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
)
"""What Python's zipfile raises for a damaged archive."""

BROKEN_ZIP = (*DAMAGED_ZIP, NotImplementedError, RuntimeError)
"""The same, and for members that are encrypted or packed in another way."""

# Signature, and the lengths of the name and of the extra field (PKWARE APPNOTE 4.3.7).
_HEADER = struct.Struct("<4s22xHH")
_SIGNATURE = b"PK\x03\x04"


def data_begin(file: IO[bytes], member: zipfile.ZipInfo, *, archive: int = 0) -> int:
    """Where in a file the data of a member begin, behind the member's own header.

    Parameters
    ----------
    file
        The file, open; it is put to another place.
    member
        As the directory at the end of the archive has it.
    archive
        Where in the file the archive begins.

    Raises
    ------
    zipfile.BadZipFile
        If there is no header where the directory says.
    """
    begin = archive + member.header_offset
    file.seek(begin)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(_SIGNATURE):
        raise zipfile.BadZipFile("a member has no header")
    _, name_length, extra_length = _HEADER.unpack(header)
    return begin + _HEADER.size + name_length + extra_length
