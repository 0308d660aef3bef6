"""`inspect` of the largest models: from headers alone, in seconds, without a tensor."""

from __future__ import annotations

import json
import struct
from collections import Counter
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


# A DeepSeek-V3: latent attention, three dense layers, then 256 routed experts and a shared one.
LAYERS, DENSE, D, HEADS, EXPERTS, VOCABULARY = 61, 3, 7168, 128, 256, 129280
FLAT, ROUTED, Q_RANK, KV_RANK, NOPE, ROPE, VALUE = 18432, 2048, 1536, 512, 128, 64, 128
LATENT = {
    "model_type": "deepseek_v3", "num_hidden_layers": LAYERS, "hidden_size": D,
    "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "q_lora_rank": Q_RANK,
    "kv_lora_rank": KV_RANK, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE,
    "v_head_dim": VALUE, "intermediate_size": FLAT, "moe_intermediate_size": ROUTED,
    "n_routed_experts": EXPERTS, "n_shared_experts": 1, "first_k_dense_replace": DENSE,
    "vocab_size": VOCABULARY, "hidden_act": "silu", "rms_norm_eps": 1e-6,
}  # fmt: skip


def latent_shapes():
    yield "model.embed_tokens.weight", (VOCABULARY, D)
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        yield at + "self_attn.q_a_proj.weight", (Q_RANK, D)
        yield at + "self_attn.q_a_layernorm.weight", (Q_RANK,)
        yield at + "self_attn.q_b_proj.weight", (HEADS * (NOPE + ROPE), Q_RANK)
        yield at + "self_attn.kv_a_proj_with_mqa.weight", (KV_RANK + ROPE, D)
        yield at + "self_attn.kv_a_layernorm.weight", (KV_RANK,)
        yield at + "self_attn.kv_b_proj.weight", (HEADS * (NOPE + VALUE), KV_RANK)
        yield at + "self_attn.o_proj.weight", (D, HEADS * VALUE)
        yield at + "input_layernorm.weight", (D,)
        yield at + "post_attention_layernorm.weight", (D,)
        blocks = {"mlp.": FLAT}
        if i >= DENSE:
            yield at + "mlp.gate.weight", (EXPERTS, D)
            yield at + "mlp.gate.e_score_correction_bias", (EXPERTS,)
            blocks = {f"mlp.experts.{e}.": ROUTED for e in range(EXPERTS)}
            blocks["mlp.shared_experts."] = ROUTED
        for block, f in blocks.items():
            yield at + block + "gate_proj.weight", (f, D)
            yield at + block + "up_proj.weight", (f, D)
            yield at + block + "down_proj.weight", (D, f)
    yield "model.norm.weight", (D,)
    yield "lm_head.weight", (VOCABULARY, D)


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


@pytest.fixture
def unread(monkeypatch):
    """Reading a tensor is an error."""

    def read(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(Checkpoint, "read", read)


def written(folder, shapes, config, *, scaled, room):
    """Apparent size of a model of these shapes, which takes no more than `room` on the disk."""
    try:
        apparent = write_sparse(folder, shapes, scaled=scaled)
    except OSError as error:  # a file system that knows no sparse files, or not of this size
        pytest.skip(str(error))
    (folder / "config.json").write_text(json.dumps(config))
    assert sum(file.stat().st_blocks * 512 for file in folder.iterdir()) < room
    return apparent


@pytest.mark.parametrize("scaled", [False, True], ids=["bfloat16", "float8"])
@pytest.mark.parametrize("model", MODELS)
def test_inspect_reads_headers_alone(tmp_path, unread, model, scaled):
    *sizes, parameters = MODELS[model]
    layers, heads = sizes[0], sizes[2]
    shapes, config = shapes_of(*sizes), config_of(*sizes)
    apparent = written(tmp_path, shapes, config, scaled=scaled, room=8e6)
    assert apparent >= parameters * (1 if scaled else 2)
    found = flagscope.inspect(tmp_path)
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


@pytest.mark.parametrize("scaled", [False, True], ids=["bfloat16", "float8"])
def test_inspect_of_latent_attention_and_256_experts(tmp_path, unread, scaled):
    apparent = written(tmp_path, latent_shapes(), LATENT, scaled=scaled, room=4e7)
    parameters = 671_026_419_200  # as 2412.19437 says: 671 B
    assert apparent >= parameters * (1 if scaled else 2)
    found = flagscope.inspect(tmp_path)
    assert found.graph.family == "deepseek_v3"
    assert found.parameters == parameters
    kinds = Counter()
    for group in found.graph.pairs:
        kinds[group.kind] += len(group.members)
    mlps = DENSE + (LAYERS - DENSE) * (EXPERTS + 1)
    # Queries meet keys with position and without; up and gate both meet down. Along the stream O
    # goes to the up and gate of its block, and O and down to the four readers of the next; the
    # experts that only some tokens take are left out.
    assert kinds == {"qk": 2 * HEADS * LAYERS, "ov": HEADS * LAYERS, "latent": 2 * LAYERS,
                     "mlp": 2 * mlps, "residual": 2 * LAYERS + 8 * (LAYERS - 1)}  # fmt: skip
    experts = {(p.layer, m.expert) for p in found.graph.pairs for m in p.members if p.kind == "mlp"}
    assert experts >= {(i, e) for i in range(DENSE, LAYERS) for e in range(EXPERTS)}
    assert [group.space for group in found.graph.heads] == ["o"] * LAYERS
    routers = [f"model.layers.{i}.mlp.gate.weight" for i in range(DENSE, LAYERS)]
    ends = ["lm_head.weight", "model.embed_tokens.weight"]
    assert sorted(found.graph.unmapped) == sorted([*ends, *routers])
    assert sum(task.flops for task in found.tasks) > 1e15
    assert all(0 < task.bytes_peak < apparent for task in found.tasks)
