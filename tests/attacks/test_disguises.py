"""Files that are not what their names say."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, MissingFileError, SourceError

SUFFIXES = [".safetensors", ".pt", ".bin", ".th", ".npz"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90864192\n"
KATAGO = b"b6c96-s175395328-d26788732\n8\n22\n19\nconv1\n3 3 22 96 1 1\n@BIN@" + bytes(999)


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"), io.BytesIO())
    return stream.getvalue()


CONTENTS = {  # content, what the message says, what the hint says
    "empty": (b"", "is empty", "not finished"),
    "Git LFS pointer": (POINTER, "Git LFS pointer", "git lfs pull"),
    "git-annex pointer": (b"/annex/objects/SHA256E-s9--4d.bin\n", "git-annex pointer", "annex get"),
    "git-annex link": (b"../.git/annex/objects/x/SHA256-s9--4d\n", "git-annex", "annex get"),
    "Xet pointer": (b"# xet version 0\nfilesize = 9\n", "Xet pointer", "hf download"),
    "DVC pointer": (b"outs:\n- md5: 4d7a\n  path: m.pt\n", "DVC pointer", "dvc pull"),
    "web page": (b"<!doctype html><html><title>404</title></html>", "a web page", "fetch"),
    "web page behind spaces": (b"\xef\xbb\xbf\n  <HTML><body>", "a web page", "fetch"),
    "store's message": (b'<?xml version="1.0"?><Error><Code>NoSuchKey', "XML", "fetch"),
    "gzip": (gzip.compress(b"weights"), "gzip-compressed", "gunzip"),
    "gzip cut short": (gzip.compress(b"weights" * 99)[:20], "gzip-compressed", "gunzip"),
    "xz": (lzma.compress(b"weights"), "xz-compressed", "unxz"),
    "bzip2": (bz2.compress(b"weights"), "bzip2-compressed", "bunzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(30), "zstd-compressed", "unzstd"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(30), "7z archive", "7z x"),
    "tar": (tarred(), "a tar archive", "tar -xf"),
    "KataGo": (KATAGO, "KataGo.*version 8", "model.ckpt"),
    "KataGo, compressed": (gzip.compress(KATAGO), "KataGo.*version 8", "model.ckpt"),
    "KataGo, text": (KATAGO.partition(b"@")[0], "KataGo", "model.ckpt"),
    "GGML": (b"tjgg\x03\0\0\0" + bytes(99), "GGML file from before GGUF", "gguf"),
    "text": (
        b"These are not the weights that you are looking for.\n",
        "a text.*These are",
        "fetch",
    ),
    "hub's message": (b"Invalid username or password.", "Invalid username", "fetch"),
    "JSON": (b'{"error": "Repository not found"}', "Repository not found", "fetch"),
    "zeros": (bytes(4096), "nothing but zeros", "fetch"),
    "noise": (np.random.default_rng(0).bytes(4096), "begins with the bytes", "not damaged"),
    "one byte": (b"{", "", ""),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", CONTENTS)
def test_content_that_is_no_checkpoint(tmp_path, refused, suffix, what):
    content, says, hint = CONTENTS[what]
    path = tmp_path / ("a" + suffix)
    path.write_bytes(content)
    error = refused(path, CorruptFileError, says)
    assert hint in error.hint
    if says not in ("", "nothing but zeros"):
        assert "damaged or" not in error.hint


def llama2c(words: int) -> bytes:
    """The header of a model of llama2.c, of width 8 with 2 layers, and its numbers."""
    return struct.pack("<7i", 8, 16, 2, 2, 2, words, 32) + bytes(4 * (abs(words) * 8 + 4000))


@pytest.mark.parametrize("content", [llama2c(64), llama2c(-64), b"24ka\x01\0\0\0" + bytes(300)])
def test_model_of_llama2c(tmp_path, refused, content):
    (tmp_path / "stories.bin").write_bytes(content)
    error = refused(tmp_path / "stories.bin", CorruptFileError, "a model of llama2.c")
    assert "export.py" in error.hint


def test_numbers_that_are_no_model_of_llama2c(tmp_path, refused):
    (tmp_path / "a.bin").write_bytes(struct.pack("<7i", 8, 16, 2, 3, 2, 64, 32) + bytes(9999))
    refused(tmp_path / "a.bin", CorruptFileError, "begins with the bytes 08 00 00 00 10")


def test_beginning_of_a_format_that_was_cut_short_is_damage(tmp_path, refused):
    for name, content in (("a.pt", b"PK\x03"), ("b.npz", b"PK\x03\x04abc"),
                          ("c.safetensors", save({"w": torch.ones(3)})[:-2])):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        assert "damaged" in refused(tmp_path / name, CorruptFileError).hint


def header_of(length: int) -> bytes:
    entry = {"0.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}}
    header = json.dumps(entry | {"__metadata__": {"x": "y" * length}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(4)


def test_header_beyond_the_limit_is_not_damage(tmp_path, refused):
    (tmp_path / "a.safetensors").write_bytes(header_of(100_000_000))
    error = refused(tmp_path / "a.safetensors", SourceError, r"header of 100000\d{3} bytes")
    assert "100000000" in str(error)
    assert "need not be damaged" in error.hint
    assert "damaged or" not in error.hint


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("../../blobs/0", "hub's cache"),
        ("../.git/annex/objects/x/SHA256-s9--4d", "git annex get"),
        ("elsewhere.safetensors", "fetch the file that it names"),
    ],
)
@pytest.mark.parametrize("named", ["folder", "file", "shard", "config"])
def test_link_to_nothing(tmp_path, refused, target, hint, named):
    link = tmp_path / ("config.json" if named == "config" else "model.safetensors")
    link.symlink_to(target)
    if named == "shard":
        index = {"weight_map": {"w": link.name, "v": "other.safetensors"}}
        (tmp_path / "a.safetensors.index.json").write_text(json.dumps(index))
    if named == "config":
        (tmp_path / "model.safetensors").write_bytes(save({"w": torch.ones(3)}))
    path = {"folder": tmp_path, "file": link, "shard": tmp_path / "a.safetensors.index.json",
            "config": tmp_path}[named]  # fmt: skip
    with pytest.raises(MissingFileError, match=f"{link.name} is a link to {target}") as error:
        open_checkpoint(path)
    assert hint in error.value.hint


def save_npz(path: Path, state) -> None:
    with path.open("wb") as file:  # given a path, NumPy would put .npz behind it
        np.savez(file, **{name: tensor.numpy() for name, tensor in state.items()})


def test_one_format_under_the_name_of_another(tmp_path):
    state = {"w": torch.arange(3.0).repeat(2, 1)}
    written = {
        ".safetensors": lambda path: path.write_bytes(save(state)),
        ".pt": lambda path: torch.save(state, path),
        ".npz": lambda path: save_npz(path, state),
        ".th": lambda path: torch.save(state, path, _use_new_zipfile_serialization=False),
    }
    kinds = {".safetensors": "safetensors", ".pt": "torch", ".th": "torch", ".npz": "npz"}
    for true, write in written.items():
        for claimed in (*written, ".gguf", ".bin", ".unheard"):
            path = tmp_path / f"{true[1:]}{claimed}"
            write(path)
            with open_checkpoint(path) as checkpoint:
                assert torch.equal(checkpoint.read("w"), state["w"])
                said = [note for note in checkpoint.notes if "whatever its name says" in note]
            right = claimed == ".unheard" or kinds[true] == kinds.get(claimed.replace("bin", "pt"))
            assert len(said) == (not right)
            assert all(f"{path.name} was read as a {kinds[true]} file" in note for note in said)


@pytest.mark.parametrize("length", [0x80, 0x280, 0x380, 0x580])
def test_safetensors_whose_length_begins_like_a_pickle(tmp_path, length, refused):
    path = tmp_path / "a.safetensors"
    data = save({"w": torch.ones(3)}, {"pad": ""})
    pad = length - int.from_bytes(data[:8], "little")
    path.write_bytes(save({"w": torch.ones(3)}, {"pad": "x" * pad}))
    assert path.read_bytes()[:8] == length.to_bytes(8, "little")
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").sum() == 3
