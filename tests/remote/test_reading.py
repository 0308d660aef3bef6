"""Checkpoints behind URLs are those on disk, fetched in few requests and never whole."""

from __future__ import annotations

import json
import pickle
import threading
import uuid

import fsspec
import pytest
import torch
from safetensors.torch import save

from flagscope.checkpoint import checkpoint_fingerprint, open_checkpoint
from remote.conftest import CONFIG, in_folder, model, sharded, single


def same(url, folder):
    """Everything that the interface gives, compared with the files on disk."""
    with open_checkpoint(url) as far, open_checkpoint(folder) as near:
        assert dict(far.tensors).keys() == dict(near.tensors).keys()
        assert far.config == near.config == CONFIG
        for name, info in near.tensors.items():
            one = far.tensors[name]
            assert (one.shape, one.dtype, one.nbytes) == (info.shape, info.dtype, info.nbytes)
            assert torch.equal(far.read(name), near.read(name))
        for index in [(3,), (slice(2, 7),), (slice(2, 7), slice(5, 9)), (4, slice(1, 3)), (0, 0)]:
            name = "h.1.attn.c_attn.weight"
            assert torch.equal(far.read(name, index), near.read(name, index)), index
        assert checkpoint_fingerprint(far) == checkpoint_fingerprint(near)
        again = pickle.loads(pickle.dumps(far))
        assert torch.equal(again.read("wte.weight"), near.read("wte.weight"))


@pytest.mark.parametrize("files", [single, sharded])
class TestSameAsOnDisk:
    def test_memory(self, tmp_path, files):
        content, root = files(model()), f"memory://{uuid.uuid4().hex}"
        for name, data in content.items():
            fsspec.filesystem("memory").pipe_file(f"{root}/{name}", data)
        same(root, in_folder(content, tmp_path))

    def test_file(self, tmp_path, files):
        folder = in_folder(files(model()), tmp_path / "with space")
        same(folder.as_uri(), folder)

    def test_web(self, tmp_path, files, web):
        content = files(model())
        web.files = {f"/m/{name}": data for name, data in content.items()}
        same(f"{web.url}/m/", in_folder(content, tmp_path))

    def test_s3(self, tmp_path, files, bucket):
        put, _ = bucket
        content = files(model())
        same(put(content), in_folder(content, tmp_path))


@pytest.mark.parametrize("named", ["", "adapter_model.safetensors"])
def test_an_adapter_and_its_base_behind_urls(bucket, tmp_path, named):
    put, _ = bucket
    prefix = "base_model.model.h.0.mlp.c_fc"
    factors = {
        f"{prefix}.lora_A.weight": torch.randn(2, 24),
        f"{prefix}.lora_B.weight": torch.randn(96, 2),
    }
    settings = {"peft_type": "LORA", "lora_alpha": 4, "r": 2, "fan_in_fan_out": True}
    adapter = {
        "adapter_model.safetensors": save(factors),
        "adapter_config.json": json.dumps(settings).encode(),
    }
    base = single(model())
    far = put({f"adapter/{name}": content for name, content in adapter.items()} | base)
    near = in_folder(base, tmp_path / "base"), in_folder(adapter, tmp_path / "adapter")
    with (
        open_checkpoint(f"{far}adapter/{named}", base=far) as one,
        open_checkpoint(near[1] / named, base=near[0]) as other,
    ):
        assert one.recipe.base == far
        assert checkpoint_fingerprint(one) == checkpoint_fingerprint(other)
        name = "h.0.mlp.c_fc.weight"
        assert torch.equal(one.read(name), other.read(name))
        assert not torch.equal(one.read(name), model()[name])


def test_opening_a_folder_of_shards_lists_it_once_and_asks_each_shard_once(bucket):
    put, log = bucket
    url = put(sharded(model(), count=5))
    with open_checkpoint(url):
        # One listing; config, index, and the header of each shard. Sizes come with the listing.
        assert log.count("HEAD") == 0
        assert log.count("GET") == 1 + 2 + 5


def test_a_tensor_costs_its_bytes_and_one_request(web):
    rows = torch.arange(2**18).reshape(2**10, 2**8).float()
    web.files["/a.safetensors"] = save({"a": rows, "b": rows + 1, "c": torch.ones(3)})
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        web.log.clear()
        assert torch.equal(checkpoint.read("b"), rows + 1)
        assert web.log.requests == [("GET", "/a.safetensors", 2**20)]
        web.log.clear()
        assert torch.equal(checkpoint.read("a", (slice(5, 9),)), rows[5:9])
        assert web.log.requests == [("GET", "/a.safetensors", 4 * 2**10)]


def test_opening_fetches_the_header_alone(web):
    big = torch.zeros(2**21)
    web.files["/a.safetensors"] = save({"a": big})
    with open_checkpoint(f"{web.url}/a.safetensors"):
        assert web.log.sent() < 2**18 + 16
        # config.json beside it, size, whether the server sends parts, header.
        assert web.log.count() <= 5


def test_a_header_longer_than_the_first_request(web):
    state = {f"layer.{i}.{'x' * 200}": torch.full((2,), float(i)) for i in range(1500)}
    web.files["/a.safetensors"] = save(state)
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        assert len(checkpoint.tensors) == 1500
        for name in list(state)[::500]:
            assert torch.equal(checkpoint.read(name), state[name])


def test_a_large_tensor_comes_in_parts(web):
    values = torch.arange(5 * 2**20).float()  # 20 MiB
    web.files["/a.safetensors"] = save({"a": values})
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        web.log.clear()
        assert torch.equal(checkpoint.read("a"), values)
        assert sorted(size for _, _, size in web.log.requests) == [4 * 2**20, 2**23, 2**23]


def test_slices_across_rows_of_one_tensor_fetch_it_once(web):
    rows = torch.randn(64, 96)
    web.files["/a.safetensors"] = save({"a": rows})
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        web.log.clear()
        for start in (0, 32, 64):
            index = (slice(None), slice(start, start + 32))
            assert torch.equal(checkpoint.read("a", index), rows[:, start : start + 32])
        assert web.log.count("GET") == 1


def test_the_fingerprint_takes_few_requests(web):
    # 3 samples of each of 300 tensors would be 900.
    state = {f"{i}": torch.randn(128, 64) for i in range(300)}
    web.files["/a.safetensors"] = save(state)
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        web.log.clear()
        checkpoint_fingerprint(checkpoint)
        assert web.log.count() <= -(-len(web.files["/a.safetensors"]) // 2**23) + 1


def test_connections_are_used_again(web):
    web.files["/a.safetensors"] = save({f"{i}": torch.ones(4) for i in range(30)})
    seen = set()
    web.trouble.append(lambda *_: seen.add(threading.get_ident()))
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name)
    # The server has a thread for each connection.
    assert len(seen) <= 2


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int64, torch.bool]
)
def test_types(web, dtype):
    values = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]).to(dtype)
    web.files["/a.safetensors"] = save({"a": values, "empty": torch.zeros(0, 3, dtype=dtype)})
    with open_checkpoint(f"{web.url}/a.safetensors") as checkpoint:
        read = checkpoint.read("a", (slice(1, 2),))
        assert read.dtype == dtype
        assert torch.equal(read.view(torch.uint8), values[1:2].view(torch.uint8))
        assert checkpoint.read("empty").shape == (0, 3)
