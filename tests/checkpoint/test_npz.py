"""NumPy archives: byte orders, array orders, and what is passed over."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from flagscope.errors import UnknownDtypeError, UnsafeFileError

SAVERS = [np.savez, np.savez_compressed]
W = np.arange(60.0, dtype=np.float32).reshape(3, 4, 5)


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(W),
        W.astype(">f4"),
        np.asfortranarray(W.astype(">f8")),
        W.astype(np.complex64) * 1j,
        W.astype(np.uint32),
        W.astype(">i2"),
        np.array(2.5, dtype=">f8"),
        np.zeros((3, 0, 2), dtype=np.float16),
    ],
    ids=lambda array: f"{array.dtype.str} {array.shape} {'F' if array.flags.fnc else 'C'}",
)
def test_orders_of_bytes_and_elements_do_not_show(tmp_path, save, array):
    save(tmp_path / "a.npz", w=array)
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        tensor = checkpoint.read("w")
        assert checkpoint.tensors["w"].dtype == str(tensor.dtype).removeprefix("torch.")
        assert np.array_equal(tensor.numpy(), array)
        assert tensor.is_contiguous()
        if array.ndim:
            part = checkpoint.read("w", (slice(1, 3), 0) if array.size else (slice(1, 3),))
            assert np.array_equal(part.numpy(), array[1:3, 0] if array.size else array[1:3])


@pytest.mark.parametrize("save", SAVERS)
def test_objects_and_texts_are_passed_over(tmp_path, save):
    save(tmp_path / "a.npz", w=W, config=np.array({"a": 1}), names=np.array(["x"]))
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        assert list(checkpoint.tensors) == ["w"]
        assert "passed over 2" in checkpoint.notes[0]
        assert "config, names" in checkpoint.notes[0]


def test_archive_of_objects_alone_is_unsafe(tmp_path):
    np.savez(tmp_path / "a.npz", config=np.array({"a": 1}))
    with pytest.raises(UnsafeFileError) as error:
        open_checkpoint(tmp_path / "a.npz")
    assert error.value.hint


def test_type_that_pytorch_lacks_is_listed_and_not_read(tmp_path):
    np.savez(tmp_path / "a.npz", w=W, raw=np.zeros((2, 3), dtype="V2"))  # bfloat16 arrives so
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        assert checkpoint.tensors["raw"].shape == (2, 3)
        assert checkpoint.read("w").shape == (3, 4, 5)
        with pytest.raises(UnknownDtypeError, match="'raw' is stored as void16") as error:
            checkpoint.read("raw")
        assert error.value.hint
        assert len(checkpoint_fingerprint(checkpoint)) == 32


def test_slice_of_an_uncompressed_array_reads_the_slice(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", w=W)
    copied = []
    original = torch.from_numpy
    monkeypatch.setattr(torch, "from_numpy", lambda a: copied.append(a.nbytes) or original(a))
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        checkpoint.read("w", (slice(1, 2), slice(0, 2)))
    assert copied == [2 * 5 * 4]


def test_names_with_folders_and_dots(tmp_path):
    np.savez(tmp_path / "a.npz", **{"layer/0.weight": W, "x.npy": W})
    with open_checkpoint(tmp_path / "a.npz") as checkpoint:
        assert set(checkpoint.tensors) == {"layer/0.weight", "x.npy"}
