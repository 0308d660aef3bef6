"""Maps by their Gram matrices: moments, inner products, leading spaces and counts, against SVDs."""

import pytest
import torch

from flagscope.geometry import (
    commutator_of_grams,
    count_above,
    counted_rank,
    counted_signal_rank,
    difference_of_grams,
    gram_side,
    inner_of_grams,
    is_definite,
    leading_space,
    restricted_side,
    signal_rank_of,
)

D = 96


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def decaying(d, m, power, seed):
    u, s, v = torch.linalg.svd(normal(d, m, seed=seed), full_matrices=False)
    return (u * torch.arange(1, len(s) + 1) ** -power) @ v


def centred(w):
    a = w @ w.T
    return a - a.trace() / len(a) * torch.eye(len(a), dtype=a.dtype)


@pytest.mark.parametrize("m", [40, D, 200])
def test_moments(m):
    w = decaying(D, m, 0.4, seed=1)
    side, a = gram_side(w), centred(w)
    assert side.full == (m >= D)
    assert side.mean == pytest.approx(float(w.square().sum()) / D)
    for value, power in ((side.square, 2), (side.cube, 3), (side.fourth, 4)):
        assert value == pytest.approx(float(torch.linalg.matrix_power(a, power).trace()), rel=1e-10)
    sigma = torch.linalg.svdvals(w)
    expected = float(sigma.square().sum() ** 2 / sigma.pow(4).sum())
    assert side.participation == pytest.approx(expected)
    x = normal(D, 3, seed=2)
    assert torch.allclose(side.apply(x), a @ x, atol=1e-12)


@pytest.mark.parametrize(("m1", "m2"), [(40, 30), (40, 200), (200, 40), (D, 300)])
def test_pairs(m1, m2):
    one, two = normal(D, m1, seed=1), decaying(D, m2, 0.3, seed=2)
    write, read, a, b = gram_side(one), gram_side(two), centred(one), centred(two)
    inner = inner_of_grams(write, read)
    assert inner == pytest.approx(float((a * b).sum()), rel=1e-8)
    gap = float(torch.linalg.matrix_norm(3 * one @ one.T - 0.5 * two @ two.T))
    assert difference_of_grams(write, read, inner, (3.0, 0.5)) == pytest.approx(gap, rel=1e-8)
    product = a @ b
    expected = float((product - product.T).square().sum())
    made = commutator_of_grams(write, read, generator=generator())
    sketch = commutator_of_grams(write, read, generator=generator(), product_up_to=0)
    if write.full and read.full:
        assert made.commutator == pytest.approx(expected)
        assert made.degrees == made.commutator_error == 0
    assert abs(sketch.commutator - expected) <= 4 * sketch.commutator_error + 1e-9 * expected


def test_equal_maps_have_no_difference():
    side = gram_side(normal(D, 200, seed=3).float())
    assert difference_of_grams(side, side, side.square) == 0
    thin = gram_side(normal(D, 20, seed=3).float())
    assert difference_of_grams(thin, thin, inner_of_grams(thin, thin)) == 0


def test_rows_are_scaled_and_left_out():
    w = normal(D, 120, seed=4)
    w[7] = 0
    alive = (w != 0).any(1)
    factors = torch.linalg.vector_norm(w[alive], dim=1).reciprocal()
    side = restricted_side(gram_side(w), alive, factors)
    plain = gram_side(w[alive] * factors[:, None])
    assert side.d == D - 1
    assert torch.allclose(side.centred, plain.centred, atol=1e-12)
    assert torch.allclose(side.matrix(), plain.matrix())


@pytest.mark.parametrize("m", [40, 300])
def test_leading_spaces(m):
    w = decaying(D, m, 0.5, seed=5)
    space = gram_side(w).leading(6, generator=generator())
    u, sigma, _ = torch.linalg.svd(w)
    assert space.certified
    assert torch.allclose(space.values.sqrt(), sigma[:6], rtol=1e-9)
    # Orthonormal, and the span of the leading singular vectors.
    assert torch.allclose(space.vectors.T @ space.vectors, torch.eye(6).double(), atol=1e-9)
    assert float((u[:, :6].T @ space.vectors).square().sum()) == pytest.approx(6, abs=1e-8)


def test_no_leading_direction_is_a_space_of_dimension_0():
    for m in (40, 300):
        space = gram_side(normal(D, m, seed=6)).leading(0, generator=generator())
        assert space.vectors.shape == (D, 0)


def test_a_space_without_a_gap_is_not_certified_unless_it_is_settled():
    s = torch.eye(400, dtype=torch.float64)
    # Every space is leading here: residuals are round-off.
    assert leading_space(
        lambda x: s @ x, 400, 3, generator=generator(), dtype=torch.float64
    ).certified
    w = normal(400, 420, seed=7)
    space = leading_space(
        lambda x: w @ (w.T @ x), 400, 150, generator=generator(), dtype=torch.float64
    )
    assert not space.certified
    assert space.turn > 1e-5


@pytest.mark.parametrize("threshold", [-1.0, 0.3, 1.0, 5.0, 1e3])
def test_eigenvalues_are_counted(threshold):
    a = centred(normal(D, 200, seed=8))
    expected = int((torch.linalg.eigvalsh(a) > threshold).sum())
    assert count_above(a, threshold) == expected


@pytest.mark.parametrize("shape", [(64, 64), (96, 300), (300, 96)])
@pytest.mark.parametrize("strength", [0.0, 2.0, 6.0])
def test_signal_ranks_are_those_of_the_spectrum(shape, strength):
    p, m = shape
    w = normal(p, m, seed=9) + strength * decaying(p, m, 0.5, seed=10) * (p + m) ** 0.5
    w = w * normal(p, 1, seed=11).exp()
    assert counted_signal_rank(w.float(), generator=generator()) == int(signal_rank_of(w.float()))


@pytest.mark.parametrize("d", [1, 5, 256, 257, 900])
@pytest.mark.parametrize("at", [0.0, 0.7])
def test_definite_from_the_least_eigenvalue_on(d, at):
    s = normal(d, d, seed=13)
    s = s @ s.mT / d
    s.diagonal().add_(at - torch.linalg.eigvalsh(s)[0])
    kept = s.clone()
    assert is_definite(s, above=at - 1e-9)
    assert not is_definite(s, above=at + 1e-9)
    assert torch.equal(s, kept)


def test_nothing_is_definite():
    assert is_definite(torch.zeros(0, 0))


@pytest.mark.parametrize("count", [1, 3])
def test_few_that_stand_out_are_counted_without_the_spectrum(count, monkeypatch):
    w = normal(320, 500, seed=14)
    for i in range(count):
        w += torch.outer(normal(320, seed=20 + i), normal(500, seed=40 + i)) / 6
    expected = int(signal_rank_of(w.float()))
    monkeypatch.setattr(torch.linalg, "eigvalsh", None)
    assert counted_signal_rank(w.float(), generator=generator()) == expected == count


def test_all_directions_stand_out_of_nothing():
    # Half of the spectrum lies beyond the edge: more than a Krylov space is built for.
    u, _, v = torch.linalg.svd(normal(80, 80, seed=12))
    w = (u * torch.where(torch.arange(80) < 36, 40.0, 0.01)) @ v
    assert counted_signal_rank(w, generator=generator()) == int(signal_rank_of(w))


@pytest.mark.parametrize("least", [1e-1, 3e-3, 1e-3, 3e-4])
def test_numerical_ranks_of_single_precision(least):
    """Singular values that a Gram matrix in float32 hides are found in float64."""
    u, _, v = torch.linalg.svd(normal(200, 200, seed=13))
    sigma = torch.cat([torch.linspace(1.0, 0.2, 190), torch.linspace(8, 1, 10) * least]).double()
    w = ((u * sigma) @ v).float()
    exact = torch.linalg.svdvals(w.double())
    for threshold in (1.5 * least, 4.5 * least):
        count, bound = counted_rank(w @ w.T, w, threshold=threshold, top=1.0, generator=generator())
        assert count == int((exact > threshold).sum())
        assert bound <= float(exact[count - 1]) * (1 + 1e-6)


def test_many_small_values_are_counted_in_double_precision():
    u, _, v = torch.linalg.svd(normal(120, 150, seed=14), full_matrices=False)
    w = ((u * torch.logspace(0, -5, 120).double()) @ v).float()
    exact = torch.linalg.svdvals(w.double())
    count, _ = counted_rank(w @ w.T, w, threshold=3e-4, top=1.0, generator=generator())
    assert count == int((exact > 3e-4).sum())
