"""HDF5 and Keras files that lead elsewhere, in circles, or unpack to more than they are."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from attacks.conftest import read_whole
from checkpoint.keras_models import h5py
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, SourceError

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def external(file, folder):
    with h5py.File(folder / "secret.h5", "w") as other:
        other["w"] = W
    file["b"] = h5py.ExternalLink("secret.h5", "/w")


def external_data(file, folder):
    (folder / "secret").write_bytes(bytes(24))
    file.create_dataset("b", (2, 3), "f4", external=[(str(folder / "secret"), 0, 24)])


def virtual(file, folder):
    with h5py.File(folder / "secret.h5", "w") as other:
        other["w"] = W
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "w", (2, 3))
    file.create_virtual_dataset("b", layout)


def never_written(file, folder):
    file.create_dataset("b", (2**20, 2**20), "f4", chunks=(2**10, 2**10))


def contiguous_never_written(file, folder):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple((2**20, 2**20))
    h5py.h5d.create(file.id, b"b", h5py.h5t.IEEE_F32LE, space, plan)


def bomb(file, folder):
    file.create_dataset("b", data=np.zeros((2**13, 2**14), "f4"), compression="gzip")


def large_chunk(file, folder):
    file.create_dataset("b", data=np.zeros((2, 2**6), "f4"), maxshape=(None, None),
                        chunks=(2**13, 2**14), compression="gzip")  # fmt: skip


HOSTILE = {f.__name__: f for f in (external, external_data, virtual, never_written,
                                   contiguous_never_written, bomb, large_chunk)}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_file_that_is_refused(tmp_path, refused, what):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = W
        HOSTILE[what](file, tmp_path)
    refused(tmp_path / "a.h5", CorruptFileError, "/b")


def test_filter_that_is_a_plugin(tmp_path, refused):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((2, 3))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5d.create(file.id, b"b", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2, 3)), plan)
    refused(tmp_path / "a.h5", SourceError, "filter 32015")


def test_links_in_circles_end(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a/w"] = W
        file["a/b"] = file["/"]
        file["a/b/a"]["c"] = file["a"]
        file["loop"] = h5py.SoftLink("/loop")
        file["elsewhere"] = h5py.SoftLink("/a/w")
    with open_checkpoint(tmp_path / "a.h5") as checkpoint:
        assert list(checkpoint.tensors) == ["a.w"]
        assert any("/loop" in note for note in checkpoint.notes)


def test_deep_groups(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["w"] = W
    with open_checkpoint(tmp_path / "a.h5") as checkpoint:
        assert len(checkpoint.tensors) == 1


CONFIGS = {
    "text": '"dense"',
    "list": "[1, 2]",
    "no JSON": '{"class_name"',
    "deep": "[" * 100_000,
    "layers of numbers": json.dumps({"class_name": "Sequential", "config": {"layers": [1, "x"]}}),
    "names of numbers": json.dumps(
        {"class_name": "Sequential", "config": {"layers": [{"class_name": 3, "config": {}}]}}),
    "circle": json.dumps({"class_name": "Functional", "config": {
        "input_layers": [["a", 0, 0]], "output_layers": [["b", 0, 0]], "layers": [
            {"class_name": "Dense", "name": one, "config": {},
             "inbound_nodes": [[[two, 0, 0, {}]]]} for one, two in (("a", "b"), ("b", "a"))]}}),
    "strange types": json.dumps({"class_name": "Sequential", "config": {"layers": [
        {"class_name": kind, "config": {"name": "w", "activation": [], "axis": {}, "epsilon": "x",
                                        "dims": "ab", "target_shape": {}, "max_value": "x",
                                        "groups": "many", "data_format": 3, "equation": 7}}
        for kind in ("Dense", "BatchNormalization", "Permute", "Reshape", "ReLU", "Conv2D",
                     "EinsumDense", "Flatten", "MultiHeadAttention", "Embedding")]}}),
    "nested": json.dumps({"class_name": "Sequential", "config": {"layers": []}}),
}  # fmt: skip


@pytest.mark.parametrize("what", CONFIGS)
def test_configuration_that_lies(tmp_path, what):
    """Weights are read all the same."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.create("model_config", CONFIGS[what], dtype=h5py.string_dtype())
        file["model_weights/w/w/kernel:0"] = W
    with open_checkpoint(tmp_path / "a.h5") as checkpoint:
        assert list(checkpoint.tensors) == ["w.kernel"]
        assert np.array_equal(checkpoint.read("w.kernel").numpy(), W)


@pytest.mark.parametrize("depth", [40, 300, 100_000])
def test_models_in_models(tmp_path, depth):
    around = '{"class_name": "Sequential", "config": {"name": "s", "layers": ['
    text = around * depth + '{"class_name": "Dense", "config": {"name": "w"}}' + "]}}" * depth
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.create("model_config", text, dtype=h5py.string_dtype())
        file["model_weights/w/w/kernel:0"] = W
    with open_checkpoint(tmp_path / "a.h5") as checkpoint:
        assert list(checkpoint.tensors) == ["w.kernel"]
        assert (len(checkpoint.notes) > 0) == (depth > 40)


def keras(path: Path, packed: bool = False, **members) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["layers/dense/vars/0"] = W
    weights = path.with_suffix(".h5").read_bytes()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in {"config.json": "{}", "model.weights.h5": weights, **members}.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def test_archives(tmp_path, refused):
    path = tmp_path / "a.keras"
    read_whole(keras(path))
    refused(keras(path, packed=True), SourceError, "packed")
    refused(keras(path, **{"model.weights.h5": None}), SourceError, "holds no model.weights.h5")
    refused(keras(path, **{"model.weights.h5": b"\x89HDF"}), CorruptFileError, "HDF5")
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    refused(path, CorruptFileError, "archive")
    whole = keras(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, CorruptFileError, "archive")


DAMAGE = """
import random, sys
from pathlib import Path
from attacks.conftest import read_whole
from flagscope.errors import FlagscopeError
path, rng = Path(sys.argv[1]), random.Random(0)
whole = path.read_bytes()
read = refused = 0
for _ in range(300):
    content = bytearray(whole)
    for _ in range(rng.choice([1, 1, 2, 8])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)
    try:
        read_whole(path)
        read += 1
    except FlagscopeError as error:
        assert error.hint
        refused += 1
print(read, refused)
"""


@pytest.mark.parametrize("name", ["a.h5", "a.keras"])
def test_bytes_changed_anywhere(tmp_path, name):
    """In a process of its own: the HDF5 library is not written in Python."""
    path = keras(tmp_path / "a.keras")
    run = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(path.with_suffix(Path(name).suffix))],
        capture_output=True, text=True, timeout=300, check=False,
        cwd=Path(__file__).parent.parent, env={"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    read, turned_down = map(int, run.stdout.split())
    assert read > 0
    assert turned_down > 0
