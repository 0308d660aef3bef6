"""Sources that cannot be read: a clear error, a hint, code 2, and no foreign code run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cli.conftest import Run, perceptron
from cli.test_wrong_use import complaint


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def nothing(folder: Path) -> Path:
    return folder / "nowhere.safetensors"


def empty_name(_: Path) -> str:
    return ""


def without_weights(folder: Path) -> Path:
    (folder / "README.txt").write_text("no weights here")
    return folder


def empty_file(folder: Path) -> Path:
    path = folder / "empty.safetensors"
    path.touch()
    return path


def truncated(folder: Path) -> Path:
    path = folder / "cut.safetensors"
    save_file(perceptron(), path)
    path.write_bytes(path.read_bytes()[:-100])
    return path


def unknown_dtype(folder: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F99", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    path = folder / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return path


def missing_shards(folder: Path) -> Path:
    names = {f"{i}.weight": f"model-{i}.safetensors" for i in (0, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def hostile_zip(folder: Path) -> Path:
    path = folder / "hostile.pt"
    torch.save({"0.weight": Canary(folder / "canary")}, path)
    return path


def hostile_pickle(folder: Path) -> Path:
    path = folder / "hostile.bin"
    path.write_bytes(pickle.dumps({"0.weight": Canary(folder / "canary")}))
    return path


def contradiction(folder: Path) -> Path:
    save_file({"transformer.h.0.attn.c_attn.weight": torch.zeros(32, 96)}, folder / "a.safetensors")
    config = {"model_type": "gpt2", "n_embd": 48, "n_head": 2, "n_layer": 1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def broken_config(folder: Path) -> Path:
    save_file(perceptron(), folder / "a.safetensors")
    (folder / "config.json").write_text("{")
    return folder


def names_that_are_no_text(folder: Path) -> Path:
    path = folder / "names.pt"
    torch.save({"\udcff.0.weight": torch.eye(3), "\udcff.2.weight": torch.eye(3)}, path)
    return path


SOURCES = [
    (nothing, "neither a path that exists"),
    (empty_name, "neither a path that exists"),
    (without_weights, "holds no weights"),
    (empty_file, "is empty"),
    (truncated, "not a whole safetensors file"),
    (unknown_dtype, "'F99'"),
    (missing_shards, "model-0.safetensors"),
    (hostile_zip, "mkdir"),
    (hostile_pickle, "pickle"),
    (contradiction, "config key 'n_embd'"),
    (broken_config, "not valid JSON"),
    (names_that_are_no_text, "not valid text"),
]


@pytest.mark.parametrize(("make", "said"), SOURCES, ids=lambda one: getattr(one, "__name__", None))
@pytest.mark.parametrize("command", ["scan", "inspect"])
def test_unreadable_sources(
    run: Run, tmp_path: Path, command: str, make: Callable[[Path], Path], said: str
) -> None:
    error, _ = complaint(run(command, make(tmp_path)))
    assert said in error
    assert not (tmp_path / "canary").exists()


def test_the_canary_sings_where_code_is_run(tmp_path: Path) -> None:
    with hostile_pickle(tmp_path).open("rb") as file:
        pickle.load(file)
    assert (tmp_path / "canary").exists()


def test_a_hub_name_offline(tmp_path: Path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    process = subprocess.run(
        [sys.executable, "-m", "flagscope", "scan", "nobody/nothing"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout) == (2, "")
    error, hint = process.stderr.splitlines()
    assert error.startswith("error: the weights of nobody/nothing are not in the local cache")
    assert "HF_HUB_OFFLINE" in hint
