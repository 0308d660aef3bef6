"""NumPy archives with objects, lies and damage."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flagscope.checkpoint import npz, open_checkpoint
from flagscope.errors import CorruptFileError, UnsafeFileError

W = np.arange(1000, dtype=np.float32)


class Trap:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def npy(array=W, **header) -> bytes:
    """A .npy file, with a header that may lie."""
    buffer = io.BytesIO()
    if not header:
        np.lib.format.write_array(buffer, array)
    else:
        true = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(buffer, true | header)
        buffer.write(array.tobytes())
    return buffer.getvalue()


def archive(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name + ".npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pickled_objects_are_never_loaded(tmp_path, refused, save):
    canary = tmp_path / "canary"
    trap = np.empty(1, dtype=object)
    trap[0] = Trap(canary)
    save(tmp_path / "a.npz", trap=trap)
    refused(tmp_path / "a.npz", UnsafeFileError, "pickled")
    save(tmp_path / "b.npz", w=W, trap=trap)
    with open_checkpoint(tmp_path / "b.npz") as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        checkpoint.read("w")
    assert not canary.exists()


def test_file_exchanged_after_opening_is_no_way_in(tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "a.npz"
    trap = np.empty(1000, dtype=object)
    trap[:] = [Trap(canary)] * 1000
    np.savez_compressed(path, w=W)
    with open_checkpoint(path) as checkpoint:
        np.savez_compressed(path, w=trap)
        with pytest.raises(CorruptFileError, match="was changed"):
            checkpoint.read("w")
    assert not canary.exists()


def test_object_type_inside_a_field_is_no_way_in(tmp_path, refused):
    canary = tmp_path / "canary"
    trap = np.empty(1, dtype=[("x", object)])
    trap[0]["x"] = Trap(canary)
    np.savez(tmp_path / "a.npz", trap=trap)
    refused(tmp_path / "a.npz", UnsafeFileError)
    assert not canary.exists()


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + npy()[8:],
        npy()[:-4],
        npy() + b"more",
        npy(shape=(10**6,)),
        npy(shape=(2**40, 2**40)),
        npy(shape=(999,)),
        npy(shape=(-1000,)),
        npy(descr="<f8"),
        npy(descr="no type"),
        npy(fortran_order="perhaps"),
        npy().replace(b"(1000,)", b"exit(1)"),
        npy().replace(b"{", b"[", 1),
    ],
    ids=[
        "empty",
        "magic alone",
        "unknown version",
        "short",
        "long",
        "larger shape",
        "shape that overflows",
        "smaller shape",
        "negative shape",
        "wider type",
        "no type",
        "no order",
        "a call for a shape",
        "no literal",
    ],
)
def test_arrays_that_lie(tmp_path, refused, content, compression):
    refused(archive(tmp_path / "a.npz", compression, w=content), CorruptFileError)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_anywhere(tmp_path, refused, save):
    path = tmp_path / "a.npz"
    save(path, w=W, v=W[:10])
    whole = path.read_bytes()
    for size in [*range(1, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:size])
        refused(path, CorruptFileError)


def test_two_arrays_of_one_name(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("w.npy", npy(W))
        file.writestr("w.npy", npy(W + 1))
    refused(tmp_path / "a.npz", CorruptFileError, "two arrays named 'w'")


def test_bomb_is_not_unpacked(tmp_path, refused, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, w=np.zeros((4, 2**18), dtype=np.float32))
    with open_checkpoint(path) as checkpoint:
        assert not checkpoint.read("w").any()
    monkeypatch.setattr(npz, "_BOMB_BYTES", 2**22 - 1)  # the true limit takes seconds to write
    refused(path, CorruptFileError, "would unpack from [0-9]{4} to 4194304 bytes")


def test_size_in_the_directory_lies(tmp_path, refused):
    # The directory promises 4 GB and the header agrees; the data end after 4 kB.
    path = archive(tmp_path / "a.npz", zipfile.ZIP_DEFLATED, w=npy(shape=(2**28,)))
    whole = path.read_bytes()
    actual, claimed = len(npy()), len(npy()) - W.nbytes + 2**30
    path.write_bytes(whole.replace(struct.pack("<I", actual), struct.pack("<I", claimed)))
    refused(path, CorruptFileError)


def test_damaged_data_show_in_a_compressed_array(tmp_path, refused):
    path = tmp_path / "a.npz"
    noise = np.random.default_rng(0).standard_normal(1000)
    np.savez_compressed(path, w=noise)
    content = bytearray(path.read_bytes())
    content[4000] ^= 255
    path.write_bytes(content)
    refused(path, CorruptFileError, "cannot read array 'w'")


def test_archives_that_numpy_does_not_write(tmp_path, refused):
    refused(archive(tmp_path / "a.npz", zipfile.ZIP_LZMA, w=npy(W)[:-1]), CorruptFileError)
    (tmp_path / "b.npz").write_bytes(b"\x93NUMPY no archive at all")
    refused(tmp_path / "b.npz", CorruptFileError)
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as file:
        file.writestr("readme.txt", "no arrays")
    refused(tmp_path / "c.npz", CorruptFileError, "no tensors")
    with zipfile.ZipFile(tmp_path / "d.npz", "w"):
        pass
    refused(tmp_path / "d.npz", CorruptFileError, "no tensors")


def test_encrypted_member(tmp_path, refused):
    path = archive(tmp_path / "a.npz", w=npy())
    content = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(magic) + flags] |= 1
    path.write_bytes(content)
    refused(path, CorruptFileError, "encrypted")
