"""GGUF files whose header lies."""

from __future__ import annotations

import struct

import pytest

from attacks.conftest import hints_of_changed_bytes, read_whole
from flagscope.errors import CorruptFileError, SourceError

pytest.importorskip("gguf")
F32, Q4_0, Q4_K = 0, 2, 12
STRING, ARRAY, U32, U8 = 8, 9, 4, 0


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


def info(name="w", shape=(8,), kind=F32, offset=0, dimensions=None) -> bytes:
    count = len(shape) if dimensions is None else dimensions
    sizes = b"".join(struct.pack("<Q", size) for size in shape)
    return string(name) + struct.pack("<I", count) + sizes + struct.pack("<IQ", kind, offset)


def build(infos=(), entries=(), data=b"", *, tensors=None, keys=None, version=3) -> bytes:
    counts = (len(infos) if tensors is None else tensors, len(entries) if keys is None else keys)
    header = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join((*entries, *infos))
    return header + bytes(-len(header) % 32) + data


W = info()
DATA = bytes(32)
LLAMA = entry("general.architecture", STRING, string("llama"))
HOSTILE = {
    "magic alone": b"GGUF",
    "no tensors": build(),
    "count of tensors": build([W], data=DATA, tensors=2**60),
    "count of tensors that wraps": build([W], data=DATA, tensors=2**64 - 1),
    "count of keys": build([W], data=DATA, keys=2**60),
    "one tensor too many": build([W], data=DATA, tensors=2),
    "one key too many": build([W], data=DATA, keys=1),
    "length of a name": build([struct.pack("<Q", 2**63) + W], data=DATA),
    "name that is no text": build([info(b"\xff\xfe")], data=DATA),
    "array that goes on": build(
        [W], [entry("a", ARRAY, struct.pack("<IQ", U32, 2**61))], DATA
    ),
    "array of strings that goes on": build(
        [W], [entry("a", ARRAY, struct.pack("<IQ", STRING, 2**61))], DATA
    ),
    "array of arrays": build([W], [entry("a", ARRAY, struct.pack("<IQ", ARRAY, 1))], DATA),
    "type of a value": build([W], [entry("a", 77, b"")], DATA),
    "key twice": build([W], [entry("a", U8, b"\1"), entry("a", U8, b"\1")], DATA),
    "no dimensions": build([info(shape=())], data=DATA),
    "many dimensions": build([info(shape=(1,) * 9)], data=DATA),
    "dimensions that are not there": build([info(dimensions=2**31)], data=DATA),
    "size that overflows": build([info(shape=(2**33, 2**33))], data=DATA),
    "size that overflows to the right one": build([info(shape=(2**62, 32))], data=DATA),
    "data cut short": build([W], data=DATA[:-1]),
    "no data": build([W]),
    "offset beyond the file": build([info(offset=64)], data=DATA),
    "offset that wraps": build([info(offset=2**64 - 32)], data=DATA),
    "offset that is not aligned": build([info(offset=4)], data=DATA * 2),
    "overlap": build([W, info("v")], data=DATA),
    "part of another": build([info(shape=(16,)), info("v", offset=32)], data=DATA * 2),
    "two of one name": build([W, info(offset=32)], data=DATA * 2),
    "rows of half a block": build([info(shape=(16, 2), kind=Q4_0)], data=DATA),
    "rows of half a long block": build([info(shape=(128, 2), kind=Q4_K)], data=DATA * 9),
    "alignment of zero": build([W], [entry("general.alignment", U32, bytes(4))], DATA),
    "alignment of three": build([W], [entry("general.alignment", U32, b"\3\0\0\0")], DATA),
    "alignment of text": build([W], [entry("general.alignment", STRING, string("32"))], DATA),
    "no heads": build(
        [info("blk.0.attn_q.weight")],
        [LLAMA, entry("llama.attention.head_count", U32, bytes(4))], DATA,
    ),
    "heads that do not divide": build(
        [info("blk.0.attn_q.weight", (1, 8))],
        [LLAMA, entry("llama.attention.head_count", U32, b"\3\0\0\0")], DATA,
    ),
    "two names for one": build(
        [info("output.weight"), info("lm_head.weight", offset=32)], [LLAMA], DATA * 2
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_header_that_lies(tmp_path, refused, what):
    (tmp_path / "a.gguf").write_bytes(HOSTILE[what])
    refused(tmp_path / "a.gguf", CorruptFileError)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (build([info(kind=999)], data=DATA), "type number 999"),
        (build([info(kind=5)], data=DATA), "type number 5"),
        (build([W], data=DATA, version=1), "version 1"),
        (build([W], data=DATA, version=2**24 * 3), "big-endian"),
        (
            build([W], [entry("split.count", U32, b"\3\0\0\0")], DATA),
            "one of 3 parts",
        ),
    ],
)
def test_what_is_not_supported(tmp_path, refused, content, says):
    (tmp_path / "a.gguf").write_bytes(content)
    refused(tmp_path / "a.gguf", SourceError, says)


def test_whole_file_is_read(tmp_path):
    (tmp_path / "a.gguf").write_bytes(build([W], [LLAMA], DATA))
    read_whole(tmp_path / "a.gguf")


def test_cut_anywhere(tmp_path, refused):
    whole = build([W, info("v", offset=32)], [LLAMA, entry("a", U8, b"\1")], DATA * 2)
    path = tmp_path / "a.gguf"
    for size in range(1, len(whole), 3):
        path.write_bytes(whole[:size])
        refused(path, CorruptFileError)


def test_bytes_changed_anywhere(tmp_path):
    whole = build(
        [info(shape=(32, 2), kind=Q4_0), info("v", offset=64)],
        [LLAMA, entry("a", ARRAY, struct.pack("<IQ", U32, 2) + bytes(8))], DATA * 3,
    )  # fmt: skip
    path = tmp_path / "a.gguf"
    path.write_bytes(whole)
    hints = hints_of_changed_bytes(path, times=400, first=4)
    assert all(hints)
    assert 0 < len(hints) < 400
