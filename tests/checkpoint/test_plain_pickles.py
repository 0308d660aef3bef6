"""Pickles that torch.save did not write: of arrays, state dicts and modules, read the same way."""

from __future__ import annotations

import argparse
import pickle
import warnings

import numpy as np
import pytest
import torch

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, UnsafeFileError

RNG = np.random.default_rng(0)
ARRAYS = {
    "f4": RNG.normal(size=(3, 4)).astype(np.float32),
    "f8": RNG.normal(size=(2, 3, 4)),
    "f2": RNG.normal(size=5).astype(np.float16),
    "turned": np.asfortranarray(RNG.normal(size=(3, 4))),
    "sliced": RNG.normal(size=(6, 8))[::2, 1::3],
    "other order": RNG.normal(size=(3, 4)).astype(">f4"),
    "i8": np.arange(6).reshape(2, 3),
    "u2": np.arange(3, dtype=np.uint16),
    "b1": np.array([True, False]),
    "c16": RNG.normal(size=3) + 1j,
    "scalar": np.array(3.0),
    "empty": np.zeros((0, 4), np.float32),
}
NET = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))


def assert_reads(path, arrays) -> None:
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.tensors) == set(arrays)
        for name, array in arrays.items():
            read, array = checkpoint.read(name), np.asarray(array)
            assert read.numpy().dtype == array.dtype.newbyteorder("=")
            assert np.array_equal(read.numpy(), array), name
            if array.ndim and len(array):
                assert np.array_equal(checkpoint.read(name, (-1,)).numpy(), array[-1])


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".bin", ".unheard"])
def test_arrays_by_name(tmp_path, protocol, suffix):
    path = tmp_path / ("a" + suffix)
    path.write_bytes(pickle.dumps({"model": ARRAYS, "matching_heuristics": True}, protocol))
    assert_reads(path, ARRAYS)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_in_a_file_of_torch(tmp_path, protocol):
    torch.save(ARRAYS, tmp_path / "a.pt", pickle_protocol=protocol)
    assert_reads(tmp_path / "a.pt", ARRAYS)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_state_dicts_and_modules(tmp_path, protocol):
    path, state = tmp_path / "a.pkl", NET.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contents = [pickle.dumps(value, protocol) for value in (state, {"model": NET}, NET)]
    for content in contents:
        path.write_bytes(content)
        assert_reads(path, {name: tensor.numpy() for name, tensor in state.items()})


def test_arrays_next_to_tensors_are_no_weights(tmp_path):
    path = tmp_path / "a.pt"
    table = np.ones((9, 9))
    for content in (
        {"mine": {"w": torch.eye(3)}, "confusion": table, "epoch": 3},
        {"w": torch.eye(3), "confusion": table},
    ):
        torch.save(content, path)
        with open_checkpoint(path) as checkpoint:
            assert list(checkpoint.tensors) == ["w"]
            assert any("confusion" in note for note in checkpoint.notes)


def test_arrays_of_objects_are_passed_over(tmp_path):
    path = tmp_path / "a.pkl"
    odd = {"o": np.array([{}, []], dtype=object), "s": np.array(["a"]), "r": np.zeros(2, "i4,f4")}
    path.write_bytes(pickle.dumps({"w": np.eye(3)} | odd, 4))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tensors) == ["w"]


def test_a_pickle_without_tensors_is_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(argparse.Namespace(a=1), 4))
    with pytest.raises(UnsafeFileError, match=r"a plain pickle of argparse\.Namespace") as error:
        open_checkpoint(path)
    assert "safetensors" in error.value.hint
    path.write_bytes(pickle.dumps({"a": 1}, 4))
    with pytest.raises(CorruptFileError, match="no dense tensors"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x03K\x04\x86", b"K\x04K\x04\x86"),
        (b"f4", b"f8"),
        (b"K\x03K\x04\x86", b"K\x03J\xff\xff\xff\xff\x86"),
    ],
)
def test_arrays_whose_bytes_do_not_fit_are_not_read(tmp_path, old, new):
    whole = pickle.dumps({"w": ARRAYS["f4"]}, 2)
    assert old in whole
    path = tmp_path / "a.pkl"
    path.write_bytes(whole.replace(old, new))
    with pytest.raises((UnsafeFileError, CorruptFileError)):
        open_checkpoint(path)
