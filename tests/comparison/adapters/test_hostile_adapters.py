"""Adapters that are damaged, odd or hostile: an error with a hint, or a record that says so."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from comparison.adapters.peft_models import checkpoint
from flagscope.checkpoint.lora import read_adapter
from flagscope.comparison.adapters.coverage import adapter_coverage
from flagscope.comparison.adapters.pair import compared_adapters
from flagscope.comparison.adapters.replay import replayed_merge
from flagscope.errors import CorruptFileError, FlagscopeError, MissingFileError, SourceError

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"
NAME = "model.layers.0.self_attn.q_proj.weight"
A, B, W = torch.ones(2, 6), torch.full((4, 2), 0.5), torch.arange(24.0).reshape(4, 6)
SETTINGS = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def by_hand(folder, tensors=None, **settings):
    """An adapter written by hand."""
    folder.mkdir(exist_ok=True, parents=True)
    if tensors is None:
        tensors = {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B}
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    return folder


def replay(folder, base=W, merged=W, name=NAME):
    with read_adapter(folder) as adapter:
        return replayed_merge(checkpoint({name: base}), checkpoint({name: merged}), adapter)


@pytest.mark.parametrize("alpha", ["4", None, True, float("inf"), float("nan"), 10**400, [1]])
def test_alpha_that_is_not_a_number(tmp_path, alpha):
    with pytest.raises(CorruptFileError, match="lora_alpha") as error:
        read_adapter(by_hand(tmp_path / "a", lora_alpha=alpha))
    assert error.value.hint


@pytest.mark.parametrize("alpha", [0, -4, 1e9])
def test_alpha_that_is_odd(tmp_path, alpha):
    scaled = W + alpha / 2
    record = replay(by_hand(tmp_path / "a", lora_alpha=alpha), merged=scaled)
    assert record.outcome == ("zero_effect" if alpha == 0 else "applied")
    record.model_dump_json()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_factors_that_are_not_finite(tmp_path, value):
    bad = A.clone()
    bad[0, 0] = value
    folder = by_hand(tmp_path / "a", {MODULE + ".lora_A.weight": bad, MODULE + ".lora_B.weight": B})
    for act in (lambda: replay(folder),
                lambda: adapter_coverage(read_adapter(folder), checkpoint({NAME: W})),
                lambda: compared_adapters(read_adapter(folder), read_adapter(folder))):  # fmt: skip
        with pytest.raises(CorruptFileError, match="NaN or infinity") as error:
            act()
        assert error.value.hint


UNUSABLE = {
    "A alone": {MODULE + ".lora_A.weight": A},
    "ranks that differ": {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B[:, :1]},
    "rank zero": {MODULE + ".lora_A.weight": A[:0], MODULE + ".lora_B.weight": B[:, :0]},
    "no rows": {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B[:0]},
    "vectors": {MODULE + ".lora_A.weight": A[0], MODULE + ".lora_B.weight": B[0]},
    "twice": {MODULE + ".lora_A.weight": A, MODULE + ".lora_B.weight": B,
              MODULE + ".lora_A.default.weight": A},
}  # fmt: skip


@pytest.mark.parametrize("what", UNUSABLE)
def test_factors_that_do_not_belong_together(tmp_path, what):
    folder = by_hand(tmp_path / "a", UNUSABLE[what])
    record = replay(folder)
    assert [module.status for module in record.modules] == ["unusable"]
    assert record.outcome == "nothing_matches"
    with read_adapter(folder) as adapter:
        pair = compared_adapters(adapter, adapter)
    assert pair.outcome == "nothing_in_common"


@pytest.mark.parametrize("merged", [W[:3], W[:, :5], torch.zeros(0, 6), W.flatten()])
def test_merged_tensor_of_another_shape(tmp_path, merged):
    record = replay(by_hand(tmp_path / "a"), merged=merged)
    assert record.counts == {"shape_mismatch": 1}


def test_base_of_another_shape(tmp_path):
    record = replay(by_hand(tmp_path / "a"), base=W[:, :5], merged=W[:, :5])
    assert record.coverage.counts == {"shape_mismatch": 1}
    assert record.outcome == "nothing_matches"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_models_that_are_not_finite(tmp_path, value):
    bad = W.clone()
    bad[1, 1] = value
    for base, merged in ((bad, W + 2), (W, bad), (bad, bad)):
        record = replay(by_hand(tmp_path / "a"), base=base, merged=merged)
        assert record.counts == {"not_finite": 1}
        record.model_dump_json()


def test_patterns_that_are_regular_expressions_are_not_run(tmp_path):
    record = replay(by_hand(tmp_path / "a", alpha_pattern={"(a+)+$": 1}), merged=W + 2)
    assert any("(a+)+$" in line for line in record.cannot_tell)
    record = replay(by_hand(tmp_path / "a", target_modules="(a+)+$"), merged=W + 2)
    assert any("pattern" in line for line in record.cannot_tell)


VARIANTS = {
    "use_qalora": True, "layer_replication": [[0, 2]], "alora_invocation_tokens": [1],
    "arrow_config": {"top_k": 1}, "init_lora_weights": "pissa_niter_16",
}  # fmt: skip


@pytest.mark.parametrize("key", VARIANTS)
def test_variants_are_described(tmp_path, key):
    record = replay(by_hand(tmp_path / "a", **{key: VARIANTS[key]}), merged=W + 2)
    assert record.coverage.variants
    assert any("not replayed" in line for line in record.cannot_tell)


def test_kinds_that_are_not_lora(tmp_path):
    for kind in ("IA3", None, 7, ["LORA"], "x" * 10_000):
        with pytest.raises(SourceError, match="only LORA") as error:
            read_adapter(by_hand(tmp_path / "a", peft_type=kind))
        assert len(str(error.value)) < 2000


@pytest.mark.parametrize("settings", [
    {"target_modules": 7}, {"target_modules": [7]}, {"layers_to_transform": "all"},
    {"layers_to_transform": {"a": 1}}, {"rank_pattern": 7}, {"alpha_pattern": [1]},
    {"exclude_modules": "x"}, {"target_modules": None}, {"r": "two"}, {"modules_to_save": 3},
    {"target_modules": ["q_proj"], "layers_to_transform": [[0]]},
])  # fmt: skip
def test_settings_of_other_types(tmp_path, settings):
    assert replay(by_hand(tmp_path / "a", **settings), merged=W + 2).outcome == "applied"


def test_what_is_not_an_adapter(tmp_path):
    with pytest.raises(MissingFileError, match="not an adapter"):
        read_adapter(tmp_path)
    with pytest.raises(FlagscopeError):
        read_adapter(tmp_path / "nothing")
    folder = by_hand(tmp_path / "a")
    (folder / "adapter_model.safetensors").write_bytes(b"\x00" * 9)
    with pytest.raises(FlagscopeError):
        read_adapter(folder)


def test_packed_models(tmp_path):
    """An int8 merged model with scales: what the merge gives, rounded to that grid."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(40, 64, generator=generator)
    a, b = torch.randn(2, 64, generator=generator), torch.randn(40, 2, generator=generator) / 4
    folder = by_hand(tmp_path / "a", {MODULE + ".lora_A.weight": a, MODULE + ".lora_B.weight": b})
    whole = base + 2 * b @ a
    scale = whole.abs().amax(1, keepdim=True) / 127
    packed = {NAME: (whole / scale).round().to(torch.int8), NAME + "_scale": scale}
    with read_adapter(folder) as adapter:
        record = replayed_merge(checkpoint({NAME: base}), checkpoint(packed), adapter)
        assert record.outcome == "requantised"
        assert record.strength == pytest.approx(1, rel=0.01)
        unmerged = {NAME: (base / scale).round().clamp(-127, 127).to(torch.int8),
                    NAME + "_scale": scale}  # fmt: skip
        record = replayed_merge(checkpoint({NAME: base}), checkpoint(unmerged), adapter)
        assert record.outcome not in ("requantised", "applied")
