"""Weights of bitsandbytes and compressed-tensors, against what their own libraries made of them.

`quantised.json` was written with bitsandbytes 0.50.2 and compressed-tensors 0.20.1 on a CPU: small
matrices quantised by each, all parts as stored, and the weight as the library dequantises it.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint, widen
from flagscope.errors import CorruptFileError, SourceError

CASES = json.loads((Path(__file__).parent / "quantised.json").read_text())
INDICES = [(), (slice(2, 5),), (3,), (slice(None), slice(3, 14)), (slice(1, 6), 7), (4, 17),
           (slice(3, 3),), (slice(5, 6), slice(1, 2))]  # fmt: skip


def decoded(stored):
    dtype = getattr(torch, stored["dtype"])
    if "bits" in stored:
        bits = torch.tensor(
            stored["bits"], dtype=torch.int16 if dtype.itemsize == 2 else torch.int8
        )
        return bits.view(dtype).reshape(stored["shape"])
    return torch.tensor(stored["values"], dtype=dtype).reshape(stored["shape"])


def parts_of(what, at="a."):
    return {at + name: decoded(part) for name, part in CASES[what]["parts"].items()}


def weight_of(checkpoint, name, index=()):
    return widen(checkpoint.read(name, index), torch.float32, scale=checkpoint.scale(name, index))


@pytest.mark.parametrize("what", CASES)
def test_weight_is_that_of_the_library(tmp_path, what):
    weight = decoded(CASES[what]["weight"])
    save_file(parts_of(what) | {"a.bias": torch.ones(3)}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        scales = checkpoint.auxiliary
        assert {name for name in checkpoint.tensors if name not in scales} == {"a.weight", "a.bias"}
        assert checkpoint.tensors["a.weight"].shape == tuple(weight.shape)
        for index in INDICES:
            read = weight_of(checkpoint, "a.weight", index)
            # The library rounds what it makes of 4-bit floats to bfloat16.
            assert torch.equal(read.to(weight.dtype), weight[index]), index
        with pickle.loads(pickle.dumps(checkpoint)) as copy:
            assert checkpoint_fingerprint(copy) == checkpoint_fingerprint(checkpoint)
            assert torch.equal(weight_of(copy, "a.weight"), weight_of(checkpoint, "a.weight"))
        same = from_state_dict(parts_of(what) | {"a.bias": torch.ones(3)})
        assert checkpoint_fingerprint(same) == checkpoint_fingerprint(checkpoint)
        if "naive int8" not in what or "zero" in what:  # the other one is read as scaled int8
            assert what.split(",")[0].replace("naive ", "") == checkpoint.tensors[
                "a.weight"].quantised  # fmt: skip
            assert any("dequantised when read: 1" in note for note in checkpoint.notes)


@pytest.mark.parametrize("what", [what for what in CASES if "compressed" in what])
def test_step_is_the_spacing_of_the_grid(what):
    checkpoint = from_state_dict(parts_of(what))
    weight, step = weight_of(checkpoint, "a.weight").double(), checkpoint.step("a.weight").double()
    # Every weight is a whole number of steps.
    assert ((weight / step) - (weight / step).round()).abs().max() < 1e-4
    for index in INDICES:
        assert torch.equal(checkpoint.step("a.weight", index).double(), step[index])


@pytest.mark.parametrize("code", ["NF4", "FP4"])
def test_step_has_the_mean_square_of_the_rounding(code):
    # Values spread evenly over the grid, rounded to the nearest code.
    part = parts_of(code)["a.weight.quant_map"].double()
    values = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    nearest = (values[:, None] - part).abs().argmin(1)
    rows = 64 * (len(values) // 64)
    bytes_of = nearest[:rows].view(-1, 2)
    state = parts_of(code)
    told = json.dumps({"quant_type": code.lower(), "blocksize": 64, "dtype": "float32",
                       "shape": [rows // 64, 64]})  # fmt: skip
    state |= {
        "a.weight": (bytes_of[:, 0] * 16 + bytes_of[:, 1]).to(torch.uint8)[:, None],
        "a.weight.absmax": torch.full((rows // 64,), 2.0),
        f"a.weight.quant_state.bitsandbytes__{code.lower()}": torch.tensor(
            list(told.encode()), dtype=torch.uint8
        ),
    }
    checkpoint = from_state_dict(state)
    weight = checkpoint.read("a.weight").double().flatten()
    assert torch.equal(weight, 2 * part[nearest[:rows]])
    error = (weight - 2 * values[:rows]).square()
    step = checkpoint.step("a.weight").double().flatten()
    inside = ~torch.isin(nearest[:rows], torch.stack((part.argmin(), part.argmax())))
    for chosen in (inside, ~inside):
        square = (step[chosen] ** 2 / 12).mean().item()
        assert square == pytest.approx(error[chosen].mean().item(), rel=0.01)


E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]


def test_nvfp4_of_modelopt():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 16, (6, 48), generator=generator)
    scale = torch.rand(6, 3, generator=generator).mul(400).to(torch.float8_e4m3fn)
    state = {"a.weight": (codes[:, ::2] + 16 * codes[:, 1::2]).to(torch.uint8),
             "a.weight_scale": scale, "a.weight_scale_2": torch.tensor(0.03125),
             "a.input_scale": torch.tensor(2.0)}  # fmt: skip
    values = torch.tensor(E2M1)[codes] * scale.float().repeat_interleave(16, 1) * 0.03125
    checkpoint = from_state_dict(state)
    assert checkpoint.tensors["a.weight"].quantised == "NVFP4"
    for index in INDICES:
        assert torch.equal(checkpoint.read("a.weight", index), values[index]), index
    # Next to 6 lies 4 alone; 2 lies between gaps of 0.5 and 1.
    step = checkpoint.step("a.weight") / (scale.float().repeat_interleave(16, 1) * 0.03125)
    magnitude = torch.tensor(E2M1)[codes].abs()
    assert step[magnitude == 6] == pytest.approx(2.0)
    assert step[magnitude == 2] == pytest.approx((1.125 / 1.5) ** 0.5)
    assert step[magnitude == 0] == pytest.approx(0.5)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "int8"])
def test_flattened_weights_of_torchao(kind):
    dtype = getattr(torch, kind)
    stored = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).mul(20).to(dtype)
    scale = torch.rand(6, 1) + 0.5
    state = {"a._weight_qdata": stored, "a._weight_scale": scale, "a.bias": torch.ones(6)}
    checkpoint = from_state_dict(state)
    assert set(checkpoint.tensors) == {"a.weight", "a.bias"}
    assert len(checkpoint.notes) == 1
    for index in INDICES:
        expected = (stored.float() * scale)[index]
        assert torch.equal(checkpoint.read("a.weight", index), expected)
        assert checkpoint.step("a.weight", index).shape == expected.shape
    # The spacing of float8 doubles with each power of 2, below 2^-6 (2^-14) it stays.
    exponent = torch.frexp(stored.float()).exponent - 1
    bits, lowest = {"float8_e4m3fn": (3, -6), "float8_e5m2": (2, -14), "int8": (0, 0)}[kind]
    ulp = torch.ldexp(torch.ones(6, 20), exponent.clamp_min(lowest) - bits)
    inside = torch.frexp(stored.float()).mantissa.abs() != 0.5  # not between two spacings
    ratio = checkpoint.step("a.weight") / scale / (ulp if kind != "int8" else 1)
    assert ratio[inside] == pytest.approx(1.0)


def test_packed_weights_of_torchao_are_refused():
    state = {"a._weight_qdata": torch.zeros(4, 4, dtype=torch.uint8),
             "a._weight_scale": torch.ones(4, 1)}  # fmt: skip
    with pytest.raises(SourceError, match="torchao"):
        from_state_dict(state)


def test_groups_in_any_order():
    parts = parts_of("compressed-tensors int4, group, zero points")
    groups = torch.arange(40) // 8
    groups = groups[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    checkpoint = from_state_dict(parts | {"a.weight_g_idx": groups.to(torch.int32)})
    plain = from_state_dict(parts)
    integers = plain.read("a.weight") / plain.step("a.weight")  # less their zeros
    zeros = integers - integers.round()
    assert zeros.abs().max() < 1e-4
    words = parts["a.weight_packed"]
    raised = torch.stack([(words >> 4 * i) & 15 for i in range(8)], -1).flatten(1)
    points = parts["a.weight_zero_point"]
    points = torch.stack([(points >> 4 * i) & 15 for i in range(8)], 1).flatten(0, 1)[:10]
    expected = (raised - points[:, groups]) * parts["a.weight_scale"][:, groups]
    for index in INDICES:
        assert torch.equal(checkpoint.read("a.weight", index), expected[index])
    unused = from_state_dict(parts | {"a.weight_g_idx": torch.full((40,), -1, dtype=torch.int32)})
    assert torch.equal(unused.read("a.weight"), plain.read("a.weight"))


def test_zero_points_of_zero_leave_the_weight_as_it_is():
    state = {"a.weight": torch.ones(4, 4).to(torch.float8_e4m3fn),
             "a.weight_scale": torch.tensor([2.0]),
             "a.weight_zero_point": torch.zeros(1).to(torch.float8_e4m3fn)}  # fmt: skip
    checkpoint = from_state_dict(state)
    assert torch.equal(weight_of(checkpoint, "a.weight"), torch.full((4, 4), 2.0))
    assert "a.weight_zero_point" not in checkpoint.tensors
    with pytest.raises(SourceError, match="zero points"):
        from_state_dict(state | {"a.weight_zero_point": torch.ones(1).to(torch.float8_e4m3fn)})


def test_blocks_of_the_config_of_compressed_tensors():
    weights = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [2, 8]}
    config = {"quantization_config": {"config_groups": {"group_0": {"weights": weights}}}}
    scale = torch.arange(1.0, 10).reshape(3, 3)
    state = {"a.weight": torch.ones(5, 20).to(torch.float8_e4m3fn), "a.weight_scale": scale}
    whole = scale.repeat_interleave(2, 0)[:5].repeat_interleave(8, 1)[:, :20]
    assert torch.equal(weight_of(from_state_dict(state, config=config), "a.weight"), whole)


@pytest.mark.parametrize("what", ["NF4, nested", "compressed-tensors int4, group, zero points"])
def test_scan_is_that_of_the_dequantised_weights(what):
    weight = decoded(CASES[what]["weight"])
    last = torch.randn(4, weight.shape[0], generator=torch.Generator().manual_seed(1))
    options = {"config": {"activation": "relu"}, "device": "cpu", "workers": 1}
    one = flagscope.scan(parts_of(what, "0.") | {"2.weight": last}, **options).result
    other = flagscope.scan({"0.weight": weight, "2.weight": last}, **options).result
    assert not one.failures
    assert one.parameters == other.parameters
    assert [pair.name for pair in one.pairs] == ["0-2"]
    for measured in ("commutator_ratio", "gram_correlation", "imbalance"):
        assert getattr(one.pairs[0], measured) == pytest.approx(getattr(other.pairs[0], measured))


STATE = "a.weight.quant_state.bitsandbytes__nf4"


def told(**changes):
    state = json.loads(bytes(parts_of("NF4, nested")[STATE].tolist()))
    state = {key: value for key, value in {**state, **changes}.items() if value is not ...}
    return {STATE: torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)}


LIES = {
    "no JSON": {STATE: torch.tensor([123, 1], dtype=torch.uint8)},
    "a list": {STATE: torch.tensor([91, 93], dtype=torch.uint8)},
    "deep": {STATE: torch.full((2**14,), 91, dtype=torch.uint8)},
    "long": {STATE: torch.full((2**14 + 1,), 32, dtype=torch.uint8)},
    "of floats": {STATE: torch.ones(20)},
    "no shape": told(shape=None),
    "empty shape": told(shape=[]),
    "shape of text": told(shape="7 19"),
    "other shape": told(shape=[7, 21]),
    "huge shape": told(shape=[2**40, 2**40]),
    "negative shape": told(shape=[-7, -19]),
    "true": told(shape=[True, 133]),
    "no block": told(blocksize=...),
    "block of 0": told(blocksize=0),
    "other block": told(blocksize=16),
    "no nested block": told(nested_blocksize=...),
    "nested block of 0": told(nested_blocksize=0),
    "other nested block": told(nested_blocksize=2),
    "endless offset": told(nested_offset=float("inf")),
    "offset of text": told(nested_offset="1"),
    "absmax of another length": {"a.weight.absmax": torch.zeros(9, dtype=torch.uint8)},
    "absmax of floats": {"a.weight.absmax": torch.zeros(5)},
    "short table": {"a.weight.quant_map": torch.zeros(15)},
    "short nested table": {"a.weight.nested_quant_map": torch.zeros(16)},
    "no nested table": {"a.weight.nested_quant_map": None},
    "flat bytes": {"a.weight": torch.zeros(67, dtype=torch.uint8)},
    "too few bytes": {"a.weight": torch.zeros(66, 1, dtype=torch.uint8)},
}


@pytest.mark.parametrize("lie", LIES)
def test_parts_of_4_bits_that_do_not_fit(lie):
    state = {key: value for key, value in {**parts_of("NF4, nested"), **LIES[lie]}.items()
             if value is not None}  # fmt: skip
    with pytest.raises(CorruptFileError, match=r"a\.weight") as error:
        from_state_dict(state)
    assert error.value.hint


def int32(*shape):
    return torch.zeros(shape, dtype=torch.int32)


CONFIG = {"quantization_config": {"config_groups": {"g": {"weights": {"num_bits": 8}}}}}
WRONG = {  # changes of the parts of (10, 40) in groups of 8, and the config
    "other shape": ({"a.weight_shape": torch.tensor([10, 48])}, None),
    "shape of other rows": ({"a.weight_shape": torch.tensor([9, 40])}, None),
    "huge shape": ({"a.weight_shape": torch.tensor([2**40, 2**40])}, None),
    "negative shape": ({"a.weight_shape": torch.tensor([10, -40])}, None),
    "shape of one number": ({"a.weight_shape": torch.tensor([40])}, None),
    "shape of floats": ({"a.weight_shape": torch.tensor([10.0, 40.0])}, None),
    "words of three axes": ({"a.weight_packed": int32(1, 10, 5)}, None),
    "no words": ({"a.weight_packed": int32(10, 0)}, None),
    "scales of other rows": ({"a.weight_scale": torch.ones(9, 5)}, None),
    "scales of 7 groups": ({"a.weight_scale": torch.ones(10, 7)}, None),
    "no scales": ({"a.weight_scale": torch.ones(10, 0)}, None),
    "zeros of other rows": ({"a.weight_zero_point": int32(3, 5)}, None),
    "zeros of bytes": ({"a.weight_zero_point": torch.zeros(2, 5, dtype=torch.uint8)}, None),
    "index of another length": ({"a.weight_g_idx": int32(39)}, None),
    "index of floats": ({"a.weight_g_idx": torch.zeros(40)}, None),
    "other bits": ({}, CONFIG),
    "both": ({"a.weight": torch.ones(10, 40)}, None),
}


@pytest.mark.parametrize("what", WRONG)
def test_parts_of_integers_that_do_not_fit(what):
    changes, config = WRONG[what]
    parts = parts_of("compressed-tensors int4, group, zero points") | changes
    with pytest.raises(CorruptFileError, match=r"a\.weight") as error:
        from_state_dict(parts, config=config)
    assert error.value.hint


@pytest.mark.parametrize("value", [5, -2, 2**31 - 1])
def test_index_of_a_group_that_is_not_there(value):
    parts = parts_of("compressed-tensors int4, group, zero points")
    index = {"a.weight_g_idx": torch.full((40,), value, dtype=torch.int32)}
    with pytest.raises(CorruptFileError, match="g_idx"):
        from_state_dict(parts | index).read("a.weight")


def test_bits_of_the_config_where_sizes_leave_them_open():
    state = {"a.weight_packed": torch.tensor([[0x3210]], dtype=torch.int32),
             "a.weight_scale": torch.ones(1), "a.weight_shape": torch.tensor([1, 4])}  # fmt: skip
    weights = {"num_bits": 4}
    config = {"quantization_config": {"config_groups": {"g": {"weights": weights}}}}
    assert from_state_dict(state, config=config).read("a.weight").tolist() == [[-8, -7, -6, -5]]
    with pytest.raises(CorruptFileError, match="bits"):
        from_state_dict(state)
