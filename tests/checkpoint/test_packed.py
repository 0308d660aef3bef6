"""Packed weights: GPTQ and AWQ come back exactly, others are refused by name."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint
from flagscope.errors import CorruptFileError, SourceError

INPUTS, OUTPUTS, GROUP = 64, 48, 16
AWQ_COLUMNS = [0, 2, 4, 6, 1, 3, 5, 7]


def as_word(values):
    word = sum(value << shift for value, shift in values)
    return word - 2**32 if word >= 2**31 else word


def pack_rows(integers, bits):
    """GPTQ: words run down the columns."""
    per, (rows, columns) = 32 // bits, integers.shape
    return torch.tensor([
        [as_word([(int(integers[per * r + i, c]), bits * i) for i in range(per)])
         for c in range(columns)] for r in range(rows // per)
    ], dtype=torch.int32)  # fmt: skip


def pack_columns(integers, bits, order=None):
    """GPTQ's zeros, and AWQ with its order of nibbles."""
    per, (rows, columns) = 32 // bits, integers.shape
    order = order or list(range(per))
    return torch.tensor([
        [as_word([(int(integers[r, per * c + order[i]]), bits * i) for i in range(per)])
         for c in range(columns // per)] for r in range(rows)
    ], dtype=torch.int32)  # fmt: skip


def quantised(bits, seed=0, *, shuffled=False):
    """Integers, zeros, scales and groups, and the weight that they stand for."""
    generator = torch.Generator().manual_seed(seed)
    integers = torch.randint(0, 2**bits, (INPUTS, OUTPUTS), generator=generator)
    zeros = torch.randint(0, 2**bits, (INPUTS // GROUP, OUTPUTS), generator=generator)
    zeros[0, 0], zeros[1, 1] = 0, 2**bits - 1  # both ends
    scales = (torch.rand(INPUTS // GROUP, OUTPUTS, generator=generator) / 50).half()
    groups = torch.arange(INPUTS) // GROUP
    if shuffled:
        groups = groups[torch.randperm(INPUTS, generator=generator)]
    weight = (integers - zeros[groups]).double() * scales[groups].double()
    return integers, zeros, scales, groups, weight.T


def gptq(bits=4, *, v2=False, shuffled=False, index=True):
    integers, zeros, scales, groups, weight = quantised(bits, shuffled=shuffled)
    lowered = zeros if v2 else (zeros - 1) % 2**bits
    state = {"fc.qweight": pack_rows(integers, bits), "fc.qzeros": pack_columns(lowered, bits),
             "fc.scales": scales, "fc.bias": torch.ones(OUTPUTS)}  # fmt: skip
    if index:
        state["fc.g_idx"] = groups.to(torch.int32)
    settings = {"quant_method": "gptq", "bits": bits}
    if v2:
        settings["checkpoint_format"] = "gptq_v2"
    return state, {"quantization_config": settings}, weight, scales[groups].T


def awq():
    integers, zeros, scales, groups, weight = quantised(4)
    state = {"fc.qweight": pack_columns(integers, 4, AWQ_COLUMNS),
             "fc.qzeros": pack_columns(zeros, 4, AWQ_COLUMNS), "fc.scales": scales,
             "fc.bias": torch.ones(OUTPUTS)}  # fmt: skip
    settings = {"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": GROUP}
    return state, {"quantization_config": settings}, weight, scales[groups].T


MADE = {
    "GPTQ": gptq(), "GPTQ 2 bits": gptq(2), "GPTQ 8 bits": gptq(8), "GPTQ v2": gptq(v2=True),
    "GPTQ in any order": gptq(shuffled=True), "GPTQ without index": gptq(index=False),
    "AWQ": awq(),
}  # fmt: skip


@pytest.mark.parametrize("what", MADE)
def test_weights_come_back_exactly(tmp_path, what):
    state, config, weight, step = MADE[what]
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == {"fc.weight", "fc.bias"}
        assert torch.equal(checkpoint.read("fc.weight").double(), weight)
        assert torch.equal(checkpoint.read("fc.weight", (slice(3, 9), 5)).double(), weight[3:9, 5])
        assert torch.equal(checkpoint.step("fc.weight"), step.float())
        assert checkpoint.step("fc.bias") is None
        assert what.split()[0] in checkpoint.tensors["fc.weight"].quantised
        assert any("dequantised" in note for note in checkpoint.notes)
        with pickle.loads(pickle.dumps(checkpoint)) as copy:
            assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(checkpoint)
        known = checkpoint_fingerprint(from_state_dict(state, config=config))
        assert known == checkpoint_fingerprint(checkpoint)


def test_scan_is_that_of_the_dequantised_weights():
    state, config, weight, _ = MADE["GPTQ"]
    packed = {name.replace("fc", "0"): tensor for name, tensor in state.items()}
    last = torch.randn(8, OUTPUTS, generator=torch.Generator().manual_seed(1))
    config = {**config, "activation": "relu"}
    options = {"config": config, "device": "cpu", "workers": 1}
    one = flagscope.scan(packed | {"2.weight": last}, **options)
    plain = {"0.weight": weight.float(), "0.bias": state["fc.bias"], "2.weight": last}
    other = flagscope.scan(plain, **options)
    assert not one.result.failures
    assert [pair.name for pair in one.result.pairs] == ["0-2"]
    assert one.result.pairs[0].overlap_ratio == pytest.approx(other.result.pairs[0].overlap_ratio)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["a.weight", "a.weight.absmax"], "bitsandbytes"),
        (["a.weight", "a.weight.quant_state.bitsandbytes__nf4"], "NF4"),
        (["a.weight_packed", "a.weight_scale"], "compressed-tensors"),
        (["a.weight", "a.weight_zero_point"], "zero points"),
        (["a.weight", "a.weight_scale", "a.weight_scale_2"], "NVFP4"),
        (["mlp.experts.down_proj_blocks", "mlp.experts.down_proj_scales"], "MXFP4"),
        (["a.W_q"], "HQQ"),
        (["a.weight._data", "a.weight._scale"], "Quanto"),
        (["a.codes", "a.codebooks"], "AQLM"),
    ],
)
def test_what_is_refused(tmp_path, names, what):
    save_file(
        {name: torch.ones(2, 2, dtype=torch.uint8) for name in names}, tmp_path / "a.safetensors"
    )
    for opening in (lambda: open_checkpoint(tmp_path / "a.safetensors"),
                    lambda: flagscope.inspect(tmp_path / "a.safetensors")):  # fmt: skip
        with pytest.raises(SourceError, match=what) as error:
            opening()
        assert "original" in error.value.hint


def test_quantiser_that_is_not_told():
    state, *_ = MADE["GPTQ"]
    for config in (None, {"quantization_config": {"bits": 4}}, {"quantization_config": 7}):
        with pytest.raises(SourceError, match="GPTQ or AWQ") as error:
            from_state_dict(state, config=config)
        assert "quant_method" in error.value.hint


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "gptq", "bits": 3},
        {"quant_method": "gptq", "bits": "4"},
        {"quant_method": "gptq", "bits": 0},
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
        {"quant_method": "awq", "bits": 8},
        {"quant_method": "awq", "bits": 4, "version": "gemv"},
    ],
)
def test_variant_that_is_not_supported(settings):
    with pytest.raises(SourceError, match="not supported"):
        from_state_dict(MADE["GPTQ"][0], config={"quantization_config": settings})


def broken(**changes):
    state, config, *_ = MADE["GPTQ"]
    changed = {**state, **{f"fc.{name}": value for name, value in changes.items()}}
    return {name: value for name, value in changed.items() if value is not None}, config


WRONG = {
    "no zeros": broken(qzeros=None),
    "no scales": broken(scales=None),
    "scales of a vector": broken(scales=torch.ones(4).half()),
    "scales of another width": broken(scales=torch.ones(4, 8).half()),
    "zeros of other groups": broken(qzeros=torch.zeros(3, 6, dtype=torch.int32)),
    "words of bytes": broken(qweight=torch.zeros(8, 48, dtype=torch.uint8)),
    "index of another length": broken(g_idx=torch.zeros(7, dtype=torch.int32)),
    "AWQ's shape": (MADE["AWQ"][0], MADE["GPTQ"][1]),
    "GPTQ's shape": (MADE["GPTQ"][0], MADE["AWQ"][1]),
    "empty": broken(qweight=torch.zeros(0, 48, dtype=torch.int32)),
    "both": broken(weight=torch.ones(2, 2)),
}


@pytest.mark.parametrize("what", WRONG)
def test_parts_that_do_not_fit(what):
    state, config = WRONG[what]
    with pytest.raises(CorruptFileError) as error:
        from_state_dict(state, config=config)
    assert error.value.hint


@pytest.mark.parametrize("value", [-1, 4, 2**31 - 1])
def test_index_of_a_group_that_is_not_there(value):
    state, config = broken(g_idx=torch.full((INPUTS,), value, dtype=torch.int32))
    with pytest.raises(CorruptFileError, match="g_idx"):
        from_state_dict(state, config=config).read("fc.weight")
