"""Sixty merges of PEFT that are as they should be: not one is flagged."""

from __future__ import annotations

import itertools

import pytest
import torch

from comparison.adapters.peft_models import merged_case

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's and transformers' own
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
FORMS = [
    ("llama", {"r": 4, "lora_alpha": 16}),
    ("llama", {"r": 8, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]}),
    ("llama", {"r": 1, "lora_alpha": 3, "target_modules": ["up_proj", "down_proj"]}),
    ("llama", {"r": 16, "rank_pattern": {"o_proj": 2}, "alpha_pattern": {"q_proj": 5}}),
    ("llama", {"r": 2, "target_modules": ["embed_tokens", "o_proj"], "embeddings": True}),
    ("llama", {"r": 2, "target_modules": ["k_proj"], "modules_to_save": ["lm_head"]}),
    ("gpt2", {"r": 4, "target_modules": ["c_attn", "c_fc"]}),
    ("gpt2", {"r": 8, "bias": "all", "target_modules": ["c_proj"]}),
    ("bert", {"r": 4, "lora_bias": True, "target_modules": ["query", "value"]}),
    ("bert", {"r": 4, "cast": False, "spread": 0.1}),
]
CASES = list(itertools.product(range(len(FORMS)), DTYPES, [False, True]))


@pytest.mark.parametrize(("form", "dtype", "safe"), CASES)
def test_nothing_is_flagged(tmp_path, form, dtype, safe):
    kind, lora = FORMS[form]
    seed = CASES.index((form, dtype, safe))
    case = merged_case(
        tmp_path, kind, DTYPES[dtype], seed=seed, safe=safe, **{"spread": 0.03, **lora}
    )
    record = case.replay()
    assert record.outcome == "applied", record.evidence
    assert not record.faults
    assert set(record.counts) == {"applied"}
    assert record.strength == pytest.approx(1, rel=0.01)
    assert all(module.entries_outside == 0 for module in record.modules)


def test_there_are_sixty():
    assert len(CASES) == 60


@pytest.mark.parametrize("dtype", DTYPES)
def test_changes_near_the_rounding_of_the_weights(tmp_path, dtype):
    """Where most of the change is lost in rounding, least squares would be short of 1."""
    case = merged_case(tmp_path, dtype=DTYPES[dtype], spread=0.004, r=4)
    record = case.replay()
    assert record.outcome in ("applied", "zero_effect")
    assert all(module.status in ("applied", "zero_effect") for module in record.modules)


@pytest.mark.parametrize(("first", "second"), [("fp32", "bf16"), ("bf16", "fp32"),
                                               ("fp32", "fp16"), ("bf16", "fp16")])  # fmt: skip
def test_merged_in_one_type_and_saved_in_another(tmp_path, first, second):
    case = merged_case(tmp_path, dtype=DTYPES[first])
    merged = {name: tensor.to(DTYPES[second]) for name, tensor in case.merged.items()}
    record = case.replay(merged=merged)
    assert record.outcome == "applied", record.evidence
    assert not record.faults


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_one_entry_that_is_wrong_is_seen(tmp_path, dtype, side):
    case = merged_case(tmp_path, dtype=DTYPES[dtype])
    name = "model.layers.0.mlp.up_proj.weight"
    wrong = case.merged[name].clone()
    end = torch.full((), side * 1e4, dtype=wrong.dtype)
    wrong[3, 5] = torch.nextafter(wrong[3, 5], end)
    record = case.replay(merged=case.merged | {name: wrong})
    module = next(m for m in record.modules if m.tensor == name)
    assert module.entries_outside == 1
    assert module.status == "applied"
    assert "1 of 6144 entries" in module.detail
    assert [fault.code for fault in record.faults] == ["entries_differ"]


@pytest.mark.parametrize("embeddings", [False, True])
def test_an_embedding_that_the_head_shares(tmp_path, embeddings):
    case = merged_case(
        tmp_path, "gpt2", torch.float16, target_modules=["wte", "c_attn"], embeddings=embeddings
    )
    assert torch.equal(case.merged["lm_head.weight"], case.merged["transformer.wte.weight"])
    record = case.replay()
    assert record.outcome == "applied"
    assert not record.faults
