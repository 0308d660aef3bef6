"""Flax files whose lengths, shapes and names lie."""

from __future__ import annotations

import struct
import time

import pytest
import torch

from attacks.conftest import hints_of_changed_bytes, read_whole
from checkpoint.test_flax import array, chunked, msgpack, save
from flagscope.errors import CorruptFileError, FlagscopeError

W = torch.arange(6.0).reshape(2, 3)
RAW = W.numpy().tobytes()


def extension(*parts):
    return msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))})


def bad_chunks(**changes):
    return msgpack.packb({"a": {**chunked(W, 4), **changes}})


HOSTILE = {
    "text": b"hello, this is text",
    "a number": b"\x07",
    "a list": msgpack.packb([1, 2]),
    "no end": b"\xdf\xff\xff\xff\xff",
    "text longer than the file": b"\x81\xdb\xff\xff\xff\xffa",
    "array longer than the file": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
    "data longer than the array": b"\x81\xa1a\xc7\x0a\x01\x93\x91\x01\xa4int8\xc4\xff",
    "shape larger than the data": extension((2, 4), "float32", RAW),
    "shape that overflows": extension((2**62, 2**62), "float32", RAW),
    "negative shape": extension((-2, -3), "float32", RAW),
    "shape of texts": extension(("2", "3"), "float32", RAW),
    "type of numbers": extension((2, 3), 7, RAW),
    "no data": extension((2, 3), "float32"),
    "data of text": extension((2, 3), "float32", "x" * 24),
    "something behind it": msgpack.packb({"a": array(W)}) + b"\x00",
    "names of numbers": msgpack.packb({1: array(W)}),
    "name twice": b"\x82\xa1a\x01\xa1a\x02",
    "name that is no UTF-8": b"\x81\xa1\xff\x01",
    "the byte that begins nothing": b"\x81\xa1a\xc1",
    "chunks missing": bad_chunks(chunks={}),
    "chunks of numbers": bad_chunks(chunks={"0": 1}),
    "chunks of two types": bad_chunks(chunks={"0": array(W[0]), "1": array(W[1].double())}),
    "chunks too small": bad_chunks(chunks={"0": array(W[0])}),
    "shape of chunks": bad_chunks(shape={"0": -1}),
    "shape with a hole": bad_chunks(shape={"0": 2, "2": 3}),
    "too deep": b"\x81\xa1a" * 5000 + b"\x01",
    "too many lists": b"\x91" * 5000,
    "two of one name": msgpack.packb({"a": {"kernel": array(W), "weight": array(W)}}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_file_that_lies(tmp_path, refused, what):
    (tmp_path / "a.msgpack").write_bytes(HOSTILE[what])
    began = time.monotonic()
    refused(tmp_path / "a.msgpack", CorruptFileError)
    assert time.monotonic() - began < 5


def test_bytes_changed_anywhere(tmp_path):
    path = save(tmp_path / "a.msgpack", {"a": {"kernel": array(W)}, "b": chunked(W, 4), "n": 3})
    hints = hints_of_changed_bytes(path, times=900)
    assert all(hints)
    assert 0 < len(hints) < 900


def test_cut_short_anywhere(tmp_path):
    path = save(tmp_path / "a.msgpack", {"a": {"kernel": array(W)}, "b": array(W)})
    whole = path.read_bytes()
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FlagscopeError):
            read_whole(path)


def test_lengths_are_of_the_specification(tmp_path):
    """Containers of every width, as another writer may choose them."""
    key = b"\xda" + struct.pack(">H", 1) + b"a"
    small = msgpack.packb(array(W))
    content = b"\xdf" + struct.pack(">I", 1) + key + small
    (tmp_path / "a.msgpack").write_bytes(content)
    read_whole(tmp_path / "a.msgpack")
