"""Scaled weights: which tensor scales which, where each factor lies, what a scan makes of it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.arch import LinearMap, Side, build_graph
from flagscope.checkpoint import from_state_dict, open_checkpoint, widen
from flagscope.engine.cache.task_reader import TaskReader
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.errors import CorruptFileError, UnknownDtypeError
from flagscope.null import grid_noise

FP8 = torch.float8_e4m3fn


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blockwise(weight, rows, columns, suffix="_scale_inv"):
    """A weight as DeepSeek stores it: float8 over the largest magnitude of each block."""
    m, n = weight.shape
    scale = torch.empty(-(-m // rows), -(-n // columns))
    stored = torch.empty_like(weight)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            block = slice(i * rows, (i + 1) * rows), slice(j * columns, (j + 1) * columns)
            scale[i, j] = weight[block].abs().max() / 448
            stored[block] = weight[block] / scale[i, j]
    return {"weight": stored.to(FP8), "weight" + suffix: scale}


def expected(stored, scale, rows, columns):
    m, n = stored.shape
    spread = scale.repeat_interleave(rows, 0)[:m].repeat_interleave(columns, 1)[:, :n]
    return stored.double() * spread.double()


KINDS = {  # the shape of the scale of a (200, 300) weight, and rows and columns of its blocks
    "tensor": ((), 200, 300),
    "tensor of one": ((1,), 200, 300),
    "rows": ((200, 1), 1, 300),
    "rows without axis": ((200,), 1, 300),
    "columns": ((1, 300), 200, 1),
    "blocks": ((2, 3), 128, 128),
    "groups of a row": ((200, 6), 1, 50),
}


@pytest.mark.parametrize("suffix", ["_scale", "_scale_inv"])
@pytest.mark.parametrize("kind", KINDS)
def test_scale_of_any_shape_and_slice(kind, suffix):
    shape, rows, columns = KINDS[kind]
    stored, scale = normal(200, 300).to(FP8), normal(*shape, seed=1).abs() + 0.1
    checkpoint = from_state_dict({"a.weight": stored, "a.weight" + suffix: scale})
    grid = scale.reshape(-(-200 // rows), -(-300 // columns))
    whole = expected(stored, grid, rows, columns)
    for index in [(), (slice(120, 131),), (7,), (slice(None), 299), (3, 4), (slice(9, 9),),
                  (slice(100, 140), slice(126, 260))]:  # fmt: skip
        wide = widen(checkpoint.read("a.weight", index), scale=checkpoint.scale("a.weight", index))
        assert torch.equal(wide, whole[index]), index
    assert checkpoint.auxiliary == {"a.weight" + suffix}
    assert checkpoint.scale("a.weight" + suffix) is None


def test_blocks_as_the_config_says():
    stored, scale = normal(100, 90).to(FP8), normal(4, 2, seed=1)
    config = {"quantization_config": {"weight_block_size": [32, 64]}}
    state = {"a.weight": stored, "a.weight_scale_inv": scale}
    found = from_state_dict(state, config=config).scale("a.weight")
    assert torch.equal(widen(stored, scale=found), expected(stored, scale, 32, 64))


def test_row_maxima_of_int8():
    weight = normal(6, 8)
    maxima = weight.abs().amax(1)
    stored = (weight / maxima[:, None] * 127).round().to(torch.int8)
    checkpoint = from_state_dict({"a.weight": stored, "a.SCB": maxima})
    wide = widen(stored, scale=checkpoint.scale("a.weight"))
    assert (wide - weight).abs().max() <= maxima.max() / 127 / 2 * (1 + 1e-5)
    assert torch.equal(checkpoint.step("a.weight"), (maxima / 127)[:, None].expand(6, 8))


def test_experts_in_one_tensor():
    stored, scale = normal(3, 256, 130).to(FP8), normal(3, 2, 2, seed=1)
    checkpoint = from_state_dict({"experts.up": stored, "experts.up_scale_inv": scale})
    for e in range(3):
        wide = widen(
            checkpoint.read("experts.up", (e,)), scale=checkpoint.scale("experts.up", (e,))
        )
        assert torch.equal(wide, expected(stored[e], scale[e], 128, 128))


def test_what_is_not_scaled_has_no_scale():
    state = {"a.weight": normal(4, 4), "a.weight_scale": normal(4, 1), "b.weight": normal(4, 4)}
    checkpoint = from_state_dict(state)
    assert checkpoint.scale("a.weight") is None
    assert checkpoint.auxiliary == frozenset()
    assert checkpoint.notes == ()


SPELLINGS = {  # name of the weight, name of its scale
    "DeepSeek": ("a.weight", "a.weight_scale_inv"),
    "compressed-tensors": ("a.weight", "a.weight_scale"),
    "ComfyUI": ("a.weight", "a.scale_weight"),
    "DeepSeek's inference code": ("a.weight", "a.scale"),
    "gpt-fast": ("a.weight", "a.scales"),
    "Mistral": ("a.weight", "a.qscale_weight"),
    "TensorRT-LLM": ("a.weight", "a.weights_scaling_factor"),
    "with a dot": ("a.weight", "a.weight.scale"),
    "plural": ("a.weight", "a.weight_scales"),
    "inverse with a dot": ("a.weight", "a.scale_inv"),
    "experts": ("a.experts.up_proj", "a.experts.up_proj_scale"),
    "short": ("a.weight", "a.qscale"),
    "hidden": ("a.weight", "a._scale"),
    "by type": ("a.weight", "a.fp8_scale"),
    "alone": ("weight", "scale_weight"),
}


@pytest.mark.parametrize("kind", ["float8", "int8"])
@pytest.mark.parametrize("who", SPELLINGS)
def test_every_spelling_in_use(who, kind):
    name, beside = SPELLINGS[who]
    stored = normal(6, 8).to(FP8) if kind == "float8" else normal(6, 8).mul(30).to(torch.int8)
    scale = normal(6, 1, seed=1).abs()
    checkpoint = from_state_dict({name: stored, beside: scale, "b.weight": normal(3, 6)})
    assert torch.equal(widen(stored, scale=checkpoint.scale(name)),
                       stored.double() * scale.double())  # fmt: skip
    assert checkpoint.auxiliary == {beside}
    assert checkpoint.scaled == {name}
    assert checkpoint.scale_name(name) == beside
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    "other", ["input_scale", "scale_input", "activation_scale", "qscale_act", "k_scale"]
)
def test_scale_of_activations_is_none_of_the_weight(other):
    state = {"a.weight": normal(4, 4).to(FP8), "a." + other: torch.tensor(3.0)}
    checkpoint = from_state_dict(state)
    assert checkpoint.scale("a.weight") is None
    assert any("no scale that is known" in note for note in checkpoint.notes)
    with_scale = from_state_dict(state | {"a.weight_scale": torch.tensor(2.0)})
    assert with_scale.scale("a.weight") == 2
    assert ("a." + other in with_scale.auxiliary) == (other != "k_scale")


def test_file_of_comfyui():
    state = {"scaled_fp8": torch.zeros(2).to(FP8), "a.weight": normal(4, 4).to(FP8),
             "a.scale_weight": torch.tensor(2.0), "a.scale_input": torch.tensor(0.5),
             "a.bias": normal(4)}  # fmt: skip
    checkpoint = from_state_dict(state)
    assert checkpoint.auxiliary == {"scaled_fp8", "a.scale_weight", "a.scale_input"}
    assert checkpoint.notes == ()


def test_of_two_scales_the_one_that_multiplies():
    state = {"a.weight": normal(4, 4).to(FP8), "a.scale": torch.tensor(4.0),
             "a.scale_inv": torch.tensor(0.25)}  # fmt: skip
    assert from_state_dict(state).scale("a.weight") == 0.25


@pytest.mark.parametrize("shape", [(6, 64), (3, 6, 64)])
@pytest.mark.parametrize("kind", ["bytes", "e8m0"])
def test_exponents_of_blocks_of_32(kind, shape):
    stored = normal(*shape).to(FP8)
    exponents = torch.randint(100, 140, (*shape[:-1], 2), dtype=torch.uint8)
    exponents[..., 0, 1] = 0  # 2^-127, a subnormal
    exponents[..., 1, 0] = 255
    scale = exponents if kind == "bytes" else exponents.view(torch.float8_e8m0fnu)
    checkpoint = from_state_dict({"a.weight": stored, "a.weight_scale": scale})
    powers = torch.pow(2.0, exponents.double() - 127).masked_fill(exponents == 255, torch.nan)
    whole = stored.double() * powers.repeat_interleave(32, -1)
    for index in [(), (slice(1, 3),), (0, slice(1, 2)), (slice(None), slice(0, 5))]:
        wide = widen(checkpoint.read("a.weight", index), scale=checkpoint.scale("a.weight", index))
        assert torch.equal(wide.nan_to_num(7), whole[index].nan_to_num(7)), index


def test_one_scale_for_each_row_of_each_expert():
    stored, scale = normal(3, 8, 16).to(FP8), normal(3, 8, seed=1)
    checkpoint = from_state_dict({"experts.up": stored, "experts.up_scale": scale})
    wide = widen(stored, scale=checkpoint.scale("experts.up"))
    assert torch.equal(wide, stored.double() * scale[:, :, None].double())


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "int8"])
def test_type_that_carries_a_scale_without_any_is_noted(kind):
    state = {f"{i}.weight": normal(4, 4).to(getattr(torch, kind)) for i in range(3)}
    notes = from_state_dict(state | {"norm": normal(4).to(FP8)}).notes
    assert len(notes) == 1
    assert notes[0].startswith(f"3 {kind[:6] if 'float' in kind else kind} tensors have no scale")
    assert "0.weight" in notes[0]


def test_scale_in_another_shard(tmp_path):
    save_file({"a.weight": normal(4, 4).to(FP8)}, tmp_path / "one.safetensors")
    save_file({"a.scale_weight": torch.tensor(2.0)}, tmp_path / "two.safetensors")
    where = {"a.weight": "one.safetensors", "a.scale_weight": "two.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.scale("a.weight") == 2
        assert checkpoint.notes == ()


@pytest.mark.parametrize("near", ["weight_rescaler", "amax", "Wscale"])
def test_name_that_may_be_a_scale_is_noted_and_not_used(near):
    state = {"a.weight": normal(4, 4).to(FP8), "a." + near: torch.ones(4, 1),
             "b.scale_of_b": torch.ones(1)}  # fmt: skip
    checkpoint = from_state_dict(state)
    assert checkpoint.scale("a.weight") is None
    [note] = checkpoint.notes
    assert f"next to it lies a.{near}" in note


@pytest.mark.parametrize("suffix", ["weight_scale", "scale_weight", "scale", "qscale_weight"])
def test_scan_of_each_spelling_is_that_of_the_weights(suffix):
    spread = torch.logspace(-2, 0, 32)[:, None]
    weights = {"0.weight": normal(32, 24) * spread, "2.weight": normal(16, 32, seed=1)}
    stored, plain = {}, {}
    for name, weight in weights.items():
        scale = weight.abs().amax(1, keepdim=True) / 448
        stored[name] = (weight / scale).to(FP8)
        stored[name.removesuffix("weight") + suffix] = scale
        plain[name] = stored[name].double() * scale.double()
    one, other, bare = (
        flagscope.scan(state, config={"activation": "relu"}, device="cpu", workers=1).result.pairs[
            0
        ]
        for state in (stored, plain, {name: stored[name] for name in weights})
    )
    for measured in ("commutator_ratio", "gram_correlation", "imbalance", "participation_write"):
        assert getattr(one, measured) == pytest.approx(getattr(other, measured), rel=1e-9)
    assert abs(one.imbalance - bare.imbalance) > 0.1  # the scales are not without effect


def test_float8_without_its_scale_is_noted():
    state = {"a.weight": normal(4, 4).to(FP8), "a.weight_scale": torch.tensor(2.0),
             "b.weight": normal(4, 4).to(FP8)}  # fmt: skip
    assert "b.weight" in from_state_dict(state).notes[0]


@pytest.mark.parametrize("shape", [(3,), (2, 2, 1), (7, 3), (0, 3)])
def test_scale_that_does_not_fit(shape):
    state = {"a.weight": normal(200, 300).to(FP8), "a.weight_scale_inv": torch.ones(shape)}
    with pytest.raises(CorruptFileError, match=r"a\.weight_scale_inv") as error:
        from_state_dict(state).scale("a.weight")
    assert "weight_block_size" in error.value.hint


def test_scale_of_unknown_meaning():
    state = {"a.weight": normal(4, 4).to(FP8), "a.weight_scale": torch.ones(4, 1).to(torch.uint8)}
    with pytest.raises(UnknownDtypeError, match=r"a\.weight_scale"):
        from_state_dict(state).scale("a.weight")


CONFIG = {
    "model_type": "llama", "hidden_size": 256, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 384, "hidden_act": "silu",
}  # fmt: skip
MAPS = {"self_attn.q_proj": (256, 256), "self_attn.k_proj": (128, 256),
        "self_attn.v_proj": (128, 256), "self_attn.o_proj": (256, 256),
        "mlp.gate_proj": (384, 256), "mlp.up_proj": (384, 256),
        "mlp.down_proj": (256, 384)}  # fmt: skip


def scaled_llama():
    """A model with block scales, and the same weights dequantised in float64."""
    stored, plain = {}, {}
    for number, (name, shape) in enumerate(MAPS.items()):
        spread = torch.logspace(-2, 0, shape[0])[:, None]  # blocks of very unlike scales
        parts = blockwise(normal(*shape, seed=number) * spread, 128, 128)
        at = f"model.layers.0.{name}."
        stored |= {at + key: value for key, value in parts.items()}
        plain[at + "weight"] = expected(parts["weight"], parts["weight_scale_inv"], 128, 128)
    return stored, plain


def test_scan_of_scaled_weights_is_that_of_the_weights(tmp_path):
    stored, plain = scaled_llama()
    save_file(stored, tmp_path / "model.safetensors")
    options = {"config": CONFIG, "device": "cpu", "workers": 1}
    one = flagscope.scan(tmp_path / "model.safetensors", **options)
    other = flagscope.scan(plain, **options)
    assert one.result.unmapped == other.result.unmapped == []
    assert one.result.parameters == other.result.parameters
    assert one.result.dtype == "float8_e4m3fn"
    assert not one.result.failures
    assert len(one.pairs) == len(other.pairs) > 0
    for column in ("c", "nu", "rho"):
        if column in one.pairs:
            assert one.pairs[column].to_numpy(float) == pytest.approx(
                other.pairs[column].to_numpy(float), rel=1e-9, abs=1e-12, nan_ok=True
            )
    for a, b in zip(one.result.pairs, other.result.pairs, strict=True):
        # Numerical ranks, at which overlaps are tested too, know the type of storage.
        assert a.gram_correlation_p == pytest.approx(b.gram_correlation_p, rel=1e-6)
        assert a.commutator_p == pytest.approx(b.commutator_p, rel=1e-6)
        if (a.rank_write, a.rank_read) == (b.rank_write, b.rank_read):
            assert a.log10_p == pytest.approx(b.log10_p, rel=1e-6, abs=1e-9)


def test_noise_is_that_of_the_scaled_spacing():
    stored, plain = scaled_llama()
    checkpoint = from_state_dict(stored, config=CONFIG)
    shapes = {name: info.shape for name, info in checkpoint.tensors.items()
              if name not in checkpoint.auxiliary}  # fmt: skip
    graph = build_graph(shapes, CONFIG)
    reader = TaskReader(
        TensorCache(checkpoint, []), device=torch.device("cpu"), precision="float64"
    )
    pair = next(pair for pair in graph.pairs if pair.kind == "qk")
    for side, view in ((pair.write, "write"), (pair.read, "read")):
        maps = reader.side(side, view)
        name = side.map.tensor
        spread = plain[name] / stored[name].double()  # the factor of each entry, NaN at zeros
        exponent = torch.frexp(stored[name].double()).exponent - 1
        ulp = torch.ldexp(spread, exponent.clamp_min(-6) - 3)
        ulp = torch.where(stored[name].double() == 0, 0.0, ulp)
        change = side.write if view == "write" else side.read
        assert torch.equal(maps.values, change(plain[name]))
        noise = grid_noise(change(ulp))
        # Entries that are zero have a spacing too, which this reference leaves out.
        assert maps.delta.tolist() == pytest.approx(noise.delta.tolist(), rel=1e-4)
        assert maps.mean_square.tolist() == pytest.approx(noise.mean_square.tolist(), rel=1e-4)


def test_one_map_that_is_not_finite_leaves_the_others_their_noise():
    stored = normal(2, 8, 8).to(FP8)
    state = {"w": stored, "w_scale": torch.tensor([[[0.5]], [[torch.nan]]])}
    reader = TaskReader(
        TensorCache(from_state_dict(state), []), device=torch.device("cpu"), precision="float64"
    )
    map_ = LinearMap(
        role="linear", tensor="w", shape=(2, 8, 8), layout="e o i", sizes={"e": 2, "o": 8, "i": 8},
        select={}, out="o", inp="i", batch="e", bias=None, count=2,
    )  # fmt: skip
    maps = reader.side(Side(map_), "write")
    assert maps.delta[0] > 0
    assert maps.delta[1] == 0
    assert maps.faults() == [None, "not finite"]


def test_names_of_scales_are_gathered_once():
    # They are asked for with every tensor: gathered anew each time, 90,000 tensors took minutes.
    state = {"a.weight": torch.ones(2, 2).to(torch.float8_e4m3fn), "a.weight_scale": torch.ones(())}
    checkpoint = from_state_dict(state)
    assert checkpoint.auxiliary is checkpoint.auxiliary == {"a.weight_scale"}
    assert checkpoint.scaled is checkpoint.scaled == {"a.weight"}
