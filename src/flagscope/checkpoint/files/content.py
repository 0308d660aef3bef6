"""Format of a file by its content, where its name says another or none."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from flagscope.checkpoint.files.zip_members import BROKEN_ZIP

Kind = Literal["safetensors", "torch", "npz", "gguf"]
_ZIP = b"PK\x03\x04"
# PyTorch's older format: a pickle of the number 0x1950a86a20f9469cfc6c comes first.
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_GGUF = b"GGUF"
# A header of safetensors is shorter than 2^40 bytes, so that the last bytes of its length are 0.
_HEADER_BRACE = b"\0\0\0{"


def content_kind(path: Path, start: bytes) -> Kind | None:
    """The format that a file's content has beyond doubt; None if that is not known.

    Parameters
    ----------
    path
        The file, of which a zip archive's directory is read.
    start
        Its first bytes.
    """
    if start.startswith(_GGUF):
        return "gguf"
    if start.startswith(_LEGACY):
        return "torch"
    if start[5:9] == _HEADER_BRACE:
        return "safetensors"
    if not start.startswith(_ZIP):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except BROKEN_ZIP:
        return None
    if any(name.partition("/")[2] == "data.pkl" for name in names):
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else None
