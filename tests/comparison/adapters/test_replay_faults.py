"""Twelve faults of merging, in three types: each is named, and the strength is right to 1 %."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from comparison.adapters.peft_models import merged_case, tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's and transformers' own
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SQUARE = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return DTYPES[request.param]


def codes(record):
    return {fault.code for fault in record.faults}


def deltas(case):
    """s·B A of every module, float64, by the base's names."""
    settings = json.loads((case.adapter / "adapter_config.json").read_text())
    tensors = load_file(case.adapter / "adapter_model.safetensors")
    found = {}
    for name, a in tensors.items():
        if ".lora_A." in name:
            b = tensors[name.replace("lora_A", "lora_B")]
            root = len(a) ** 0.5 if settings["use_rslora"] else len(a)
            module = name.removeprefix("base_model.model.").partition(".lora_A")[0]
            product = b.double() @ a.double() * settings["lora_alpha"] / root
            found[module + ".weight"] = product.T if settings["fan_in_fan_out"] else product
    return found


def added(case, strength, dtype):
    """The base plus a multiple of the change, as a float32 product is added to it."""
    change = deltas(case)
    return {
        name: (tensor.float() + (strength * change[name]).float()).to(dtype)
        if name in change else tensor
        for name, tensor in case.base.items()
    }  # fmt: skip


def test_not_applied(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype)
    record = case.replay(merged=case.base)
    assert record.outcome == "not_applied"
    assert "not_applied" in codes(record)
    assert record.strength == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_applied_twice(tmp_path, dtype, kind):
    peft = pytest.importorskip("peft")
    case = merged_case(tmp_path, kind, dtype, r=8)
    model = tiny(kind, dtype)
    for _ in range(2):  # as a script does that is run on its own output
        model = peft.PeftModel.from_pretrained(model, case.adapter).merge_and_unload()
    record = case.replay(merged=dict(model.state_dict()))
    assert record.outcome == "applied_twice"
    assert record.strength == pytest.approx(2, rel=0.01)
    assert "applied_twice" in codes(record)


@pytest.mark.parametrize("factor", [0.5, 1.7, 4.0])
def test_wrong_alpha(tmp_path, dtype, factor):
    case = merged_case(tmp_path, dtype=dtype, r=8, lora_alpha=16)
    case.settings(lora_alpha=16 / factor)
    record = case.replay()
    assert record.outcome == "applied_at_strength"
    assert record.strength == pytest.approx(factor, rel=0.01)
    assert "other_strength" in codes(record)


@pytest.mark.parametrize("stated", [True, False])
def test_rank_stabilised_scaling_missed_or_added(tmp_path, dtype, stated):
    case = merged_case(tmp_path, dtype=dtype, r=8, use_rslora=not stated, spread=0.03)
    case.settings(use_rslora=stated)
    record = case.replay()
    assert record.outcome == "other_scaling"
    assert record.strength == pytest.approx(8**-0.5 if stated else 8**0.5, rel=0.01)


def test_transposed(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype, target_modules=SQUARE)
    case.settings(fan_in_fan_out=True)
    record = case.replay()
    assert record.outcome == "transposed"
    assert record.counts == {"transposed": 8}


def test_a_module_is_missing_in_the_merged_model(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype)
    name = "model.layers.1.self_attn.v_proj.weight"
    record = case.replay(merged=case.merged | {name: case.base[name]})
    assert record.outcome == "partly"
    assert record.counts == {"applied": 13, "not_applied": 1}
    assert record.faults[0].names == [name.removesuffix(".weight")]


def test_a_module_is_missing_in_the_adapters_file(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype)
    file = case.adapter / "adapter_model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if "layers.1.mlp.up_proj" not in n}
    save_file(tensors, file)
    record = case.replay()
    assert record.outcome == "applied"
    assert {"module_missing", "other_tensors_changed"} <= codes(record)
    assert record.coverage.missing_modules == ["model.layers.1.mlp.up_proj"]


@pytest.mark.parametrize(("old", "new"), [("model.layers", "language_model.model.layers"),
                                          ("model.layers", "transformer.blocks")])  # fmt: skip
def test_prefix_mismatch(tmp_path, dtype, old, new):
    case = merged_case(tmp_path, dtype=dtype)
    file = case.adapter / "adapter_model.safetensors"
    save_file({n.replace(f".{old}.", f".{new}."): t for n, t in load_file(file).items()}, file)
    record = case.replay(merged=case.base)
    assert record.outcome in ("not_applied", "nothing_matches")
    assert "prefix_mismatch" in codes(record)
    if new == "transformer.blocks":
        assert record.outcome == "nothing_matches"
        assert record.coverage.suggested_prefix == (new, old)


@pytest.mark.parametrize("targets", [SQUARE, ["up_proj", "down_proj"]])
def test_wrong_adapter(tmp_path, dtype, targets):
    case = merged_case(tmp_path / "one", dtype=dtype, r=2, target_modules=SQUARE)
    other = merged_case(tmp_path / "two", dtype=dtype, r=2, target_modules=targets, spread=0.1)
    tensors = load_file(case.adapter / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(5)
    save_file({n: torch.randn(t.shape, generator=generator) * 0.1 for n, t in tensors.items()},
              case.adapter / "adapter_model.safetensors")  # fmt: skip
    record = case.replay(merged=other.merged)
    assert record.outcome == "other_adapter"
    assert "other_adapter" in codes(record)


def test_wrong_base(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype)
    generator = torch.Generator().manual_seed(1)
    base = {
        name: (t.float() + 0.01 * torch.randn(t.shape, generator=generator)).to(t.dtype)
        for name, t in case.base.items()
    }
    record = case.replay(base=base)
    assert record.outcome == "other_base"
    unrelated = dict(tiny("llama", dtype, seed=9).state_dict())
    assert case.replay(base=unrelated).outcome == "other_base"


@pytest.mark.parametrize("levels", [127, 7])
def test_requantised(tmp_path, dtype, levels):
    case = merged_case(tmp_path, dtype=dtype)
    merged = {}
    for name, tensor in case.merged.items():
        step = tensor.double().abs().amax(-1, keepdim=True) / levels
        coarse = ((tensor.double() / step).round() * step).to(dtype)
        merged[name] = coarse if tensor.ndim == 2 else tensor
    record = case.replay(merged=merged)
    assert record.outcome == "requantised"
    assert record.strength == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_dora(tmp_path, dtype, kind):
    case = merged_case(tmp_path, kind, dtype, use_dora=True)
    record = case.replay()
    assert record.outcome == "dora"
    assert not record.faults
    plain = case.replay(merged=added(case, 1.0, dtype))
    assert plain.outcome == "dora_without_magnitudes"


@pytest.mark.parametrize("lora", [
    {"target_modules": ["embed_tokens", "q_proj"]},
    {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
])  # fmt: skip
def test_embeddings_left_out(tmp_path, dtype, lora):
    case = merged_case(tmp_path, dtype=dtype, **lora)
    out = {name: t for name, t in case.base.items() if "embed" in name or "lm_head" in name}
    record = case.replay(merged=case.merged | out)
    assert record.outcome == "partly"
    assert "embeddings_left_out" in codes(record)


def test_subtracted_and_exchanged(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype)
    assert case.replay(base=case.merged, merged=case.base).outcome in ("exchanged", "subtracted")
    record = case.replay(merged=added(case, -1.0, dtype))
    assert record.outcome in ("subtracted", "exchanged")
    assert record.strength == pytest.approx(-1, rel=0.01)


def test_factors_saved_unmerged(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype, target_modules=["q_proj"])
    inside = {}
    for name, tensor in case.base.items():
        stem, _, last = name.rpartition(".")
        inner = ".base_layer" if "q_proj" in name else ""
        inside[f"base_model.model.{stem}{inner}.{last}"] = tensor
    inside |= load_file(case.adapter / "adapter_model.safetensors")
    record = case.replay(merged=inside)
    assert record.outcome == "not_unloaded"


def test_adapter_without_effect(tmp_path, dtype):
    case = merged_case(tmp_path, dtype=dtype, spread=1e-9)
    record = case.replay()
    assert record.outcome == "zero_effect"
    assert any("below rounding" in module.detail for module in record.modules)
    shutil.rmtree(case.adapter)
