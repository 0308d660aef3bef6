"""Pipes, sockets and devices in the place of files: refused at once, and never opened."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.checkpoint import open_checkpoint
from flagscope.checkpoint.formats import SUFFIXES
from flagscope.errors import FlagscopeError, SourceError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes in folders")


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    """Opening a pipe waits for a writer, for ever."""

    def late(*_: object) -> None:
        raise AssertionError("waited for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refused(source: Path, says: str = "not a file", **options: object) -> None:
    with pytest.raises(FlagscopeError, match=says) as error:
        flagscope.inspect(source, **options)  # pyright: ignore[reportArgumentType]
    assert error.value.hint


def weights(path: Path) -> Path:
    save_file({"layers.0.weight": torch.eye(4), "layers.1.weight": torch.eye(4)}, path)
    return path


@pytest.mark.parametrize("suffix", [*SUFFIXES, "", ".pkl", ".index.json", ".distcp"])
def test_a_pipe_of_any_name(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"model{suffix}")
    refused(tmp_path / f"model{suffix}", "is a pipe, not a file")
    if suffix in SUFFIXES:
        refused(tmp_path)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/null"])
def test_a_device(device: str) -> None:
    refused(Path(device), "is a device, not a file")


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("a.safetensors")
        refused(Path("a.safetensors"), "is a socket, not a file")


def test_a_pipe_that_the_user_gives_as_something_else(tmp_path: Path) -> None:
    source, pipe = weights(tmp_path / "model.safetensors"), tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    refused(source, config=pipe)
    refused(source, "a folder, a pipe or a device", family=str(pipe))
    with pytest.raises(FlagscopeError, match="not a file"):
        flagscope.Report.from_json(pipe)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", ".metadata"])
def test_a_pipe_next_to_the_weights(tmp_path: Path, name: str) -> None:
    if name == "config.json":
        weights(tmp_path / "model.safetensors")
    (tmp_path / "__0_0.distcp").touch()
    os.mkfifo(tmp_path / name)
    refused(tmp_path)


def test_a_pipe_for_a_shard(tmp_path: Path) -> None:
    index = {"weight_map": {"layers.0.weight": "pipe.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    os.mkfifo(tmp_path / "pipe.safetensors")
    refused(tmp_path, "not in its folder")


def test_a_pipe_for_the_step_of_deepspeed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "latest")
    refused(tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "base"])
def test_a_pipe_for_a_part_of_an_adapter(tmp_path: Path, name: str) -> None:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "base"}
    if name != "adapter_config.json":
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    if name != "adapter_model.safetensors":
        weights(tmp_path / "adapter_model.safetensors")
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError):
        open_checkpoint(tmp_path).close()


def test_a_pipe_for_the_data_of_an_onnx_model(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto()
    tensor.name, tensor.data_type, tensor.data_location = "layers.0.weight", 1, 1
    tensor.dims.extend((2, 2))
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "pipe"
    os.mkfifo(tmp_path / "pipe")
    graph = onnx.helper.make_graph([], "g", [], [], [tensor])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "not in its folder")
