"""Folding a norm equals the explicit product of matrices."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import flagscope
import reference
from diagnose.planted import pair_group
from engine import test_plan
from flagscope.arch import Graph, Norm
from flagscope.checkpoint import from_state_dict
from flagscope.engine import Settings, run_scan
from flagscope.engine.cache.norms import (
    centred_columns,
    centred_rows,
    scaled_columns,
    scaled_rows,
)
from flagscope.geometry import Matrices
from geometry.planted import matrices, normal

D = 12


def centring(d):
    return np.eye(d) - np.ones((d, d)) / d


def test_centring_equals_the_explicit_projection():
    w1, w2 = normal(2, D, 20, seed=1), normal(2, 30, D, seed=2)
    write, read = centred_rows(matrices(w1)), centred_columns(matrices(w2))
    assert write.values.shape == (2, D - 1, 20)
    assert read.values.shape == (2, 30, D - 1)
    for i in range(2):
        a, b = centring(D) @ w1[i].numpy(), w2[i].numpy() @ centring(D)
        # The product, the Grams of the outer sides and so all singular values are kept.
        np.testing.assert_allclose(read.values[i] @ write.values[i], b @ a, atol=1e-12)
        np.testing.assert_allclose(write.values[i].mT @ write.values[i], a.T @ a, atol=1e-12)
        np.testing.assert_allclose(read.values[i] @ read.values[i].mT, b @ b.T, atol=1e-12)


def test_centring_is_that_of_layernorm():
    # What reads LayerNorm(x) does not see the mean of x: (1, …, 1) is in the kernel.
    w = normal(1, 5, D, seed=1)
    x = normal(D, seed=2)
    constant = w + 3 * normal(1, 5, 1, seed=3)
    torch.testing.assert_close(
        centred_columns(matrices(w)).values, centred_columns(matrices(constant)).values
    )
    gamma = normal(D, seed=4)
    folded = w[0] * gamma
    centred = torch.nn.functional.layer_norm(x, (D,), eps=0)
    direct = folded @ centred
    explicit = (folded.numpy() @ centring(D)) @ x.numpy()
    np.testing.assert_allclose(w[0] @ (gamma * centred), direct)
    np.testing.assert_allclose(explicit / x.numpy().std(), direct, rtol=1e-10)


def test_scales_multiply_rows_and_columns():
    w, scale = normal(2, 5, D, seed=1), normal(D, seed=2)
    folded = scaled_columns(matrices(w, delta=1e-3), scale)
    torch.testing.assert_close(folded.values, w @ torch.diag(scale))
    torch.testing.assert_close(folded.delta, torch.full((2,), 1e-3).double() * scale.abs().max())
    torch.testing.assert_close(scaled_rows(matrices(w.mT), scale).values, torch.diag(scale) @ w.mT)
    # The bound holds for the noise itself.
    noise = 1e-3 * w / torch.linalg.matrix_norm(w, ord=2, dim=(-2, -1), keepdim=True)
    turned = torch.linalg.matrix_norm(noise * scale, ord=2, dim=(-2, -1))
    assert bool((turned <= folded.delta).all())


def net(seed=1, *, gain=True):
    """Convolution, BatchNorm, ReLU, convolution as an nn.Sequential of trained-looking values."""
    torch.manual_seed(seed)
    norm = torch.nn.BatchNorm2d(D, affine=gain)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(4, D, 3), norm, torch.nn.ReLU(), torch.nn.Conv2d(D, 5, 3)
    )
    norm.running_var = torch.rand(D) + 0.1
    if gain:
        norm.weight.data = torch.randn(D)
    return model


@pytest.mark.parametrize("gain", [True, False])
def test_batchnorm_is_folded_into_the_write_map(gain):
    model = net(gain=gain)
    pair = flagscope.scan(model, rank="participation").result.pairs[0]
    state = {name: t.double().numpy() for name, t in model.state_dict().items()}
    scale = 1 / np.sqrt(state["1.running_var"] + 1e-5)
    if gain:
        scale = scale * state["1.weight"]
    w1 = scale[:, None] * state["0.weight"].reshape(D, -1)
    w2 = state["3.weight"].transpose(0, 2, 3, 1).reshape(-1, D)
    assert pair.folded == ["1"]
    assert pair.commutator_ratio == pytest.approx(reference.commutator_ratio(w1, w2), rel=1e-6)
    assert pair.overlap_ratio == pytest.approx(reference.overlap_ratio(w1, w2), rel=1e-6)
    stored = flagscope.scan(model, fold_norms="none").result.pairs[0]
    assert stored.folded == []
    w1 = state["0.weight"].reshape(D, -1)
    assert stored.commutator_ratio == pytest.approx(reference.commutator_ratio(w1, w2), rel=1e-6)


def gpt2(d=24, heads=4):
    names = {"h.0.attn.c_attn.weight": (d, 3 * d), "h.0.attn.c_proj.weight": (d, d)}
    names |= {"h.0.mlp.c_fc.weight": (d, 4 * d), "h.0.mlp.c_proj.weight": (4 * d, d)}
    state = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(names.items())}
    state["h.0.ln_1.weight"] = normal(d, seed=9).exp()
    state["h.0.ln_1.bias"] = normal(d, seed=10)
    state["wte.weight"] = normal(50, d, seed=11)
    config = {"model_type": "gpt2", "n_head": heads, "n_embd": d, "n_layer": 1}
    return state, config


def test_gain_of_a_stream_norm_in_the_readers_of_heads():
    state, config = gpt2()
    scans = {
        fold: flagscope.scan(state, config=config, fold_norms=fold).result
        for fold in ("auto", "all", "none")
    }
    assert [h.folded for h in scans["auto"].heads] == [[]] * 4
    found = {h.space: h for h in scans["all"].heads}
    fused = state["h.0.attn.c_attn.weight"].numpy()
    gamma = state["h.0.ln_1.weight"].numpy()
    for i, space in enumerate("qkv"):
        maps = fused[:, 24 * i : 24 * (i + 1)].T.reshape(4, 6, 24)
        spaces = [reference.right_space(one * gamma @ centring(24), 6) for one in maps]
        # The formulas are those of R^23: the constant direction is gone.
        ratio = reference.head_overlap_ratio(spaces) * 23 / 24
        assert found[space].overlap_ratio == pytest.approx(ratio, rel=1e-9)
        assert found[space].d == 23
        assert found[space].folded == ["h.0.ln_1"]
        raw = [reference.right_space(one, 6) for one in maps]
        stored = {h.space: h for h in scans["none"].heads}[space]
        assert stored.overlap_ratio == pytest.approx(reference.head_overlap_ratio(raw), rel=1e-9)
    assert found["o"].folded == []
    assert found["o"].d == 24


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_gain_of_a_stream_norm_in_the_readers_of_residual_pairs(kind):
    w1, w2 = normal(1, D, 20, seed=1), normal(1, 30, D, seed=2)
    gamma = normal(D, seed=3)
    norm = Norm("ln", kind, gain="ln.weight", bias=None, mean=None, variance=None, eps=1e-5,
                offset=1.0, placement="pre")  # fmt: skip
    group = replace(pair_group(w1, w2), kind="residual", read_norm=norm)
    checkpoint = from_state_dict({"write": w1[0], "read": w2[0], "ln.weight": gamma})
    graph = Graph("none", (group,), ())
    settings = Settings(device="cpu", rank="participation")
    pair = run_scan(checkpoint, graph, settings, workers=1).pairs[0]
    a, b = w1[0].numpy(), w2[0].numpy() * (1 + gamma.numpy())
    if kind == "layernorm":
        # An orthonormal basis of what the mean leaves.
        basis = np.linalg.qr(np.column_stack([np.ones(D), np.eye(D)[:, 1:]]))[0][:, 1:]
        a, b = basis.T @ a, b @ basis
    assert pair.d == len(a)
    assert pair.folded == ["ln"]
    assert pair.commutator_ratio == pytest.approx(reference.commutator_ratio(a, b), rel=1e-9)
    assert pair.gram_correlation == pytest.approx(reference.gram_correlation(a, b), rel=1e-9)
    assert pair.overlap_ratio == pytest.approx(reference.overlap_ratio(a, b), rel=1e-9)
    stored = run_scan(checkpoint, graph, Settings(device="cpu", fold_norms="none")).pairs[0]
    assert (stored.d, stored.folded) == (D, [])


@pytest.mark.parametrize("size", [1e-37, 1e-20, 1e20, 1e37])
def test_products_beyond_single_precision_are_kept_in_units(size):
    draw = torch.Generator().manual_seed(0)
    w, gain = torch.randn(2, 6, 5, generator=draw), torch.rand(5, generator=draw) + 0.5
    maps = Matrices(w * size, torch.ones(2).double() * size, torch.ones(2).double() * size**2)
    product = (w * size).double() * (gain * size).double()
    for found, exact in (
        (scaled_columns(maps, gain * size), product),
        (scaled_rows(maps.transposed(), gain * size), product.mT),
    ):
        kept = torch.ldexp(found.values.double(), found.exponents[:, None, None])
        torch.testing.assert_close(kept, exact, rtol=1e-6, atol=0)
        unit = torch.ldexp(torch.ones(2).double(), found.exponents)
        largest = maps.delta * float((gain * size).max())
        torch.testing.assert_close(found.delta * unit, largest, rtol=1e-6, atol=0)
        assert not bool((found.exponents % 2).any())


def folded(change):
    """What a scan says of GPT-2 with the gain of one norm changed."""
    checkpoint = test_plan.gpt2()
    state = {name: checkpoint.read(name) for name in checkpoint.tensors}
    state |= {f"h.{i}.ln_2.weight": torch.ones(24) for i in range(2)}
    gain = state["h.1.ln_1.weight"].uniform_(0.5, 2, generator=torch.Generator().manual_seed(7))
    state["h.1.ln_1.weight"] = change(gain)
    return flagscope.scan(state, config=checkpoint.config, workers=1, device="cpu").result


@pytest.mark.parametrize("shape", [(1, -1), (1, 1, -1), (-1, 1)])
def test_a_gain_with_axes_of_length_one_is_the_vector_that_it_is(shape):
    plain, other = folded(lambda gain: gain), folded(lambda gain: gain.reshape(shape))
    assert any(pair.kind == "residual" for pair in plain.pairs)
    assert other.pairs == plain.pairs
    assert other.heads == plain.heads
    assert not other.failures


def test_a_gain_of_another_length_is_a_failure_that_names_the_norm():
    result = folded(lambda gain: torch.cat([gain, gain[:1]]))
    assert result.failures
    for failure in result.failures:
        assert "'h.1.ln_1' has a gain of" in failure.error
        assert failure.hint
