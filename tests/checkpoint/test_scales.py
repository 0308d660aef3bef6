"""Scaled weights: which tensor scales which, where each factor lies, what a scan makes of it."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from flagscope.arch import LinearMap, Side, build_graph
from flagscope.checkpoint import from_state_dict, widen
from flagscope.engine.reading import TaskReader
from flagscope.engine.tensors import Tensors
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
    reader = TaskReader(Tensors(checkpoint, []), device=torch.device("cpu"), precision="float64")
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
        Tensors(from_state_dict(state), []), device=torch.device("cpu"), precision="float64"
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
