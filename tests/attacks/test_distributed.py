"""Folders of torch.distributed.checkpoint with code, lies and damage."""

from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex

from checkpoint.distributed_folders import grid, write_shards
from flagscope.checkpoint import open_checkpoint
from flagscope.checkpoint.pickle.inert import inert_value
from flagscope.errors import CorruptFileError, SourceError, UnsafeFileError

STATE = {"w": torch.arange(48.0).reshape(8, 6), "h": torch.arange(6).half()}
BOXES = {"w": grid((8, 6), (4, 1))}


class Trap:
    """An object whose unpickling runs a call."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self):
        function, *arguments = self.call
        return function, tuple(arguments)


class Built:
    """An object that is given a state."""

    def __setstate__(self, state):
        raise AssertionError("run")

    def __getstate__(self):
        return {"a": 1}


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "pickled code was run"


def edited(folder: Path, edit) -> Path:
    return write_shards(folder, STATE, BOXES, edit=edit) / ".metadata"


@pytest.mark.parametrize("place", ["planner", "table", "storage", "size", "attribute"])
@pytest.mark.parametrize("what", ["os.system", "exec", "torch.load", "built"])
def test_code_in_the_table_is_refused_and_not_run(tmp_path, refused, canary, place, what):
    trap = {
        "os.system": Trap(os.system, f"touch {canary}"),
        "exec": Trap(exec, f"open({str(canary)!r}, 'w').close()"),
        "torch.load": Trap(torch.load, str(canary)),
        "built": Built(),
    }[what]

    def edit(metadata: Metadata) -> None:
        if place == "planner":
            metadata.planner_data = {"w": ("model", trap)}
        elif place == "table":
            metadata.state_dict_metadata["x"] = trap
        elif place == "storage":
            metadata.storage_data[MetadataIndex("x")] = trap
        elif place == "size":
            metadata.state_dict_metadata["w"].size = trap
        else:
            metadata.extra = [trap]

    assert "know where" in refused(edited(tmp_path, edit), UnsafeFileError, "nothing of it").hint


@pytest.mark.parametrize("protocol", [0, 1])
def test_old_protocols_are_refused(tmp_path, refused, canary, protocol):
    path = edited(tmp_path, lambda metadata: None)
    path.write_bytes(pickle.dumps(Trap(os.system, f"touch {canary}"), protocol))
    refused(path, UnsafeFileError)


def test_code_in_a_piece_is_refused_and_not_run(tmp_path, refused, canary):
    def edit(metadata: Metadata) -> None:
        stream = io.BytesIO()
        torch.save(Trap(os.system, f"touch {canary}"), stream)
        place = metadata.storage_data[MetadataIndex("h", (0,))]
        place.relative_path, place.offset, place.length = "trap.distcp", 0, stream.tell()
        (tmp_path / "trap.distcp").write_bytes(stream.getvalue())

    refused(edited(tmp_path, edit), UnsafeFileError, "nothing of it")


def chunk(offsets, sizes):
    return ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))


def table(metadata):
    return metadata.state_dict_metadata["w"]


def place(metadata, row=0):
    return metadata.storage_data[MetadataIndex("w", (row, 0))]


LIES = {
    "chunk outside": lambda m: table(m).chunks.append(chunk((8, 0), (1, 6))),
    "hole": lambda m: table(m).chunks.pop(),
    "no chunks": lambda m: table(m).chunks.clear(),
    "overlap": lambda m: table(m).chunks.__setitem__(1, chunk((1, 0), (2, 6))),
    "overlap that adds up": lambda m: m.state_dict_metadata["w"].__setattr__(
        "chunks", [chunk((0, 0), (4, 6)), chunk((2, 0), (4, 6))]),
    "same chunk of two sizes": lambda m: table(m).chunks.append(chunk((0, 0), (1, 6))),
    "axes": lambda m: table(m).chunks.__setitem__(0, chunk((0,), (2,))),
    "negative": lambda m: table(m).chunks.__setitem__(0, chunk((-2, 0), (2, 6))),
    "huge tensor": lambda m: table(m).__setattr__("size", torch.Size((2**40, 2**20))),
    "huge chunk": lambda m: (table(m).__setattr__("size", torch.Size((2**40, 6))),
                             table(m).__setattr__("chunks", [chunk((0, 0), (2**40, 6))])),
    "beyond the file": lambda m: place(m).__setattr__("offset", 10**9),
    "length beyond the file": lambda m: place(m).__setattr__("length", 10**12),
    "negative offset": lambda m: place(m).__setattr__("offset", -1),
    "no length": lambda m: place(m).__setattr__("length", None),
    "float length": lambda m: place(m).__setattr__("length", 1e3),
    "stored nowhere": lambda m: m.storage_data.pop(MetadataIndex("w", (0, 0))),
    "shared bytes": lambda m: place(m).__dict__.update(place(m, 6).__dict__),
    "middle of a piece": lambda m: place(m).__setattr__("offset", place(m).offset + 8),
    "cut piece": lambda m: place(m).__setattr__("length", place(m).length - 30),
    "no storage": lambda m: m.__setattr__("storage_data", None),
    "storage of text": lambda m: m.__setattr__("storage_data", {"w": "x"}),
    "no table": lambda m: m.__setattr__("state_dict_metadata", [1]),
    "table of text": lambda m: m.state_dict_metadata.__setitem__("w", "x"),
    "size of text": lambda m: table(m).__setattr__("size", "8 6"),
    "no type": lambda m: table(m).__setattr__("properties", None),
    "another type": lambda m: table(m).properties.__setattr__("dtype", torch.float16),
    "inside a tensor": lambda m: m.__setattr__("planner_data", {"w": ("a",), "h": ("a", "b")}),
    "two at one name": lambda m: m.__setattr__("planner_data", {"w": ("a",), "h": ("a",)}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies_of_the_table(tmp_path, refused, lie):
    refused(edited(tmp_path, LIES[lie]), CorruptFileError)


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "a/b", "..", "", "C:x", "a\0b"])
def test_files_outside_the_folder(tmp_path, refused, file):
    path = edited(tmp_path, lambda m: place(m).__setattr__("relative_path", file))
    refused(path, CorruptFileError, "no file of its folder")


def test_extensions_are_named(tmp_path, refused):
    path = edited(tmp_path, lambda m: place(m).__setattr__("transform_descriptors", ["zstd/1"]))
    assert "without extensions" in refused(path, SourceError, "extension").hint


def piece(pickled: bytes | None = None, data: bytes = bytes(24), **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        if pickled is not None:
            archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", data)
        for name, content in members.items():
            archive.writestr("archive/" + name, content)
    return stream.getvalue()


def rebuilt(offset=0, shape=(6,), strides=(1,), storage="HalfStorage", key="0") -> bytes:
    """The description of a tensor, with any numbers."""

    def numbers(values) -> bytes:
        packed = b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values)
        return b"(" + packed + b"t"

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    reference = b"(" + text("storage") + f"ctorch\n{storage}\n".encode() + text(key)
    reference += text("cpu") + b"K\x06tQ"
    return (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + reference
            + b"\x8a\x08" + struct.pack("<q", offset) + numbers(shape) + numbers(strides)
            + b"\x89ccollections\nOrderedDict\n)RtR.")  # fmt: skip


PIECES = {
    "no description": piece(),
    "empty description": piece(b""),
    "text": b"not a zip file at all, but long enough for it" * 9,
    "big-endian": piece(rebuilt(), byteorder=b"big"),
    "no data": piece(rebuilt(key="1")),
    "offset beyond": piece(rebuilt(offset=8)),
    "negative offset": piece(rebuilt(offset=-1)),
    "negative stride": piece(rebuilt(strides=(-1,))),
    "stride beyond": piece(rebuilt(strides=(3,))),
    "expanded": piece(rebuilt(strides=(0,)), data=bytes(2)),
    "other shape": piece(rebuilt(shape=(3, 2), strides=(2, 1))),
    "huge shape": piece(rebuilt(shape=(2**61,))),
    "strides of other axes": piece(rebuilt(strides=(1, 1))),
    "typed without a type": piece(rebuilt().replace(b"_v2", b"_v3")),
    "too few numbers": piece(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R."),
    "no tensor": piece(b"\x80\x02K\x01."),
    "long description": piece(b"\x80\x02]" + b"N0" * 2**16 + b"."),
}


@pytest.mark.parametrize("lie", PIECES)
def test_lies_of_a_piece(tmp_path, refused, lie):
    def edit(metadata: Metadata) -> None:
        (tmp_path / "__9_0.distcp").write_bytes(PIECES[lie])
        place = _StorageInfo("__9_0.distcp", 0, len(PIECES[lie]))
        metadata.storage_data[MetadataIndex("h", (0,))] = place

    refused(edited(tmp_path, edit), CorruptFileError)


def test_own_description_of_a_piece_is_read(tmp_path):
    # Otherwise the lies above would be refused for their form.
    def edit(metadata: Metadata) -> None:
        content = piece(rebuilt(), STATE["h"].numpy().tobytes())
        (tmp_path / "__9_0.distcp").write_bytes(content)
        place = _StorageInfo("__9_0.distcp", 0, len(content))
        metadata.storage_data[MetadataIndex("h", (0,))] = place

    with open_checkpoint(edited(tmp_path, edit)) as checkpoint:
        assert torch.equal(checkpoint.read("h"), STATE["h"])


BOMBS = {
    "huge byte array": b"\x80\x05\x96" + struct.pack("<Q", 2**50) + b".",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**50) + b".",
    "nothing": b"",
    "no end": b"\x80\x04]",
    "pop of nothing": b"\x80\x04a.",
    "mark left": b"\x80\x04(.",
    "no mark": b"\x80\x04t.",
    "call of a text": b"\x80\x04\x8c\x01a)R.",
    "call of a call": b"\x80\x04ctorch\nSize\n)R)R.",
    "state of a list": b"\x80\x04]}b.",
    "items of odd count": b"\x80\x04}(NNNu.",
    "memory that is not there": b"\x80\x04h\x07.",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_pickles_that_break_unpicklers(bomb):
    with pytest.raises((CorruptFileError, UnsafeFileError)) as error:
        inert_value(BOMBS[bomb], allowed={"torch.Size"}, source="x")
    assert error.value.hint


def test_memory_at_a_huge_index_takes_none():
    # Python's own unpickler makes its memory as long as the index says.
    assert inert_value(b"\x80\x04Nr\xff\xff\xff\x7f.", allowed=(), source="x") is None


def test_deep_and_shared_values_take_their_own_time():
    # Each of 60 pairs is twice the one before: hashed or compared they would never end.
    pairs = b"N\x94" + b"".join(b"h%ch%c\x86\x94" % (i, i) for i in range(60))
    assert isinstance(inert_value(b"\x80\x04" + pairs + b".", allowed=(), source="x"), tuple)
    with pytest.raises(CorruptFileError, match="key of type tuple"):
        inert_value(b"\x80\x04" + pairs + b"}h\x3cNs.", allowed=(), source="x")
    assert inert_value(b"\x80\x04" + b"]" * 50_000 + b"a" * 49_999 + b".", allowed=(), source="x")


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_damage(tmp_path, name):
    write_shards(tmp_path, STATE, BOXES)
    path = tmp_path / name
    whole, rng = path.read_bytes(), random.Random(name)
    read = refused = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            at, length = rng.randrange(len(content)), rng.randrange(1, 20)
            match rng.randrange(3):
                case 0:
                    content[at] = rng.randrange(256)
                case 1:
                    del content[at : at + length]
                case _:
                    content[at:at] = rng.randbytes(length)
        path.write_bytes(content)
        try:
            with open_checkpoint(tmp_path) as checkpoint:
                for tensor in checkpoint.tensors:
                    checkpoint.read(tensor)
            read += 1
        except SourceError as error:
            refused += bool(error.hint)
    assert read > 0
    assert refused > 50
