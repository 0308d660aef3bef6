"""Sources of data: what is written is what is read, and damaged files are named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from flagscope.errors import CorruptFileError, InputError, MissingFileError
from flagscope.lab.data import kind_of_source, load_images, split_indices

MNIST = Path(__file__).parents[3] / "shared/data/mnist.npz"
PIXELS = np.arange(7 * 4 * 3, dtype=np.uint8).reshape(7, 4, 3)
LABELS = np.array([0, 1, 2, 0, 1, 2, 2], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_idx(folder: Path, images: bytes, labels: bytes, *, zipped: bool) -> None:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    for name, raw in zip(names, (images, labels), strict=True):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)


def assert_planted(found):
    assert (tuple(found.inputs.shape), found.classes) == ((7, 12), 3)
    order = [int(row[0] * 255) // 12 for row in found.inputs]
    assert sorted(order) == list(range(7))
    assert order != list(range(7))
    for row, label, i in zip(found.inputs, found.labels, order, strict=True):
        assert torch.equal(row, torch.as_tensor(PIXELS[i].reshape(-1) / 255.0))
        assert label == LABELS[i]


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_folders(tmp_path, zipped):
    write_idx(tmp_path, idx(PIXELS), idx(LABELS), zipped=zipped)
    assert kind_of_source(str(tmp_path)) == "images"
    assert_planted(load_images(str(tmp_path)))


def test_npz_files(tmp_path):
    np.savez(tmp_path / "m.npz", x_train=PIXELS, y_train=LABELS)
    assert_planted(load_images(str(tmp_path / "m.npz")))
    few = load_images(str(tmp_path / "m.npz"), limit=3, dtype=torch.float32)
    assert (few.inputs.dtype, tuple(few.one_hot().shape)) == (torch.float32, (3, 3))


def test_real_mnist():
    if not MNIST.is_file():
        pytest.skip("MNIST is not here")
    found = load_images(str(MNIST), limit=2000)
    assert tuple(found.inputs.shape) == (2000, 784)
    # Shuffled: the file is ordered by class.
    assert len(found.labels[:100].unique()) == 10


def test_digits_are_sklearns_in_another_order():
    from sklearn.datasets import load_digits

    found, known = load_images(), load_digits()
    assert torch.bincount(found.labels).tolist() == np.bincount(known.target).tolist()
    assert found.inputs.sum().item() == known.data.sum() / 16
    assert torch.equal(load_images().inputs, found.inputs)
    assert not torch.equal(load_images(seed=1).inputs, found.inputs)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:7],
        lambda raw: b"",
        lambda raw: b"\0\0\x0d" + raw[3:],
        lambda raw: raw[:4] + b"\xff" * 12 + raw[16:],
    ],
)
def test_damaged_idx_files(tmp_path, damage):
    write_idx(tmp_path, damage(idx(PIXELS)), idx(LABELS), zipped=False)
    with pytest.raises(CorruptFileError, match="images-idx3"):
        load_images(str(tmp_path))


def test_damaged_archives_and_missing_files(tmp_path):
    write_idx(tmp_path, idx(PIXELS), idx(LABELS[:-1]), zipped=False)
    with pytest.raises(CorruptFileError, match="7 images and 6 labels"):
        load_images(str(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b\x08 not")
    with pytest.raises(MissingFileError, match="cannot be read"):
        load_images(str(tmp_path))
    with pytest.raises(MissingFileError, match="cannot be read"):
        load_images(str(tmp_path / "none.npz"))
    (tmp_path / "a.npz").write_bytes(b"PK no")
    with pytest.raises(CorruptFileError):
        load_images(str(tmp_path / "a.npz"))
    np.savez(tmp_path / "b.npz", x=PIXELS)
    with pytest.raises(CorruptFileError, match="x_train"):
        load_images(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", x_train=np.array([{}], dtype=object), y_train=LABELS)
    with pytest.raises(CorruptFileError, match="file of images"):
        load_images(str(tmp_path / "c.npz"))


def test_unknown_sources_are_refused():
    with pytest.raises(InputError, match="is not a source of data") as caught:
        kind_of_source("cifar")
    assert "digits" in (caught.value.hint or "")


def test_splits_repeat_themselves_and_leave_nothing_out():
    kept, held = split_indices(100, 0.25, seed=3)
    assert (len(kept), len(held)) == (75, 25)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(100))
    assert torch.equal(split_indices(100, 0.25, seed=3)[1], held)
