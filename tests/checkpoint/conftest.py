"""One planted state dict, written in every format."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor

Write = Callable[[Mapping[str, Tensor], Path], Path]


def _safetensors(state: Mapping[str, Tensor], folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def _shards(state: Mapping[str, Tensor], folder: Path) -> Path:
    where = {}
    for number, (name, tensor) in enumerate(state.items()):
        file = f"model-{number % 3 + 1:05}-of-00003.safetensors"
        where.setdefault(file, {})[name] = tensor.contiguous()
    for file, part in where.items():
        save_file(part, folder / file)
    weight_map = {name: file for file, part in where.items() for name in part}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def _torch_shards(state: Mapping[str, Tensor], folder: Path) -> Path:
    names = list(state)
    parts = {
        "pytorch_model-00001-of-00002.bin": names[::2],
        "pytorch_model-00002-of-00002.bin": names[1::2],
    }
    for file, part in parts.items():
        torch.save({name: state[name] for name in part}, folder / file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(
        json.dumps({"weight_map": {name: file for file, part in parts.items() for name in part}})
    )
    return index


def _torch_zip(state: Mapping[str, Tensor], folder: Path) -> Path:
    path = folder / "weights.pt"
    torch.save(dict(state), path)
    return path


def _torch_legacy(state: Mapping[str, Tensor], folder: Path) -> Path:
    path = folder / "weights.th"
    torch.save(dict(state), path, _use_new_zipfile_serialization=False)
    return path


def _npz(state: Mapping[str, Tensor], folder: Path) -> Path:
    path = folder / "weights.npz"
    np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    return path


def _npz_compressed(state: Mapping[str, Tensor], folder: Path) -> Path:
    path = folder / "weights.npz"
    np.savez_compressed(path, **{name: tensor.numpy() for name, tensor in state.items()})
    return path


def _distributed(state: Mapping[str, Tensor], folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single process
        dcp.save({"model": dict(state), "step": 3}, checkpoint_id=folder)
    return folder


WRITERS: dict[str, Write] = {
    "safetensors": _safetensors,
    "shards": _shards,
    "torch shards": _torch_shards,
    "torch zip": _torch_zip,
    "torch legacy": _torch_legacy,
    "distributed": _distributed,
    "npz": _npz,
    "npz compressed": _npz_compressed,
}
NPZ = {"npz", "npz compressed"}


@pytest.fixture(scope="session")
def writers() -> dict[str, Write]:
    return WRITERS


@pytest.fixture(params=WRITERS)
def format_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def write(format_name: str) -> Write:
    return WRITERS[format_name]


@pytest.fixture
def state(format_name: str) -> dict[str, Tensor]:
    """Tensors of every kind that the format can hold."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "matrix": normal(70, 50),
        "double": normal(6, 5).double(),
        "half": normal(40, 60).half(),
        "kernel": normal(8, 4, 3, 3),
        "vector": normal(3000),
        "scalar": torch.tensor(0.25),
        "bn.num_batches_tracked": torch.tensor(977),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False, True]),
        "special": torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-45]),
        "turned": normal(7, 3).T,
        "every.other": normal(20, 6)[::2, 1::2],
    }
    if format_name not in NPZ:
        tensors["bfloat"] = normal(30, 20).bfloat16()
    if format_name not in {*NPZ, "torch legacy"}:  # torch.save cannot put float8 there
        tensors["float8"] = normal(16, 16).to(torch.float8_e4m3fn)
        tensors["float8_wide"] = normal(16, 16).to(torch.float8_e5m2)
    return tensors
