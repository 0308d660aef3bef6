"""`inspect` of the largest models: from headers alone, in seconds, without a tensor."""

from __future__ import annotations

import json
import struct
import time
from math import prod

import pytest

import flagscope
from flagscope.checkpoint import Checkpoint

SHARD_BYTES = 5 * 10**9
MODELS = {  # layers, width, heads, key-value heads, width of the MLP, vocabulary, parameters
    "70B": (80, 8192, 64, 8, 28672, 128256, 70_553_706_496),
    "405B": (126, 16384, 128, 8, 53248, 128256, 405_853_388_800),
}


def shapes_of(layers, d, heads, kv, f, vocabulary):
    k = d // heads
    yield "model.embed_tokens.weight", (vocabulary, d)
    for i in range(layers):
        at = f"model.layers.{i}."
        yield at + "self_attn.q_proj.weight", (heads * k, d)
        yield at + "self_attn.k_proj.weight", (kv * k, d)
        yield at + "self_attn.v_proj.weight", (kv * k, d)
        yield at + "self_attn.o_proj.weight", (d, heads * k)
        yield at + "mlp.gate_proj.weight", (f, d)
        yield at + "mlp.up_proj.weight", (f, d)
        yield at + "mlp.down_proj.weight", (d, f)
        yield at + "input_layernorm.weight", (d,)
        yield at + "post_attention_layernorm.weight", (d,)
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (vocabulary, d)


def write_sparse(folder, shapes, *, scaled=False):
    """Shards of full apparent size, of which only the headers take room.

    With `scaled` the maps of the layers are float8 with scales of 128 × 128 blocks.
    """
    shards, sizes = [{}], [0]
    for name, shape in shapes:
        parts = [(name, "BF16", shape, 2)]
        if scaled and len(shape) == 2 and ".layers." in name:
            blocks = tuple(-(-extent // 128) for extent in shape)
            parts = [(name, "F8_E4M3", shape, 1), (name + "_scale_inv", "F32", blocks, 4)]
        for part, code, extents, size in parts:
            nbytes = prod(extents) * size
            if sizes[-1] + nbytes > SHARD_BYTES and shards[-1]:
                shards.append({})
                sizes.append(0)
            shards[-1][part] = {"dtype": code, "shape": extents,
                                "data_offsets": [sizes[-1], sizes[-1] + nbytes]}  # fmt: skip
            sizes[-1] += nbytes
    where = {}
    for number, (header, size) in enumerate(zip(shards, sizes, strict=True), start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        text = json.dumps(header).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + size)
        where |= dict.fromkeys(header, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return sum(sizes)


def config_of(layers, d, heads, kv, f, vocabulary):
    return {
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": d,
        "num_attention_heads": heads, "num_key_value_heads": kv, "intermediate_size": f,
        "vocab_size": vocabulary, "hidden_act": "silu", "rms_norm_eps": 1e-5,
    }  # fmt: skip


@pytest.mark.parametrize("scaled", [False, True], ids=["bfloat16", "float8"])
@pytest.mark.parametrize("model", MODELS)
def test_inspect_reads_headers_alone(tmp_path, monkeypatch, model, scaled):
    *sizes, parameters = MODELS[model]
    layers, heads = sizes[0], sizes[2]
    try:
        apparent = write_sparse(tmp_path, shapes_of(*sizes), scaled=scaled)
    except OSError as error:  # a file system that knows no sparse files, or not of this size
        pytest.skip(str(error))
    (tmp_path / "config.json").write_text(json.dumps(config_of(*sizes)))
    assert apparent >= parameters * (1 if scaled else 2)
    taken = sum(file.stat().st_blocks * 512 for file in tmp_path.iterdir())
    assert taken < 8e6

    def read(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(Checkpoint, "read", read)
    start = time.perf_counter()
    found = flagscope.inspect(tmp_path)
    seconds = time.perf_counter() - start
    assert seconds < 15
    assert found.graph.family == "llama"
    assert found.parameters == parameters
    # Q-K and V-O of each head, up and gate with down; O to the MLP of its block, and O and down to
    # all five readers of the next.
    residual = 2 * layers + 10 * (layers - 1)
    pairs = sum(len(group.members) for group in found.graph.pairs)
    assert pairs == layers * (2 * heads + 2) + residual
    assert len(found.graph.heads) == 4 * layers
    assert not [name for name in found.graph.unmapped if ".layers." in name]
    assert sum(task.flops for task in found.tasks) > 1e15
    assert all(0 < task.bytes_peak < apparent for task in found.tasks)
