"""Perturbation bounds against maps that are perturbed."""

import pytest
import torch

from flagscope.geometry import NoisyMap, gram_error, noisy_maps, principal_sines, product_error
from geometry.planted import matrices, normal, with_values

EPS = torch.finfo(torch.float64).eps


def noisy(w, delta):
    return NoisyMap(tuple(w.shape), torch.linalg.svdvals(w), delta, EPS, lambda: w)


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("size", [1e-2, 1e-5])
def test_no_error_turns_a_leading_space_beyond_the_bound(rank, size):
    w = with_values(20, 9, [5.0, 4.5, 3.0, 1.0, 0.8, 0.5], seed=1)
    for seed in range(10):
        error = normal(20, 9, seed=10 + seed)
        error *= size / torch.linalg.matrix_norm(error, 2)
        spaces = [torch.linalg.svd(m).U[:, :rank] for m in (w, w + error)]
        turned = float(principal_sines(*spaces)[-1])
        # The gap of the bound is that of the map as it is stored, the error's own norm aside.
        assert turned <= 1.1 * noisy(w, size).turn(rank)
        assert noisy(w, size).turn(rank) < 20 * size


def test_a_space_without_a_gap_may_turn_anywhere():
    assert noisy(torch.eye(4).double(), 1e-9).turn(2) >= 1


@pytest.mark.parametrize("read", [False, True])
def test_the_error_of_a_gram_matrix_is_that_of_random_noise(read):
    w = normal(3, 12, 30, seed=1)
    maps = matrices(w, 1e-3)
    error = 1e-3 / 30**0.5 * normal(3, 12, 30, seed=2)
    noisy_grams, grams = ((m.mT @ m if read else m @ m.mT) for m in (w + error, w))
    found = gram_error(noisy_maps(maps, read=read, signal=False), roundoff=EPS)
    exact = torch.linalg.matrix_norm(noisy_grams - grams)
    # An estimate from above, to first order, of what the norms allow.
    assert bool((exact < found).all())
    assert bool((found < 10 * exact).all())


def test_the_error_of_a_product_bounds_those_of_its_factors():
    w1, w2 = normal(8, 5, seed=1), normal(6, 8, seed=2)
    bound = product_error(noisy(w1, 1e-2), noisy(w2.mT, 1e-3))
    for seed in range(10):
        one, two = normal(8, 5, seed=20 + seed), normal(6, 8, seed=40 + seed)
        one *= 1e-2 / torch.linalg.matrix_norm(one, 2)
        two *= 1e-3 / torch.linalg.matrix_norm(two, 2)
        assert float(torch.linalg.matrix_norm((w2 + two) @ (w1 + one) - w2 @ w1, 2)) <= bound
