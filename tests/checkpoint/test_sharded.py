"""Shards and the index that holds them together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, MissingFileError

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
W = torch.arange(12.0).reshape(3, 4)


def sharded(folder: Path, weight_map=None) -> Path:
    save_file({"a": W, "b": W + 1}, folder / FIRST)
    save_file({"c": W + 2}, folder / SECOND)
    path = folder / "model.safetensors.index.json"
    given = {"a": FIRST, "b": FIRST, "c": SECOND} if weight_map is None else weight_map
    path.write_text(json.dumps({"metadata": {"total_size": 144}, "weight_map": given}))
    return path


def test_index_and_its_folder_open_alike(tmp_path):
    path = sharded(tmp_path)
    with open_checkpoint(path) as one, open_checkpoint(tmp_path) as two:
        assert one.tensors == two.tensors
        assert [info.file for info in one.tensors.values()] == [
            str(tmp_path / name) for name in (FIRST, FIRST, SECOND)
        ]
        assert two.read("c", (0,)).equal(W[0] + 2)


def test_index_decides_what_belongs_to_the_model(tmp_path):
    sharded(tmp_path, {"a": FIRST, "c": SECOND})
    save_file({"a": W + 9}, tmp_path / "stray.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert list(checkpoint.tensors) == ["a", "c"]
        assert checkpoint.read("a").equal(W)


def test_same_name_in_two_shards_is_the_indexs(tmp_path):
    sharded(tmp_path)
    save_file({"a": W + 7, "c": W + 2}, tmp_path / SECOND)
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("a").equal(W)


def test_missing_shards_are_named(tmp_path):
    sharded(tmp_path)
    (tmp_path / SECOND).unlink()
    with pytest.raises(MissingFileError, match=SECOND) as error:
        open_checkpoint(tmp_path)
    assert error.value.hint
    assert FIRST not in str(error.value)


def test_many_missing_shards_are_counted(tmp_path):
    sharded(tmp_path, {f"t{k}": f"model-{k:05}-of-00099.safetensors" for k in range(99)})
    with pytest.raises(MissingFileError, match="names 99 files") as error:
        open_checkpoint(tmp_path)
    assert len(str(error.value)) < 500


def test_index_of_another_checkpoint(tmp_path):
    sharded(tmp_path, {"a": FIRST, "z": SECOND})
    with pytest.raises(CorruptFileError, match="holds 'z', but it does not") as error:
        open_checkpoint(tmp_path)
    assert error.value.hint


def test_broken_shard_is_named(tmp_path):
    sharded(tmp_path)
    whole = (tmp_path / SECOND).read_bytes()
    (tmp_path / SECOND).write_bytes(whole[:-8])
    with pytest.raises(CorruptFileError, match=SECOND):
        open_checkpoint(tmp_path)


def test_closing_closes_every_shard(tmp_path):
    sharded(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    shards = list(checkpoint._shards.values())
    checkpoint.close()
    assert all(shard._closed for shard in shards)
