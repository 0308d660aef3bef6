"""Files that change while they are read: what is reported belongs to what was opened."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import flagscope
from checkpoint.conftest import WRITERS
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, FlagscopeError

# Another number draws other moments: FLAGSCOPE_TEST_SEED=3 pytest …
SEED = int(os.environ.get("FLAGSCOPE_TEST_SEED", "0"))
LAYERS = 6


def model(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layers.{i}.weight": torch.randn(96, 96, generator=generator) for i in range(LAYERS)}


def _gguf(state, folder: Path) -> Path:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(folder / "model.gguf", "strange")
    for name, tensor in state.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def _onnx(state, folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    tensors = []
    data = bytearray()
    for name, tensor in state.items():
        proto = onnx.TensorProto(name=name, dims=tensor.shape, data_type=1, data_location=1)
        raw = tensor.numpy().tobytes()
        for key, value in (("location", "data.bin"), ("offset", len(data)), ("length", len(raw))):
            proto.external_data.add(key=key, value=str(value))
        data += raw
        tensors.append(proto)
    (folder / "data.bin").write_bytes(data)
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    (folder / "model.onnx").write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return folder / "model.onnx"


def _flax(state, folder: Path) -> Path:
    msgpack = pytest.importorskip("msgpack")

    def array(tensor):
        parts = tuple(tensor.shape), "float32", tensor.numpy().tobytes()
        return msgpack.ExtType(1, msgpack.packb(parts, use_bin_type=True))

    tree = {"layers": {name.split(".")[1]: {"weight": array(w)} for name, w in state.items()}}
    (folder / "model.msgpack").write_bytes(msgpack.packb({"params": tree}, use_bin_type=True))
    return folder / "model.msgpack"


def _hdf5(state, folder: Path) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "model.h5", "w") as file:
        for name, tensor in state.items():
            file.create_dataset(name.replace(".", "/"), data=tensor.numpy())
    return folder / "model.h5"


FORMATS = {**WRITERS, "gguf": _gguf, "onnx, data outside": _onnx, "flax": _flax, "hdf5": _hdf5}
ACTIONS = ("truncate", "empty", "rewrite", "replace", "remove", "restore")


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()),
               key=lambda path: path.stat().st_size)  # fmt: skip


def act(action: str, path: Path, other: Path) -> None:
    """Do to a file what may happen to it; `other` holds other weights of the same shapes."""
    status = path.stat()
    whole = path.read_bytes()
    if action == "truncate":
        os.truncate(path, status.st_size // 3)
    elif action == "empty":
        os.truncate(path, 0)
    elif action == "remove":
        path.unlink()
    elif action == "replace":
        shutil.copy(other, path.with_name("new"))
        path.with_name("new").replace(path)
    else:
        with path.open("r+b") as file:
            file.write(other.read_bytes())
            file.truncate()
        if action == "restore":  # what was there, with its time of change, as cp -p leaves it
            path.write_bytes(whole)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Both models in every format, and what the first comes to."""
    found = {}

    def made(name: str):
        if name not in found:
            folders = [tmp_path_factory.mktemp("model") for _ in range(2)]
            paths = [FORMATS[name](model(seed), at)
                     for seed, at in enumerate(folders)]  # fmt: skip
            whole = flagscope.scan(paths[0], workers=1, device="cpu").result
            assert len(whole.pairs) == LAYERS - 1
            found[name] = *paths, {pair.name: pair.gram_correlation for pair in whole.pairs}
        return found[name]

    return made


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", FORMATS)
def test_a_report_is_right_or_names_what_failed_and_nothing_else_is_kept(
    name, action, places, tmp_path
):
    first, second, right = places(name)
    folder = tmp_path / "model"
    shutil.copytree(first.parent if first.is_file() else first, folder)
    path = folder / first.name if first.is_file() else folder
    file = largest(folder)
    other = largest(second.parent if second.is_file() else second)
    times = {one: one.stat() for one in folder.rglob("*") if one.is_file()}
    kept = {one: one.read_bytes() for one in times}
    moment = random.Random(f"{SEED} {name} {action}").randrange(LAYERS - 1)

    def progress(done, *_):
        if done == moment + 1:
            act(action, file, other)

    options = {"workers": 1, "device": "cpu", "store": tmp_path / "store", "memory": 2**20}
    error, result = None, None
    try:
        result = flagscope.scan(path, progress=progress, **options).result
    except FlagscopeError as found:
        error = found
    if result is not None:
        for pair in result.pairs:
            assert pair.gram_correlation == right[pair.name]
        for failure in result.failures:
            assert any(word in failure.error for word in ("changed", "removed")), failure.error
            assert failure.hint
        assert len(result.pairs) + len(result.failures) >= LAYERS - 1
    else:
        assert error is not None
        assert error.hint
        assert any(word in str(error) for word in ("changed", "removed"))
    for one, content in kept.items():
        one.write_bytes(content)
        os.utime(one, ns=(times[one].st_atime_ns, times[one].st_mtime_ns))
    again = flagscope.scan(path, **options).result
    assert {pair.name: pair.gram_correlation for pair in again.pairs} == right
    assert not again.failures


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_is_held_to_its_state(name, places, tmp_path):
    first, second, _ = places(name)
    folder = tmp_path / "model"
    shutil.copytree(first.parent if first.is_file() else first, folder)
    path = folder / first.name if first.is_file() else folder
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.stamps
        held = [n for n, info in checkpoint.tensors.items() if info.file == str(largest(folder))]
        checkpoint.read(held[0])
        act("restore", largest(folder), largest(second.parent if second.is_file() else second))
        with pytest.raises(CorruptFileError, match="was changed while") as error:
            checkpoint.read(held[1])
        assert error.value.hint


def damaged(path: Path, data: bytes) -> Path:
    """A copy with one bit of these data turned."""
    whole = bytearray(path.read_bytes())
    place = bytes(whole).index(data) + len(data) // 2
    whole[place] ^= 0x40
    copy = path.with_name(f"damaged-{path.name}")
    copy.write_bytes(whole)
    return copy


@pytest.mark.parametrize("name", ["npz", "torch zip", "distributed"])
def test_data_that_are_not_those_of_the_checksum_are_refused(name, places, tmp_path):
    first, _, _ = places(name)
    folder = tmp_path / "model"
    shutil.copytree(first.parent if first.is_file() else first, folder)
    file = largest(folder)
    tensor = "layers.2.weight"
    damaged(file, model(0)[tensor].numpy().tobytes()).replace(file)
    with open_checkpoint(folder / first.name if first.is_file() else folder) as checkpoint:
        checkpoint.read("layers.1.weight")
        checkpoint.read(tensor, (slice(0, 4),))  # a sample does not have all of it read
        with pytest.raises(CorruptFileError, match="do not have the checksum") as error:
            checkpoint.read(tensor)
        assert error.value.hint
        with pytest.raises(CorruptFileError, match="do not have the checksum"):
            checkpoint.read(tensor, (slice(0, 50),))  # the damage lies elsewhere in it


def test_packed_arrays_with_another_checksum_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", **{n: w.numpy() for n, w in model(0).items()})
    with zipfile.ZipFile(tmp_path / "m.npz") as archive:
        crc = archive.getinfo("layers.2.weight.npy").CRC
    whole = (tmp_path / "m.npz").read_bytes()
    changed = whole.replace(crc.to_bytes(4, "little"), (crc ^ 1).to_bytes(4, "little"))
    (tmp_path / "m.npz").write_bytes(changed)
    with open_checkpoint(tmp_path / "m.npz") as checkpoint:
        checkpoint.read("layers.1.weight")
        with pytest.raises(CorruptFileError, match="CRC"):
            checkpoint.read("layers.2.weight")


def test_a_torch_file_without_checksums_is_read(tmp_path):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(model(0), tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    with open_checkpoint(tmp_path / "m.pt") as checkpoint:
        assert checkpoint.read("layers.0.weight").equal(model(0)["layers.0.weight"])


def test_an_index_that_places_tensors_elsewhere_is_another_source(tmp_path):
    """The same shards, of which an index names another one for a tensor that both hold."""
    from safetensors.torch import save_file

    for number in range(2):
        save_file(model(number), tmp_path / f"model-{number}.safetensors")
    stamps = []
    for number in range(2):
        where = dict.fromkeys(model(0), f"model-{number}.safetensors") | {
            "layers.0.weight": "model-0.safetensors", "layers.1.weight": "model-1.safetensors"
        }  # fmt: skip
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": where}))
        with open_checkpoint(index) as checkpoint:
            stamps.append(sorted(checkpoint.stamps.values()))
    assert stamps[0] != stamps[1]
