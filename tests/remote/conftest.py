"""Checkpoints behind URLs, and servers of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from remote.stores import Log, Web, s3_server, web_server

Put = Callable[[dict[str, bytes]], str]

CONFIG = {"model_type": "gpt2", "n_head": 4, "n_embd": 24, "n_layer": 2}


def model(layers: int = 2, d: int = 24) -> dict[str, Tensor]:
    """A small GPT-2."""
    generator = torch.Generator().manual_seed(7)
    shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d)}
    shapes |= {"mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    state = {
        f"h.{i}.{name}.weight": torch.randn(*shape, generator=generator)
        for i in range(layers)
        for name, shape in shapes.items()
    }
    state |= {f"h.{i}.ln_1.weight": torch.rand(d, generator=generator) for i in range(layers)}
    return state | {"wte.weight": torch.randn(50, d, generator=generator)}


def single(state: dict[str, Tensor]) -> dict[str, bytes]:
    return {"model.safetensors": save(state), "config.json": json.dumps(CONFIG).encode()}


def sharded(state: dict[str, Tensor], count: int = 3) -> dict[str, bytes]:
    parts: dict[str, dict[str, Tensor]] = {}
    for number, (name, tensor) in enumerate(state.items()):
        file = f"model-{number % count + 1:05}-of-{count:05}.safetensors"
        parts.setdefault(file, {})[name] = tensor
    where = {name: file for file, part in parts.items() for name in part}
    return {
        **{file: save(part) for file, part in parts.items()},
        "model.safetensors.index.json": json.dumps({"weight_map": where}).encode(),
        "config.json": json.dumps(CONFIG).encode(),
    }


def in_folder(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def web() -> Iterator[Web]:
    pytest.importorskip("aiohttp")
    with web_server() as running:
        yield running


@pytest.fixture(scope="session")
def s3() -> Iterator[tuple[str, Log]]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server", reason="needs moto and flask")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with s3_server() as running:
        yield running


@pytest.fixture
def bucket(s3: tuple[str, Log], monkeypatch: pytest.MonkeyPatch, request) -> tuple[Put, Log]:
    """A function that puts files into a new bucket and gives its URL, and the server's log."""
    url, log = s3
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{abs(hash(request.node.nodeid))}"

    def put(files: dict[str, bytes]) -> str:
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        if not store.exists(name):
            store.mkdir(name)
        for file, content in files.items():
            store.pipe_file(f"{name}/models/{file}", content)
        log.clear()
        return f"s3://{name}/models/"

    return put, log
