"""GGUF: the model that was converted comes back, within the error of its types."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch

import flagscope
from checkpoint.test_contract import Contract
from flagscope.checkpoint import checkpoint_fingerprint, from_state_dict, open_checkpoint
from flagscope.checkpoint.gguf.names import naming, namings
from flagscope.checkpoint.gguf.types import dequantised, grid_step
from flagscope.errors import MissingExtraError, UnknownDtypeError
from flagscope.null import grid_noise, storage_noise

gguf = pytest.importorskip("gguf")
Kind = gguf.GGMLQuantizationType

D, HEADS, KV, K, F, LAYERS = 64, 4, 2, 16, 96, 2
PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
BLOCKS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"]
CONFIG = {
    "model_type": "llama", "hidden_size": D, "num_attention_heads": HEADS,
    "num_key_value_heads": KV, "head_dim": K, "intermediate_size": F, "hidden_act": "silu",
    "num_hidden_layers": LAYERS, "rms_norm_eps": 1e-5,
}  # fmt: skip
METADATA = {"block_count": LAYERS, "embedding_length": D, "feed_forward_length": F,
            "attention.head_count": HEADS, "attention.head_count_kv": KV,
            "rope.dimension_count": K, "context_length": 128}  # fmt: skip


OBSERVABLES = ("overlap_ratio", "commutator_ratio", "gram_correlation", "commutation_defect")


def generator(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed))


def decaying(rows, columns, seed):
    """A matrix whose singular values fall off as those of trained weights do."""
    u, _, v = torch.linalg.svd(normal(rows, columns, seed=seed), full_matrices=False)
    spread = torch.linspace(0.3, 1, rows)[torch.randperm(rows, generator=generator(seed))]
    return spread[:, None] * ((u * torch.linspace(1, 0.1, len(v))) @ v) / 10


def llama():
    state = {"model.embed_tokens.weight": normal(32, D), "model.norm.weight": torch.ones(D)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        shapes = {
            "self_attn.q_proj": (HEADS * K, D),
            "self_attn.k_proj": (KV * K, D),
            "self_attn.v_proj": (KV * K, D),
            "self_attn.o_proj": (D, HEADS * K),
            "mlp.gate_proj": (F, D),
            "mlp.up_proj": (F, D),
            "mlp.down_proj": (D, F),
        }
        for number, (name, shape) in enumerate(shapes.items()):
            state[f"{at}{name}.weight"] = decaying(*shape, seed=10 * i + number)
        state[at + "input_layernorm.weight"] = normal(D, seed=i).abs() + 0.5
        state[at + "post_attention_layernorm.weight"] = normal(D, seed=i + 7).abs() + 0.5
    return state


def neighbours(weight, heads):
    """llama.cpp's order of the rows of Q and K: planes (j, j + k/2) become (2j, 2j + 1)."""
    rows = []
    each = len(weight) // heads
    for head in range(heads):
        for j in range(each // 2):
            rows += [head * each + j, head * each + j + each // 2]
    return weight[rows]


def converted(state):
    """GGUF's names, by the gguf package's own table, and rows as its converter puts them."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    out = {}
    for name, tensor in state.items():
        given = tensor
        if "q_proj" in name or "k_proj" in name:
            given = neighbours(tensor, HEADS if "q_proj" in name else KV)
        out[table.get_name(name, try_suffixes=(".weight",))] = given
    return out


def write(path, tensors, kind, metadata=METADATA, architecture="llama"):
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.numpy())
        if array.ndim == 1 or kind == "F32":
            writer.add_tensor(name, array)
        else:
            data = gguf.quants.quantize(array, Kind[kind])
            writer.add_tensor(name, data, raw_dtype=Kind[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def rounded(tensor, kind):
    if tensor.ndim == 1:
        return tensor
    if kind in PLAIN:
        return tensor.to(PLAIN[kind])
    data = gguf.quants.quantize(tensor.numpy(), Kind[kind])
    return torch.from_numpy(gguf.quants.dequantize(data, Kind[kind]))


class TestPlain(Contract):
    @pytest.fixture
    def format_name(self):
        return "gguf"

    @pytest.fixture
    def state(self):
        return {
            "matrix": normal(70, 50), "vector": normal(3000), "half": normal(40, 60).half(),
            "bfloat": normal(30, 20).bfloat16(), "double": normal(6, 5).double(),
            "kernel": normal(8, 4, 3, 3), "counts": torch.arange(7),
            "special": torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, 1e-45]),
        }  # fmt: skip

    @pytest.fixture
    def checkpoint(self, state, tmp_path):
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", "unheard-of")
        for name, tensor in state.items():
            if tensor.dtype == torch.bfloat16:
                raw = tensor.view(torch.uint16).numpy().view(np.uint8)
                writer.add_tensor(name, raw, raw_dtype=Kind.BF16)
            else:
                writer.add_tensor(name, tensor.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
            yield checkpoint


@pytest.mark.parametrize("kind", [*PLAIN, *BLOCKS])
def test_model_comes_back(tmp_path, kind):
    state = llama()
    write(tmp_path / "model.gguf", converted(state), kind)
    with open_checkpoint(tmp_path) as checkpoint:
        assert set(checkpoint.tensors) == set(state)
        assert checkpoint.config.items() >= {k: v for k, v in CONFIG.items()
                                             if k not in ("hidden_act", "rms_norm_eps", "head_dim")
                                             }.items()  # fmt: skip
        for name, tensor in state.items():
            expected = rounded(tensor, kind)
            assert torch.equal(checkpoint.read(name), expected), name
            assert checkpoint.tensors[name].shape == tuple(tensor.shape)
            assert torch.equal(checkpoint.read(name, (slice(3, 9),)), expected[3:9])
            if tensor.ndim == 2:
                part = (slice(1, 5), slice(7, 40))
                assert torch.equal(checkpoint.read(name, part), expected[part])
                step = checkpoint.step(name)
                assert (step is None) == (kind in PLAIN)
                if step is not None:
                    assert torch.equal(checkpoint.step(name, part), step[part])
                    assert ((expected - tensor).abs() <= 1.01 * step).all()
        noted = any(kind in note for note in checkpoint.notes)
        assert noted == (kind in BLOCKS)


# Bound on the relative change (Frobenius) of a map; measured: 2.2e-4, 1.7e-3, 5.8e-3, 0.039, 0.045,
# 0.080, 0.090, 0.119. The observables, all of order 1, moved by 2.1e-4, 3.0e-3, 0.020, 0.042,
# 0.049, 0.072, 0.070, 0.077: at most four times that.
STATED = {"F16": 3e-4, "BF16": 2.4e-3, "Q8_0": 8e-3, "Q5_1": 5e-2, "Q5_0": 6e-2, "Q4_1": 0.1,
          "Q4_0": 0.11, "MXFP4": 0.14}  # fmt: skip


@pytest.mark.parametrize("kind", STATED)
def test_scan_is_that_of_the_original_within_the_error_of_the_type(tmp_path, kind):
    state = llama()
    write(tmp_path / "model.gguf", converted(state), kind)
    options = {"device": "cpu", "workers": 1, "rank": "participation"}
    one = flagscope.scan(tmp_path / "model.gguf", **options)
    original = flagscope.scan(state, config=CONFIG, **options)
    known = flagscope.scan({name: rounded(t, kind) for name, t in state.items()}, config=CONFIG,
                           **options)  # fmt: skip
    assert one.result.family == "llama"
    assert not one.result.failures
    assert one.result.unmapped == original.result.unmapped
    assert one.result.dtype == (str(PLAIN[kind])[6:] if kind in PLAIN else kind)
    assert [p.name for p in one.result.pairs] == [p.name for p in original.result.pairs]
    change = max(
        float((rounded(t, kind).float() - t).norm() / t.norm())
        for t in state.values()
        if t.ndim == 2
    )
    assert change < STATED[kind]
    for a, same, b in zip(one.result.pairs, known.result.pairs, original.result.pairs, strict=True):
        # Reading adds nothing to the rounding, and the rounding moves the numbers by its own size.
        assert moved(a, same) < 1e-9
        # Across the stream two maps meet whose other sides are wide, with gains between.
        assert moved(a, b) < (8 if a.kind == "residual" else 4) * STATED[kind]


def moved(one, other):
    """Largest difference of the observables; a coarse type may leave some undefined."""
    both = [(getattr(one, key), getattr(other, key)) for key in OBSERVABLES]
    known = [abs(a - b) for a, b in both if a is not None]
    assert known
    return max(known)


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind != "MXFP4"])
def test_noise_of_the_grid_is_that_of_the_rounding(kind):
    weight = decaying(128, 256, seed=3)
    blocks = gguf.quants.quantize(weight.numpy(), Kind[kind])
    error = torch.from_numpy(gguf.quants.dequantize(blocks, Kind[kind])) - weight
    step = torch.from_numpy(grid_step(blocks, Kind[kind]))
    noise = grid_noise(step)
    assert float(noise.mean_square) == pytest.approx(float(error.square().mean()), rel=0.1)
    assert 0.4 < float(torch.linalg.matrix_norm(error, 2) / noise.delta) < 1


def test_noise_of_mxfp4_is_that_of_the_rounding():
    weight = decaying(128, 256, seed=3)
    blocks = gguf.quants.quantize(weight.numpy(), Kind.MXFP4)
    error = torch.from_numpy(gguf.quants.dequantize(blocks, Kind.MXFP4)) - weight
    noise = grid_noise(torch.from_numpy(grid_step(blocks, Kind.MXFP4)))
    assert float(noise.mean_square) == pytest.approx(float(error.square().mean()), rel=0.35)


def q4_k(block: bytes) -> tuple[list[float], list[float]]:
    """A block of Q4_K, bit by bit: 256 numbers and the spacing of each."""
    d, smallest = (float(half) for half in np.frombuffer(block[:4], np.float16))
    packed, nibbles = block[4:16], block[16:]
    values, steps = [], []
    for sub in range(8):
        if sub < 4:
            scale, low = packed[sub] & 63, packed[sub + 4] & 63
        else:
            scale = packed[sub + 4] & 15 | packed[sub - 4] >> 6 << 4
            low = packed[sub + 4] >> 4 | packed[sub] >> 6 << 4
        for i in range(32):
            q = nibbles[32 * (sub // 2) + i] >> (4 * (sub % 2)) & 15
            values.append(d * scale * q - smallest * low)
            steps.append(d * scale)
    return values, steps


def q6_k(block: bytes) -> tuple[list[float], list[float]]:
    """A block of Q6_K, bit by bit."""
    low, high = block[:128], block[128:192]
    scales = np.frombuffer(block[192:208], np.int8)
    d = float(np.frombuffer(block[208:], np.float16)[0])
    values, steps = [], []
    for i in range(256):
        half, rest = divmod(i, 128)
        quarter, j = divmod(rest, 32)
        nibble = low[64 * half + 32 * (quarter % 2) + j] >> (4 * (quarter // 2)) & 15
        q = nibble | (high[32 * half + j] >> (2 * quarter) & 3) << 4
        scale = d * int(scales[i // 16])
        values.append(scale * (q - 32))
        steps.append(abs(scale))
    return values, steps


def random_blocks(kind, rows, seed=0):
    """Rows of two blocks with random bits; their half-precision scales are set to sane ones."""
    rng = np.random.default_rng(seed)
    size = gguf.GGML_QUANT_SIZES[Kind[kind]][1]
    blocks = rng.integers(0, 256, (rows, 2, size), dtype=np.uint8)
    places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
              "IQ4_XS": (0,)}[kind]  # fmt: skip
    for place in places:
        scale = rng.uniform(1e-3, 1e-2, (rows, 2)).astype(np.float16)
        blocks[:, :, place : place + 2] = scale[..., None].view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.mark.parametrize(("kind", "reference"), [("Q4_K", q4_k), ("Q6_K", q6_k)])
def test_k_quants_bit_by_bit(tmp_path, kind, reference):
    blocks = random_blocks(kind, 5)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "unheard-of")
    writer.add_tensor("w", blocks, raw_dtype=Kind[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    size = blocks.shape[1] // 2
    decoded = [reference(row[at : at + size].tobytes()) for row in blocks for at in (0, size)]
    values, steps = (
        torch.tensor([one[part] for one in decoded]).reshape(5, 512) for part in (0, 1)
    )
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        info = checkpoint.tensors["w"]
        assert (info.dtype, info.quantised, info.shape) == ("float32", kind, (5, 512))
        torch.testing.assert_close(checkpoint.read("w"), values, rtol=2e-6, atol=1e-6)
        torch.testing.assert_close(checkpoint.step("w"), steps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_numbers_lie_on_the_grid(kind):
    blocks = random_blocks(kind, 40)
    values = dequantised(blocks, Kind[kind]).reshape(-1, 16).astype(float)
    step = grid_step(blocks, Kind[kind]).reshape(-1, 16).astype(float)
    assert (np.ptp(step, 1) <= 1e-5).all()
    kept = step[:, 0] > 1e-4
    assert kept.mean() > 0.8
    away = (values[kept] - values[kept][:, :1]) / step[kept]
    assert np.abs(away - away.round()).max() < 1e-2
    assert (
        np.abs(away).max() <= {"Q2_K": 3, "Q3_K": 7, "Q4_K": 15, "Q5_K": 31, "Q6_K": 63}[kind] + 0.1
    )
    # Every distance occurs: the step is not half, nor twice, what it should be.
    assert 1 in np.abs(away.round())


def test_noise_that_is_not_known_is_noted(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "unheard-of")
    writer.add_tensor("w", random_blocks("IQ4_XS", 3), raw_dtype=Kind.IQ4_XS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        assert checkpoint.step("w") is None
        assert any("IQ4_XS" in note and "not known" in note for note in checkpoint.notes)
        assert storage_noise(checkpoint.read("w")).delta > 0


def test_type_that_cannot_be_dequantised_is_listed(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "unheard-of")
    writer.add_tensor("w", np.zeros((2, 292), np.uint8), raw_dtype=Kind.Q8_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(tmp_path / "a.gguf") as checkpoint:
        assert checkpoint.tensors["w"].dtype == "Q8_K"
        with pytest.raises(UnknownDtypeError, match="Q8_K"):
            checkpoint.read("w")


@pytest.mark.parametrize("architecture", namings())
def test_names_are_those_of_the_package(architecture):
    kind = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    table = gguf.get_tensor_name_map(kind, 3)
    known = {gguf.TENSOR_NAMES[t].format(bid=2) for t in gguf.MODEL_TENSORS[kind]}
    names = naming({"general.architecture": architecture})
    checked = 0
    for stored in sorted(known):
        given = names.name(stored + ".weight", 0).removesuffix(".weight").replace("s.0.", "s.")
        if given != stored and not stored.endswith("attn_k_b"):
            assert table.get_name(given) == stored
            checked += 1
    assert checked > 7
    maps = {
        name for name in known if re.search(r"attn_(q|k|v|qkv|output)$|ffn_(up|gate|down)$", name)
    }
    kept = {name for name in maps if names.name(name + ".weight") == name + ".weight"}
    assert kept <= {"blk.2.attn_q", "blk.2.attn_k", "blk.2.attn_v", "blk.2.attn_qkv"}


def test_transposed_and_reordered(tmp_path):
    weight, bias = normal(24, 8), normal(24)
    heads = {"attention.head_count": 2, "embedding_length": 8}
    # GPT-2 keeps (in, out), GGUF (out, in).
    path = write(tmp_path / "g.gguf", {"blk.0.attn_qkv.weight": weight}, "F32", heads, "gpt2")
    with open_checkpoint(path) as checkpoint:
        name = "transformer.h.0.attn.c_attn.weight"
        assert torch.equal(checkpoint.read(name), weight.T)
        assert checkpoint.tensors[name].shape == (8, 24)
        assert torch.equal(checkpoint.read(name, (slice(2, 4), 5)), weight.T[2:4, 5])
    # GPT-NeoX keeps q, k, v of a head together, GGUF all q, all k, all v.
    parts = weight.reshape(2, 3, 4, 8)
    apart = torch.cat([parts[:, i].reshape(8, 8) for i in range(3)])
    bias_apart = torch.cat([bias.reshape(2, 3, 4)[:, i].reshape(8) for i in range(3)])
    tensors = {"blk.0.attn_qkv.weight": apart, "blk.0.attn_qkv.bias": bias_apart}
    path = write(tmp_path / "n.gguf", tensors, "F32", heads, "gptneox")
    with open_checkpoint(path) as checkpoint:
        at = "gpt_neox.layers.0.attention.query_key_value."
        assert torch.equal(checkpoint.read(at + "weight"), weight)
        assert torch.equal(checkpoint.read(at + "bias"), bias)
    # Gemma's converter adds one to the gains.
    path = write(tmp_path / "m.gguf", {"blk.0.attn_norm.weight": bias + 1}, "F32", heads, "gemma2")
    with open_checkpoint(path) as checkpoint:
        read = checkpoint.read("model.layers.0.input_layernorm.weight")
        torch.testing.assert_close(read, bias)


def test_partial_rotation_is_told(tmp_path):
    metadata = {**METADATA, "rope.dimension_count": 4}
    path = write(tmp_path / "a.gguf", converted(llama()), "F32", metadata)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.config["partial_rotary_factor"] == 4 / K


def test_given_config_comes_first(tmp_path):
    path = write(tmp_path / "a.gguf", converted(llama()), "F32")
    with open_checkpoint(path, config={"model_type": "given"}) as checkpoint:
        assert checkpoint.config == {"model_type": "given"}


def test_without_the_package(tmp_path, monkeypatch):
    path = write(tmp_path / "a.gguf", converted(llama()), "F32")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match="gguf") as error:
        open_checkpoint(path)
    assert "flagscope[gguf]" in error.value.hint


def test_fingerprint_is_that_of_the_dequantised_weights(tmp_path):
    state = llama()
    path = write(tmp_path / "a.gguf", converted(state), "Q8_0")
    known = from_state_dict({name: rounded(t, "Q8_0") for name, t in state.items()})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint_fingerprint(checkpoint) == checkpoint_fingerprint(known)
