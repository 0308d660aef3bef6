"""What is left after gauge fixing does not depend on the gauge."""

import numpy as np
import pytest
import torch

import reference
from diagnose.planted import pair_group, record, records
from flagscope.arch import Rotary
from flagscope.diagnose import labels
from flagscope.diagnose.balanced import balanced_maps, fixes_completely
from flagscope.records import PairRecord
from geometry.planted import haar, matrices, normal, with_values

BALANCED = (
    *("commutator_ratio", "gram_correlation", "commutation_defect", "imbalance", "overlap_ratio"),
    "effective_rank",
)


def assert_same_balance(one: PairRecord, other: PairRecord, *, rel: float = 1e-8) -> None:
    for name in BALANCED:
        a, b = getattr(one.balanced, name), getattr(other.balanced, name)
        assert a == (None if b is None else pytest.approx(b, rel=rel, abs=1e-10)), name
    assert one.balanced.status == other.balanced.status == "ok"
    np.testing.assert_allclose(
        one.functional.product_spectrum, other.functional.product_spectrum, rtol=1e-5
    )


def moved(one: PairRecord, other: PairRecord) -> bool:
    return abs(one.commutator_ratio - other.commutator_ratio) > 1e-3 * one.commutator_ratio


def test_scaling_neurons():
    w1, w2 = normal(12, 20, seed=1), normal(30, 12, seed=2)
    scale = normal(12, seed=3).exp()
    before = record(w1, w2, freedom="scaling")
    after = record(scale[:, None] * w1, w2 / scale, freedom="scaling")
    assert moved(before, after)
    assert_same_balance(before, after)
    a, b = reference.neuron_balanced(w1.numpy(), w2.numpy())
    assert before.balanced.commutator_ratio == pytest.approx(reference.commutator_ratio(a, b))
    assert before.balanced.gram_correlation == pytest.approx(reference.gram_correlation(a, b))
    assert before.balanced.imbalance == pytest.approx(reference.imbalance(a, b))
    assert before.balanced.overlap_ratio == pytest.approx(reference.overlap_ratio(a, b))


@pytest.mark.parametrize("freedom", ["scaling", "gl"])
def test_the_noise_of_balanced_maps_is_in_proportion_to_their_norms(freedom):
    w1, w2 = 100 * normal(1, 12, 20, seed=1), 0.01 * normal(1, 30, 12, seed=2)
    group = pair_group(w1, w2, freedom=freedom)
    raw = matrices(w1, delta=1e-3), matrices(w2, delta=1e-6)
    fixed = balanced_maps(group, group.members, *raw)
    for before, after in zip(raw, (fixed.write, fixed.read), strict=True):
        size = float(
            torch.linalg.matrix_norm(after.values) / torch.linalg.matrix_norm(before.values)
        )
        size *= 2.0 ** float(after.exponents - before.exponents)
        unit = 2.0 ** float(after.exponents)
        assert not 0.1 < size < 10
        assert float(after.delta) * unit == pytest.approx(size * float(before.delta))
        mean_square = float(after.mean_square) * unit**2
        assert mean_square == pytest.approx(size**2 * float(before.mean_square), rel=1e-9, abs=0)


def test_dead_neurons_take_no_scale():
    w1, w2 = normal(12, 20, seed=1), normal(30, 12, seed=2)
    w1[3], w2[:, 5] = 0, 0
    found = record(w1, w2, freedom="scaling")
    assert found.balanced.status == "ok"
    assert np.isfinite(found.balanced.commutator_ratio)


def test_permutations_move_nothing():
    w1, w2 = normal(12, 20, seed=1), normal(30, 12, seed=2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    before, after = (
        record(*maps, freedom="permutation") for maps in ((w1, w2), (w1[order], w2[:, order]))
    )
    for name, label in labels("permutation").items():
        if label == "functional" and hasattr(before, name):
            one, other = getattr(before, name), getattr(after, name)
            if isinstance(one, float | int):
                assert one == pytest.approx(other, rel=1e-10), name
    assert before.balanced is None


def test_gauge_fixing_of_ill_conditioned_maps_in_single_precision_is_that_of_double():
    """Two writers that share a reader: balancing transforms lose the square of the condition."""
    values = torch.logspace(0, -3, 32).tolist()
    w1 = torch.stack([with_values(32, 100, values, seed=seed) for seed in (1, 3)]).float()
    w2 = with_values(100, 32, values, seed=5)[None].float()
    options = {"freedom": "gl", "members": [(0, 0), (1, 0)]}
    for one, two in zip(
        records(w1, w2, **options), records(w1.double(), w2.double(), **options), strict=True
    ):
        assert one.balanced.status == two.balanced.status == "ok"
        assert one.balanced.commutator_ratio == pytest.approx(
            two.balanced.commutator_ratio, rel=1e-4
        )


@pytest.mark.parametrize("freedom", ["gl"])
def test_all_of_gl_leaves_the_spectrum_of_the_product(freedom):
    w1, w2 = normal(8, 20, seed=1), normal(30, 8, seed=2)
    g = normal(8, 8, seed=3)
    before = record(w1, w2, freedom=freedom)
    after = record(g @ w1, w2 @ torch.linalg.inv(g), freedom=freedom)
    assert moved(before, after)
    assert_same_balance(before, after)
    assert before.balanced.commutator_ratio is None
    one, _ = reference.balanced(w1.numpy(), w2.numpy())
    assert before.balanced.effective_rank == pytest.approx(reference.participation_ratio(one))


def test_rank_deficient_pairs_have_no_balanced_form():
    w1, w2 = normal(8, 20, seed=1), normal(30, 5, seed=2) @ normal(5, 8, seed=3)
    assert record(w1, w2, freedom="gl").balanced.status == "rank deficient"
    tall = record(normal(20, 8, seed=1), normal(8, 20, seed=2), freedom="gl")
    assert tall.balanced.status == "rank deficient"


def test_maps_whose_product_is_zero_have_no_effective_rank():
    w1, w2 = torch.zeros(8, 3, dtype=torch.float64), torch.zeros(2, 8, dtype=torch.float64)
    w1[:3], w2[:, 5:7] = torch.eye(3), torch.eye(2)
    found = record(w1, w2, freedom="gl").balanced
    assert (found.effective_rank, found.status) == (None, "rank deficient")


@pytest.mark.parametrize("shared", ["read", "write"])
def test_grouped_queries_are_balanced_together(shared):
    # Four heads, two of which share one key (or value) head each; g acts on a group at once.
    many, few = normal(4, 6, 20, seed=1), normal(2, 20, 6, seed=2)
    of = [(0, 0), (1, 0), (2, 1), (3, 1)]
    if shared == "write":
        many, few = few.mT.contiguous(), many.mT.contiguous()
        of = [(b, a) for a, b in of]
    g = normal(2, 6, 6, seed=3)
    owners = torch.tensor([0, 0, 1, 1])
    gm, gf = (g[owners], g) if shared == "read" else (g, g[owners])
    options = {"freedom": "gl", "members": of}
    before = records(many, few, **options)
    after = records(gm @ many, few @ torch.linalg.inv(gf), **options)
    for one, other in zip(before, after, strict=True):
        assert moved(one, other)
        assert_same_balance(one, other)
    group = pair_group(many, few, **options)
    assert not fixes_completely(group, group.members)
    w1, w2 = (w[[m[k] for m in of]] for k, w in enumerate((many, few)))
    fixed = balanced_maps(group, group.members, matrices(w1), matrices(w2))
    one, two = fixed.write.values, fixed.read.values
    a, b = one @ one.mT, two.mT @ two
    # ΣA over the members of the side that is not shared equals the Gram of the shared map.
    for k in (0, 2):
        sums = (a[k] + a[k + 1], b[k]) if shared == "read" else (a[k], b[k] + b[k + 1])
        torch.testing.assert_close(*sums, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(two[k] @ one[k], w2[k] @ w1[k])


def plane_change(rotary: Rotary, d: int, *, seed: int) -> torch.Tensor:
    """A random aI + bJ on each plane, and a random block on what is not turned."""
    g = torch.zeros(d, d, dtype=torch.float64)
    for (i, j), (a, b) in zip(rotary.planes(), normal(d, 2, seed=seed), strict=False):
        g[i, i], g[i, j], g[j, i], g[j, j] = a, -b, b, a
    rest = d - rotary.dims
    g[rotary.dims :, rotary.dims :] = normal(rest, rest, seed=seed + 1)
    return g


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("turned", [8, 4])
@pytest.mark.parametrize("queries", [1, 2])
def test_rotary_planes(layout, turned, queries):
    rotary = Rotary(turned, layout)
    w1, w2 = normal(2 * queries, 8, 20, seed=1), normal(2, 20, 8, seed=2)
    of = [(h, h // queries) for h in range(2 * queries)]
    g = torch.stack([plane_change(rotary, 8, seed=s) for s in (3, 5)])
    options = {"freedom": "rotary", "rotary": rotary, "members": of}
    before = records(w1, w2, **options)
    owners = torch.tensor([b for _, b in of])
    after = records(g[owners] @ w1, w2 @ torch.linalg.inv(g), **options)
    for one, other in zip(before, after, strict=True):
        assert moved(one, other)
        assert_same_balance(one, other)
    # A change that the rotation does not commute with is no freedom, and is seen.
    other = records(haar(1, 8, 8, seed=9)[0] * 2 @ w1 + w1[:1], w2, **options)
    assert moved(before[0], other[0])


def test_rotary_traces_agree_on_each_plane():
    rotary = Rotary(4, "half")
    w1, w2 = normal(1, 4, 20, seed=1), normal(1, 20, 4, seed=2)
    group = pair_group(w1, w2, freedom="rotary", rotary=rotary)
    fixed = balanced_maps(group, group.members, matrices(w1), matrices(w2))
    one, two = fixed.write.values[0], fixed.read.values[0]
    a, b = one @ one.mT, two.mT @ two
    for i, j in rotary.planes():
        assert float(a[i, i] + a[j, j]) == pytest.approx(float(b[i, i] + b[j, j]))


def test_noise_makes_a_balanced_form_isotropic_too():
    # Both Grams are multiples of the identity up to noise: nothing is left to correlate.
    turn = haar(1, 30, 12, seed=1)[0]
    found = record(turn.mT, 2 * haar(1, 40, 12, seed=2)[0], freedom="scaling")
    assert "isotropic" in found.balanced.status
    assert found.balanced.commutator_ratio is None


def test_labels():
    assert set(labels("gl").values()) == {"functional", "gauge"}
    for freedom in ("gl", "rotary", "scaling"):
        assert labels(freedom)["commutator_ratio"] == "gauge"
        assert labels(freedom)["product_spectrum"] == "functional"
        assert labels(freedom)["kernel_intersection"] == "functional"
    for freedom in ("permutation", "none"):
        assert set(labels(freedom).values()) == {"functional"}
    known = set(PairRecord.model_fields) | {"product_spectrum", "product_rank"}
    assert set(labels("gl")) <= known | {"product_effective_rank"}
