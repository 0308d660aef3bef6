"""GGUF files of real configurations: the scan is that of the model before the conversion."""

from __future__ import annotations

import json
import re

import pytest
import torch

import flagscope
from checkpoint.test_gguf import STATED, decaying, moved, neighbours, normal, rounded, write
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, MissingFileError, SourceError

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

LAYERS, EXPERTS, RANK, NOPE, ROPE, VALUE = 2, 3, 32, 32, 16, 64
BASIC = {
    "hidden_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": 96, "vocab_size": 32, "max_position_embeddings": 64,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "tie_word_embeddings": False,
}  # fmt: skip
GROUPED = {**BASIC, "num_key_value_heads": 2}
TIED = {**GROUPED, "head_dim": 32, "tie_word_embeddings": True}
SPARSE = {**GROUPED, "num_experts": EXPERTS, "num_local_experts": EXPERTS, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "shared_expert_intermediate_size": 64}  # fmt: skip
LATENT = {
    **BASIC, "num_key_value_heads": 4, "q_lora_rank": 64, "kv_lora_rank": RANK,
    "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": VALUE,
    "n_routed_experts": EXPERTS, "num_experts_per_tok": 1, "moe_intermediate_size": 32,
    "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
}  # fmt: skip
# Class of the model, settings, architecture as GGUF calls it.
MODELS = {
    "llama": ("Llama", GROUPED, "llama"),
    "mixtral": ("Mixtral", SPARSE, "llama"),
    "qwen2": ("Qwen2", GROUPED, "qwen2"),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 32}, "qwen3"),
    "qwen2_moe": ("Qwen2Moe", SPARSE, "qwen2moe"),
    "qwen3_moe": ("Qwen3Moe", {**SPARSE, "head_dim": 32}, "qwen3moe"),
    "olmoe": ("Olmoe", SPARSE, "olmoe"),
    "olmo2": ("Olmo2", GROUPED, "olmo2"),
    "gemma": ("Gemma", TIED, "gemma"),
    "gemma2": ("Gemma2", TIED, "gemma2"),
    "gemma3": ("Gemma3", TIED, "gemma3"),
    "phi3": ("Phi3", GROUPED, "phi3"),
    "starcoder2": ("Starcoder2", GROUPED, "starcoder2"),
    "deepseek_v2": ("DeepseekV2", {**LATENT, "topk_method": "greedy"}, "deepseek2"),
    "deepseek_v2-whole": ("DeepseekV2", {**LATENT, "topk_method": "greedy", "q_lora_rank": None},
                          "deepseek2"),
    "deepseek_v3": ("DeepseekV3", LATENT, "deepseek2"),
}  # fmt: skip


def original(case, folder):
    """The tensors that save_pretrained writes, with planted numbers, and the config."""
    name, settings, _ = MODELS[case]
    config_class = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")
    config = config_class(**settings)
    getattr(transformers, f"{name}ForCausalLM")(config).save_pretrained(folder)
    with open_checkpoint(folder) as checkpoint:
        shapes = {name: info.shape for name, info in checkpoint.tensors.items()}
    state = {
        name: decaying(*shape, seed=i) if len(shape) == 2 else 1 + 0.3 * normal(*shape, seed=i)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return state, json.loads((folder / "config.json").read_text())


def converted(state, config, architecture, *, halves=True):
    """What llama.cpp's converter writes, by the gguf package's own table of names."""
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(kind, LAYERS)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    out, stacks = {}, {}

    def put(name, tensor):
        given = name.replace("e_score_correction_bias", "e_score_correction.bias")
        out[table.get_name(given, try_suffixes=(".weight", ".bias"))] = tensor

    for name, tensor in state.items():
        if match := re.fullmatch(r"(.+experts)\.\d+(\..+)", name):
            stacks.setdefault(match[1] + match[2], []).append(tensor)
        elif architecture == "llama" and re.search(r"(q|k)_proj", name):
            put(name, neighbours(tensor, heads if "q_proj" in name else kv_heads))
        elif architecture.startswith("gemma") and name.endswith("norm.weight"):
            put(name, tensor + 1)
        elif "kv_b_proj" in name and halves:
            both = tensor.reshape(heads, NOPE + VALUE, RANK)
            put(name.replace("kv_b", "k_b"), both[:, :NOPE].mT.contiguous())
            put(name.replace("kv_b", "v_b"), both[:, NOPE:].contiguous())
        else:
            put(name, tensor)
    for name, tensors in stacks.items():
        put(name, torch.stack(tensors))
    return out


def kept(name, tensor):
    """A tensor after rounding in the form in which the converter rounds it."""
    if "kv_b_proj" not in name:
        return rounded(tensor, "Q8_0")
    both = tensor.reshape(-1, NOPE + VALUE, RANK)
    keys, values = both[:, :NOPE].mT.contiguous(), both[:, NOPE:].contiguous()
    halves = (rounded(keys, "Q8_0").mT, rounded(values, "Q8_0"))
    return torch.cat(halves, 1).reshape(tensor.shape)


def metadata(config, *, halves=True):
    told = {
        "block_count": "num_hidden_layers", "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size", "context_length": "max_position_embeddings",
        "attention.head_count": "num_attention_heads", "attention.key_length": "head_dim",
        "attention.head_count_kv": "num_key_value_heads", "attention.q_lora_rank": "q_lora_rank",
        "attention.kv_lora_rank": "kv_lora_rank", "expert_used_count": "num_experts_per_tok",
        "rope.dimension_count": "head_dim", "expert_shared_count": "n_shared_experts",
        "expert_feed_forward_length": "moe_intermediate_size",
        "leading_dense_block_count": "first_k_dense_replace",
    }  # fmt: skip
    found = {key: config[name] for key, name in told.items() if config.get(name)}
    experts = ("num_experts", "num_local_experts", "n_routed_experts")
    if count := next((config[key] for key in experts if config.get(key)), None):
        found["expert_count"] = count
    if config.get("kv_lora_rank"):
        found["rope.dimension_count"] = ROPE
        found["expert_gating_func"] = 2 if config["model_type"] == "deepseek_v3" else 1
        mla = "_mla" if halves else ""
        found |= {f"attention.key_length{mla}": NOPE + ROPE, f"attention.value_length{mla}": VALUE}
        if halves:
            found |= {"attention.head_count_kv": 1, "attention.key_length": RANK + ROPE,
                      "attention.value_length": RANK}  # fmt: skip
    return found


@pytest.mark.parametrize("case", MODELS)
def test_scan_is_that_of_the_original(tmp_path, case):
    state, config = original(case, tmp_path / "model")
    architecture = MODELS[case][2]
    stored, told = converted(state, config, architecture), metadata(config)
    exact = write(tmp_path / "exact.gguf", stored, "F32", told, architecture)
    with open_checkpoint(exact) as checkpoint:
        assert set(checkpoint.tensors) >= {name for name in state if state[name].ndim == 2}
        for name, tensor in state.items():
            if name in checkpoint.tensors:
                assert checkpoint.tensors[name].shape == tuple(tensor.shape)
                torch.testing.assert_close(checkpoint.read(name), tensor, rtol=1e-6, atol=1e-6)
                if tensor.ndim == 2:
                    assert torch.equal(checkpoint.read(name, (slice(1, 5), 3)), tensor[1:5, 3])
        assert config.items() >= {
            (key, value) for key, value in (checkpoint.config or {}).items()
            if key in ("model_type", "num_attention_heads", "num_key_value_heads", "q_lora_rank",
                       "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        }  # fmt: skip
    path = write(tmp_path / "model.gguf", stored, "Q8_0", told, architecture)
    options = {"device": "cpu", "workers": 1}
    before = flagscope.scan(state, config=config, **options).result
    after = flagscope.scan(path, **options).result
    as_kept = {name: kept(name, tensor) for name, tensor in state.items()}
    rounding = flagscope.scan(as_kept, config=config, **options).result
    assert after.family == before.family
    assert not after.failures
    assert after.unmapped == before.unmapped
    assert len(after.heads) == len(before.heads)
    change = max(
        float((as_kept[name] - t).norm() / t.norm()) for name, t in state.items() if t.ndim == 2
    )
    assert change < STATED["Q8_0"]
    assert {pair.name for pair in after.pairs} == {pair.name for pair in before.pairs}
    known = {pair.name: pair for pair in before.pairs}
    same = {pair.name: pair for pair in rounding.pairs}
    for pair in after.pairs:
        one = known[pair.name]
        assert (pair.freedom, pair.between) == (one.freedom, one.between)
        # Gains of Gemma are stored with 1 added, in float32.
        assert moved(pair, same[pair.name]) < (1e-7 if pair.kind == "residual" else 1e-9)
        assert moved(pair, one) < 5 * STATED["Q8_0"]  # at most 0.036


def test_older_files_hold_keys_and_values_of_the_latent_space_together(tmp_path):
    state, config = original("deepseek_v3", tmp_path / "model")
    stored = converted(state, config, "deepseek2", halves=False)
    told = metadata(config, halves=False)
    path = write(tmp_path / "old.gguf", stored, "F16", told, "deepseek2")
    with open_checkpoint(path) as checkpoint:
        for i in range(LAYERS):
            name = f"model.layers.{i}.self_attn.kv_b_proj.weight"
            assert torch.equal(checkpoint.read(name), state[name].half())
        sizes = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "num_key_value_heads")
        found = checkpoint.config or {}
        assert [found.get(key) for key in sizes] == [NOPE, ROPE, VALUE, 4]


def test_halves_of_two_types_come_together(tmp_path):
    keys, values = normal(4, RANK, NOPE), normal(4, VALUE, RANK, seed=1)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "deepseek2")
    writer.add_uint32("deepseek2.attention.head_count", 4)
    writer.add_tensor("blk.0.attn_k_b.weight", keys.half().numpy())
    blocks = gguf.quants.quantize(values.numpy(), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_v_b.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    finish(writer)
    expected = torch.cat((keys.half().float().mT, rounded(values, "Q8_0")), 1)
    name = "model.layers.0.self_attn.kv_b_proj.weight"
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        info = checkpoint.tensors[name]
        assert (info.dtype, info.quantised, len(checkpoint.tensors)) == ("float32", "Q8_0", 1)
        assert torch.equal(checkpoint.read(name), expected.flatten(0, 1))
        step = checkpoint.step(name)
        assert step is not None
        step = step.unflatten(0, (4, -1))
        assert not step[:, :NOPE].any()
        assert (step[:, NOPE:] > 0).all()
        assert ((expected[:, NOPE:] - values).abs() <= step[:, NOPE:]).all()


@pytest.mark.parametrize("values", [(4, VALUE, RANK + 32), (2, VALUE, RANK), (VALUE, RANK)])
def test_halves_that_do_not_belong_together(tmp_path, values):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "deepseek2")
    writer.add_tensor("blk.0.attn_k_b.weight", normal(4, RANK, NOPE).numpy())
    writer.add_tensor("blk.0.attn_v_b.weight", normal(*values).numpy())
    finish(writer)
    with pytest.raises(CorruptFileError, match="does not belong"):
        open_checkpoint(tmp_path / "a.gguf")


def test_stack_that_is_none(tmp_path):
    stored = {"blk.0.ffn_up_exps.weight": normal(64)}
    path = write(tmp_path / "a.gguf", stored, "F32", {"block_count": 1}, "qwen3moe")
    with pytest.raises(CorruptFileError, match="stack of experts"):
        open_checkpoint(path)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def parts(tmp_path):
    """A model in parts as llama-gguf-split writes them: all metadata in the first."""
    state, config = original("qwen3_moe", tmp_path / "model")
    stored = converted(state, config, "qwen3moe")
    folder = tmp_path / "parts"
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "m.gguf", "qwen3moe", split_max_tensors=8)
    for key, value in metadata(config).items():
        writer.add_uint32(f"qwen3moe.{key}", value)
    for name, tensor in stored.items():
        writer.add_tensor(name, tensor.contiguous().numpy())
    finish(writer)
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"m-{i:05}-of-00004.gguf" for i in (1, 2, 3, 4)]
    return state, paths


def test_parts_are_one_model(parts):
    state, paths = parts
    for source in (paths[0], paths[2], paths[0].parent):
        with open_checkpoint(source) as checkpoint:
            assert set(checkpoint.tensors) == set(state)
            assert (checkpoint.config or {}).get("model_type") == "qwen3_moe"
            for name, tensor in state.items():
                assert torch.equal(checkpoint.read(name), tensor), name
            files = {info.file for info in checkpoint.tensors.values()}
            assert files == {str(path) for path in paths}


def test_a_part_is_missing(parts):
    paths = parts[1]
    paths[1].unlink()
    with pytest.raises(MissingFileError, match="of which 1 are not in its folder: m-00002"):
        open_checkpoint(paths[3])
    with pytest.raises(MissingFileError, match="m-00002"):
        open_checkpoint(paths[0].parent)


def test_a_part_under_another_name(parts):
    paths = parts[1]
    paths[1].write_bytes(paths[2].read_bytes())
    with pytest.raises(CorruptFileError, match="should be part 1 of 4"):
        open_checkpoint(paths[0])
    alone = paths[0].rename(paths[0].with_name("renamed.gguf"))
    with pytest.raises(SourceError, match="its name does not tell the others"):
        open_checkpoint(alone)


def test_parts_of_different_models(parts, tmp_path):
    paths = parts[1]
    other = gguf.GGUFWriter(tmp_path / "o.gguf", "qwen3moe", split_max_tensors=1)
    for name in "abcd":
        other.add_tensor(name, normal(3).numpy())
    finish(other)
    paths[1].write_bytes((tmp_path / "o-00002-of-00004.gguf").read_bytes())
    with pytest.raises(CorruptFileError, match="the first says"):
        open_checkpoint(paths[0])
