"""Safetensors files whose header lies."""

from __future__ import annotations

import json
import struct

import pytest

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import CorruptFileError, UnknownDtypeError


def tensor(start: int, stop: int, dtype: str = "F32", shape=(2,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def text(**tensors: dict) -> bytes:
    return json.dumps(tensors).encode()


A, TWICE = b'"a":' + json.dumps(tensor(0, 8)).encode(), b'"a":' + text(**tensor(8, 16))
HOSTILE = {
    "only a length": (b"", 10, b""),
    "no header": (b"", 0, b""),
    "header longer than the file": (text(a=tensor(0, 8)), 10**6, bytes(8)),
    "header of 8 EiB": (text(a=tensor(0, 8)), 2**63 - 1, bytes(8)),
    "header of 16 EiB": (text(a=tensor(0, 8)), 2**64 - 1, bytes(8)),
    "header of 200 MB": (text(a=tensor(0, 8)), 200_000_000, bytes(8)),
    "header cut short": (text(a=tensor(0, 8)), 20, bytes(8)),
    "no JSON": (b'{"a": nope}', None, bytes(8)),
    "a list": (b"[]", None, b""),
    "a number": (b"17", None, b""),
    "deep nesting": (b"[" * 100_000, None, b""),
    "deep nesting inside": (b'{"a":' * 50_000, None, b""),
    "no UTF-8": (b'{"\xff\xfe": 1}', None, b""),
    "no fields": (b'{"a": {}}', None, b""),
    "no tensors": (b"{}", None, b""),
    "metadata alone": (b'{"__metadata__": {"format": "pt"}}', None, b""),
    "metadata of the wrong type": (
        b'{"__metadata__": {"format": 1},' + A + b"}",
        None,
        bytes(8),
    ),
    "data cut short": (text(a=tensor(0, 8)), None, bytes(7)),
    "data missing": (text(a=tensor(0, 8)), None, b""),
    "data left over": (text(a=tensor(0, 8)), None, bytes(9)),
    "hole between tensors": (text(a=tensor(0, 8), b=tensor(12, 20)), None, bytes(20)),
    "hole before the first": (text(a=tensor(8, 16)), None, bytes(16)),
    "overlap": (text(a=tensor(0, 8), b=tensor(4, 12)), None, bytes(12)),
    "same data twice": (text(a=tensor(0, 8), b=tensor(0, 8)), None, bytes(8)),
    "negative offset": (text(a=tensor(-8, 0)), None, bytes(8)),
    "offsets swapped": (text(a=tensor(8, 0)), None, bytes(8)),
    "offset beyond the file": (text(a=tensor(0, 8), b=tensor(8, 16)), None, bytes(12)),
    "offset of 16 EiB": (text(a=tensor(2**64 - 8, 2**64)), None, bytes(8)),
    "offset that is no integer": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8.5]}}',
        None,
        bytes(8),
    ),
    "three offsets": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}}',
        None,
        bytes(8),
    ),
    "shape larger than the data": (text(a=tensor(0, 8, shape=[3])), None, bytes(8)),
    "shape smaller than the data": (text(a=tensor(0, 8, shape=[1])), None, bytes(8)),
    "negative shape": (text(a=tensor(0, 8, shape=[-2, -1])), None, bytes(8)),
    "shape that overflows": (text(a=tensor(0, 8, shape=[2**33, 2**31])), None, bytes(8)),
    "shape that overflows to the right size": (
        text(a=tensor(0, 8, shape=[2**63, 2, 2])),
        None,
        bytes(8),
    ),
    "type too wide for the data": (text(a=tensor(0, 8, dtype="F64")), None, bytes(8)),
    "odd number of half bytes": (text(a=tensor(0, 1, dtype="F4", shape=[1])), None, bytes(1)),
    "two tensors of one name": (b"{" + A + b"," + TWICE + b"}", None, bytes(16)),
    "one tensor said twice": (b"{" + A + b"," + A + b"}", None, bytes(8)),
    "two shapes": (
        b'{"a":{"dtype":"F32","shape":[2],"shape":[1,2],"data_offsets":[0,8]}}',
        None,
        bytes(8),
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_header_that_lies(tmp_path, refused, what):
    header, length, data = HOSTILE[what]
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    refused(path, CorruptFileError)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 60, 76])
def test_truncated(tmp_path, refused, size):
    header = text(a=tensor(0, 8))
    whole = struct.pack("<Q", len(header)) + header + bytes(8)
    assert size < len(whole)
    (tmp_path / "a.safetensors").write_bytes(whole[:size])
    refused(tmp_path / "a.safetensors", CorruptFileError)


def write(path, header: bytes, data: bytes):
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


@pytest.mark.parametrize("dtype", ["X9", "f32", "E8M0", "F128", ""])
def test_type_that_the_format_does_not_have(tmp_path, refused, dtype):
    path = write(tmp_path / "a.safetensors", text(a=tensor(0, 8, dtype=dtype)), bytes(8))
    error = refused(path, UnknownDtypeError, repr(dtype))
    assert "safetensors" in error.hint


@pytest.mark.parametrize(("dtype", "size"), [("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6)])
def test_packed_type_is_listed_and_refused_when_read(tmp_path, dtype, size):
    header = text(a=tensor(0, size, dtype=dtype, shape=[8]), b=tensor(size, size + 8))
    path = write(tmp_path / "a.safetensors", header, bytes(size + 8))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.tensors["a"].dtype == dtype
        assert checkpoint.tensors["a"].nbytes == size
        assert checkpoint.read("b").tolist() == [0, 0]
        with pytest.raises(UnknownDtypeError, match=dtype) as error:
            checkpoint.read("a")
        assert "dequantise" in error.value.hint
        assert len(checkpoint_fingerprint(checkpoint)) == 32


def test_names_of_any_kind_are_only_names(tmp_path):
    names = ["../../etc/passwd", "a\x00b", "\x1b[31m", "😀", "x" * 10_000, "__class__", " "]
    header = text(**{name: tensor(8 * k, 8 * k + 8) for k, name in enumerate(names)})
    path = write(tmp_path / "a.safetensors", header, bytes(8 * len(names)))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == names
        assert all(checkpoint.read(name).tolist() == [0, 0] for name in names)
