"""Files under a checkpoint's name that hold no readable weights: which kind they are."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

# How much of a file `disguise` wants to see: a tar archive is known by its 257th byte.
SEEN = 512
_AGAIN = "the download got it instead of the file; fetch the file again."
_UNPACK = "unpack it first: {}; then name what comes out."
_FETCH = "fetch the file itself: {}."


@dataclass(frozen=True, slots=True)
class Disguise:
    """Kind of a file, and what to do.

    Attributes
    ----------
    what
        Goes behind "is".
    hint
        What to do.
    """

    what: str
    hint: str


def _known(what: str, hint: str) -> Disguise:
    return Disguise(what, hint)


# Pointers that stand for a file in a repository, which were not resolved.
_POINTERS = (
    (b"version https://git-lfs", _known(
        "a Git LFS pointer, not the file itself",
        "run `git lfs pull` in the repository, or download the file from its page.")),
    (b"/annex/objects/", _known(
        "a git-annex pointer, not the file itself", _FETCH.format("git annex get FILE"))),
    (b"../.git/annex/objects/", _known(
        "a git-annex pointer, not the file itself", _FETCH.format("git annex get FILE"))),
    (b".git/annex/objects/", _known(
        "a git-annex pointer, not the file itself", _FETCH.format("git annex get FILE"))),
    (b"# xet version", _known(
        "a Xet pointer, not the file itself", _FETCH.format("git xet pull, or hf download"))),
    (b"outs:\n- md5:", _known("a DVC pointer, not the file itself", _FETCH.format("dvc pull"))),
)  # fmt: skip
_PAGES = ((b"<!doctype", "a web page"), (b"<html", "a web page"), (b"<?xml", "an XML document"))
_COMPRESSED = (
    (b"\x1f\x8b", _known("gzip-compressed", _UNPACK.format("gunzip FILE"))),
    (b"\xfd7zXZ", _known("xz-compressed", _UNPACK.format("unxz FILE"))),
    (b"\x28\xb5\x2f\xfd", _known("zstd-compressed", _UNPACK.format("unzstd FILE"))),
    (b"BZh", _known("bzip2-compressed", _UNPACK.format("bunzip2 FILE"))),
    (b"\x04\x22\x4d\x18", _known("lz4-compressed", _UNPACK.format("unlz4 FILE"))),
    (b"7z\xbc\xaf\x27\x1c", _known("a 7z archive", _UNPACK.format("7z x FILE"))),
    (b"Rar!\x1a\x07", _known("a RAR archive", _UNPACK.format("unrar x FILE"))),
)
_OLD_GGML = (b"lmgg", b"fmgg", b"tjgg", b"algg")
_TAR_MAGIC, _TAR_PLACE = (b"ustar\0", b"ustar "), 257
# A network of KataGo: its name, the version of the format, and channels of its inputs.
_KATAGO = re.compile(rb"\A[!-~]{1,200}\s+(\d{1,3})\s+\d{1,3}\s+\d{1,3}\s+[!-~]")
_WORDS = re.compile(rb"\A[\t\n\r -~]+\Z")
_ENOUGH_WORDS = 16


def disguise(start: bytes) -> Disguise | None:
    """Kind of a file whose beginning is not a format of weights; None if it is not known.

    Parameters
    ----------
    start
        Its first `SEEN` bytes, or all of a shorter file.

    Examples
    --------
    >>> disguise(b"version https://git-lfs.github.com/spec/v1").what
    'a Git LFS pointer, not the file itself'
    >>> disguise(b"GGUF") is None
    True
    """
    for magic, pointer in _POINTERS:
        if start.startswith(magic):
            return pointer
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for magic, what in _PAGES:
        if text[: len(magic)].lower() == magic:
            return Disguise(what, _AGAIN)
    for magic, archive in _COMPRESSED:
        if start.startswith(magic):
            return (_katago(_inflated(start)) if magic == b"\x1f\x8b" else None) or archive
    if start[_TAR_PLACE:].startswith(_TAR_MAGIC):
        return Disguise("a tar archive", _UNPACK.format("tar -xf FILE"))
    if start[:4] in _OLD_GGML:
        return Disguise(
            "a GGML file from before GGUF",
            "convert it with llama.cpp's convert_llama_ggml_to_gguf.py, or scan the model that it "
            "was made from.",
        )
    return _katago(start)


def unlike(start: bytes, size: int) -> Disguise:
    """Description of a file that begins like none of the formats.

    Parameters
    ----------
    start
        Its first `SEEN` bytes, or all of a shorter file.
    size
        Bytes of the whole file.
    """
    if not start.strip(b"\0"):
        return Disguise(
            "nothing but zeros where it begins",
            "the file is damaged, or its download was not finished; fetch it again.",
        )
    if _is_llama2c(start, size):
        return Disguise(
            "a model of llama2.c, whose tensors have no names",
            "scan the checkpoint that llama2.c's export.py made it from.",
        )
    if _WORDS.match(start) and len(start) >= _ENOUGH_WORDS:
        line = start.strip().partition(b"\n")[0][:60].decode()
        return Disguise(
            f"a text that begins {line!r}",
            "if it is an error message, the download got it instead of the file: fetch it again.",
        )
    return Disguise(
        f"not a file that flagscope knows: it begins with the bytes {start[:8].hex(' ')}",
        "if it is not damaged, save its weights as .safetensors or with torch.save.",
    )


def _inflated(start: bytes) -> bytes:
    """The beginning of what gzip packed, at most a few hundred bytes of it."""
    try:
        return zlib.decompressobj(wbits=31).decompress(start, SEEN)
    except zlib.error:
        return b""


def _katago(start: bytes) -> Disguise | None:
    found = _KATAGO.match(start)
    if found is None:
        return None
    return Disguise(
        f"a network of KataGo in its own format (version {int(found[1])})",
        "scan the training checkpoint (model.ckpt, of torch) that it was exported from.",
    )


def _is_llama2c(start: bytes, size: int) -> bool:
    """Whether a file begins with llama2.c's seven integers, or its later magic number."""
    if start[:4] == b"24ka":
        return True
    if len(start) < 28:
        return False
    width, hidden, layers, heads, kv_heads, words, length = struct.unpack("<7i", start[:28])
    plausible = (
        0 < kv_heads <= heads <= width <= 2**16 and width % heads == 0 == heads % kv_heads
        and 0 < hidden <= 2**18 and 0 < layers <= 2**10 and 0 < abs(words) <= 2**21
        and 0 < length <= 2**21
    )  # fmt: skip
    # Of float32 it takes at least the embedding and a layer's maps.
    return plausible and size >= 4 * (abs(words) * width + layers * 3 * width * hidden)
