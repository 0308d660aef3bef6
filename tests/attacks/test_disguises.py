"""Files that are not what their names say."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError

SUFFIXES = [".safetensors", ".pt", ".bin", ".th", ".npz"]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 90864192\n"
CONTENTS = {
    "empty": (b"", "is empty"),
    "Git LFS pointer": (POINTER, "Git LFS pointer"),
    "web page": (b"<!doctype html><html><title>404</title></html>", "a web page"),
    "gzip": (gzip.compress(b"weights"), "gzip-compressed"),
    "xz": (lzma.compress(b"weights"), "xz-compressed"),
    "text": (b"These are not the weights that you are looking for.\n", ""),
    "zeros": (bytes(4096), ""),
    "noise": (np.random.default_rng(0).bytes(4096), ""),
    "one byte": (b"{", ""),
    "JSON": (b'{"error": "Repository not found"}', ""),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("what", CONTENTS)
def test_content_that_is_no_checkpoint(tmp_path, refused, suffix, what):
    content, says = CONTENTS[what]
    path = tmp_path / ("a" + suffix)
    path.write_bytes(content)
    refused(path, CorruptFileError, says)


def test_pointer_says_how_to_get_the_file(tmp_path, refused):
    (tmp_path / "a.pt").write_bytes(POINTER)
    assert "git lfs pull" in refused(tmp_path / "a.pt", CorruptFileError).hint


def save_npz(path: Path) -> None:
    with path.open("wb") as file:  # given a path, NumPy would put .npz behind it
        np.savez(file, w=np.ones(3))


def test_one_format_under_the_name_of_another(tmp_path, refused):
    state = {"w": torch.ones(3)}
    written = {
        ".safetensors": lambda path: path.write_bytes(save(state)),
        ".pt": lambda path: torch.save(state, path),
        ".npz": save_npz,
    }
    for true, write in written.items():
        for claimed in written:
            path = tmp_path / f"{true[1:]}{claimed}"
            write(path)
            if (true, claimed) == (".pt", ".safetensors"):  # begins as nothing else does
                with open_checkpoint(path) as checkpoint:
                    assert checkpoint.read("w").equal(state["w"])
                    assert "torch.save" in checkpoint.notes[0]
            elif claimed != true:
                refused(path, CorruptFileError)


@pytest.mark.parametrize("true", [".safetensors", ".npz"])
def test_torch_reader_recognises_the_others(tmp_path, refused, true):
    path = tmp_path / "a.pt"
    if true == ".npz":
        save_npz(path)
    else:
        path.write_bytes(save({"w": torch.ones(3)}))
    assert f"end in {true}" in refused(path, CorruptFileError).hint


@pytest.mark.parametrize("length", [0x80, 0x280, 0x380, 0x580])
def test_safetensors_whose_length_begins_like_a_pickle(tmp_path, length, refused):
    path = tmp_path / "a.safetensors"
    data = save({"w": torch.ones(3)}, {"pad": ""})
    pad = length - int.from_bytes(data[:8], "little")
    path.write_bytes(save({"w": torch.ones(3)}, {"pad": "x" * pad}))
    assert path.read_bytes()[:8] == length.to_bytes(8, "little")
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").sum() == 3
    torch_name = path.rename(tmp_path / "a.pt")
    assert "end in .safetensors" in refused(torch_name, CorruptFileError).hint
