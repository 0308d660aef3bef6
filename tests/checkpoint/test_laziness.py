"""A slice of a huge tensor costs the slice."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import CorruptFileError

ROWS, COLUMNS = 2**22, 2**10  # 16 GiB of float32, most of which no disk block holds


def sparse(path: Path, start: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(start)
        try:
            file.truncate(len(start) + size)
        except OSError:
            pytest.skip("the file system has no sparse files of this size")
    if path.stat().st_blocks * 512 > 2**24:
        pytest.skip("the file system has no sparse files")
    return path


def huge_safetensors(folder: Path) -> Path:
    size = ROWS * COLUMNS * 4
    fields = {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [0, size]}
    header = json.dumps({"w": fields}).encode()
    return sparse(folder / "a.safetensors", struct.pack("<Q", len(header)) + header, size)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's memory figures")
def test_safetensors(tmp_path):
    before = resident_bytes()
    with open_checkpoint(huge_safetensors(tmp_path)) as checkpoint:
        part = checkpoint.read("w", (slice(2**21, 2**21 + 64), slice(None)))
        assert part.shape == (64, COLUMNS)
        assert part.sum() == 0
        checkpoint_fingerprint(checkpoint)
    assert resident_bytes() - before < 2**27


def test_inside_an_archive_data_lie_at_any_offset(tmp_path):
    # Members of odd lengths before it shift an array to every offset modulo its alignment.
    for shift in range(8):
        path = tmp_path / f"{shift}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("pad.txt", b"x" * shift)
            with archive.open("w.npy", "w") as file:
                np.lib.format.write_array(file, np.arange(6, dtype=np.float64).reshape(2, 3))
        with open_checkpoint(path) as checkpoint:
            tensor = checkpoint.read("w", (slice(1, 2),))
            assert tensor.tolist() == [[3.0, 4.0, 5.0]]
            assert tensor.data_ptr() % torch.float64.itemsize == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's memory figures")
def test_what_was_read_and_let_go_takes_no_memory(tmp_path):
    # Pages of a mapping would stay with the process until the file is closed.
    save_file({f"w{i}": torch.ones(2**21) for i in range(16)}, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        before = resident_bytes()
        assert sum(float(checkpoint.read(f"w{i}").sum()) for i in range(16)) == 2**25
        assert resident_bytes() - before < 2**25


def test_a_file_that_changes_under_a_reader_is_an_error(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(4096)}, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.read("w").sum() == 4096
        with path.open("r+b") as file:
            file.truncate(4096)
        with pytest.raises(CorruptFileError, match="changed"):
            checkpoint.read("w")
