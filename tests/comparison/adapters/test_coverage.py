"""An adapter against its base alone: what finds its place, what would change nothing."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from comparison.adapters.peft_models import LLAMA, checkpoint, merged_case
from flagscope.checkpoint.lora import read_adapter
from flagscope.comparison.adapters.coverage import adapter_coverage

pytestmark = pytest.mark.filterwarnings("ignore")  # peft's and transformers' own


def coverage(case, base=None):
    with read_adapter(case.adapter) as adapter:
        return adapter_coverage(adapter, checkpoint(base or case.base))


def changed(case, act):
    """Store the adapter's tensors as a function of them gives them."""
    file = case.adapter / "adapter_model.safetensors"
    save_file({name: t.contiguous() for name, t in act(load_file(file)).items()}, file)


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"use_rslora": True},
                                  {"modules_to_save": ["lm_head"]}])  # fmt: skip
def test_an_adapter_that_fits(tmp_path, lora):
    record = coverage(merged_case(tmp_path, **lora))
    assert record.counts == {"matched": 14}
    assert not record.faults
    assert not record.missing_modules
    assert len(record.whole_matched) == len(lora.get("modules_to_save", []))


def test_untrained_and_vanishing_modules(tmp_path):
    case = merged_case(tmp_path, dtype=torch.bfloat16)

    def act(tensors):
        for name in tensors:
            if "layers.0.mlp.up_proj.lora_B" in name:
                tensors[name] = torch.zeros_like(tensors[name])
            if "layers.1.mlp.up_proj.lora_B" in name:
                tensors[name] = tensors[name] * 1e-9
        return tensors

    changed(case, act)
    record = coverage(case)
    assert record.counts == {"matched": 12, "zero_effect": 2}
    details = {m.detail for m in record.modules if m.status == "zero_effect"}
    assert details == {
        "the product of the factors is 0",
        "the change lies below rounding in every entry",
    }
    assert [fault.code for fault in record.faults] == ["zero_effect"]


@pytest.mark.parametrize(("targets", "layers", "missing"), [
    (LLAMA, None, ["model.layers.1.mlp.up_proj"]),
    (LLAMA, [0], []),
    (["q_proj"], None, []),
    ("all-linear", None, []),
])  # fmt: skip
def test_modules_that_the_file_lacks(tmp_path, targets, layers, missing):
    case = merged_case(tmp_path)
    changed(case, lambda ts: {n: t for n, t in ts.items() if "layers.1.mlp.up_proj" not in n})
    case.settings(target_modules=targets, layers_to_transform=layers)
    record = coverage(case)
    assert record.missing_modules == missing
    assert any("pattern" in line for line in record.cannot_tell) == (targets == "all-linear")


def test_base_of_another_architecture(tmp_path):
    case = merged_case(tmp_path / "a")
    other = merged_case(tmp_path / "b", "gpt2").base
    record = coverage(case, base=other)
    assert record.counts == {"no_target": 14}
    assert record.suggested_prefix is None
    assert [fault.code for fault in record.faults] == ["names_match_nothing"]


def test_experts_and_packed_projections_are_said_not_to_be_replayed(tmp_path):
    case = merged_case(tmp_path)
    base = {
        name.replace("q_proj.weight", "q_proj.in_proj_weight"): t for name, t in case.base.items()
    }
    record = coverage(case, base=base)
    assert record.counts == {"matched": 12, "not_replayed": 2}
