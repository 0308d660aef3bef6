"""What chance gives for a correlation of gauge-fixed maps, and its distance from that."""

import numpy as np
import pytest
import torch

import reference
from diagnose.planted import records
from flagscope.arch import Rotary
from flagscope.null import balanced_correlation_z
from geometry.planted import haar, normal


def balanced_z(found):
    return np.array([one.balanced.gram_correlation_z for one in found])


def assert_standard(z, *, spread):
    """Mean 0 within four standard errors, standard deviation 1 within `spread`."""
    assert abs(z.mean()) < 4 * z.std() / len(z) ** 0.5
    assert abs(z.std() - 1) < spread


def grouped(d, width, *, groups, queries, seed):
    """Queries and keys of grouped-query attention, and which share a key head."""
    w1 = normal(groups * queries, d, width, seed=seed)
    w2 = normal(groups, width, d, seed=seed + 1)
    return w1, w2, [(h, h // queries) for h in range(groups * queries)]


@pytest.mark.parametrize("shape", [(16, 24, 40), (48, 48, 48), (64, 16, 32)])
def test_scaled_neurons_of_random_networks_are_standard(shape):
    d, m1, m2 = shape
    found = records(normal(600, d, m1, seed=1), normal(600, m2, d, seed=2), freedom="scaling")
    z = balanced_z(found)
    assert_standard(z, spread=0.15)
    # Against the null of other pairs most of them would count: equal diagonals correlate.
    rho = np.array([one.balanced.gram_correlation for one in found])
    usual = rho * ((d - 1) * (d + 2) / 2) ** 0.5
    assert usual.mean() > 10 * usual.std() / len(usual) ** 0.5


@pytest.mark.parametrize("sd", [0.3, 1.0])
def test_profiles_that_the_gauge_takes_away_leave_it_standard(sd):
    draws, d = 500, 32
    one, two = ((sd * normal(draws, d, seed=s)).exp() for s in (1, 2))
    w1 = one[..., None] * normal(draws, d, 48, seed=3)
    w2 = normal(draws, 40, d, seed=4) * two[:, None, :]
    assert_standard(balanced_z(records(w1, w2, freedom="scaling")), spread=0.25)


@pytest.mark.parametrize("d", [16, 48])
def test_steep_spectra_in_random_position_are_nearly_standard(d):
    values = 1 / torch.arange(1, d + 1, dtype=torch.float64)
    w1 = haar(400, d, d, seed=1) * values
    w2 = torch.diag(values) @ haar(400, d, d, seed=2)
    assert_standard(balanced_z(records(w1, w2, freedom="scaling")), spread=0.3)


@pytest.mark.parametrize("queries", [1, 4])
@pytest.mark.parametrize("d", [8, 16, 64])
def test_rotary_heads_of_grouped_queries_are_standard(d, queries):
    draws = 400
    groups = draws // queries
    w1, w2, of = grouped(d, 2 * d, groups=groups, queries=queries, seed=d)
    options = {"freedom": "rotary", "rotary": Rotary(d, "half"), "members": of}
    z = balanced_z(records(w1, w2, **options))
    # Heads of a group share their keys, so groups are what is independent.
    means = z.reshape(groups, queries).mean(1)
    assert abs(means.mean()) < 4 * means.std() / groups**0.5
    assert abs(z.std() - 1) < 0.2


def test_an_alignment_beyond_the_diagonals_is_seen():
    d, draws = 32, 20
    common = haar(draws, d, 3, seed=1)
    w1 = normal(draws, d, 32, seed=2) + 12 * common @ haar(draws, 32, 3, seed=3).mT
    w2 = normal(draws, 32, d, seed=4) + 12 * haar(draws, 32, 3, seed=5) @ common.mT
    assert balanced_z(records(w1, w2, freedom="scaling")).min() > 5


@pytest.mark.parametrize("freedom", ["scaling", "rotary"])
def test_z_from_the_balanced_maps_themselves(freedom):
    """From explicit Gram matrices: the diagonals as they are, all else as they weigh it."""
    d = 8
    w1, w2 = normal(1, d, 20, seed=1), normal(1, 30, d, seed=2)
    rotary = Rotary(d, "half") if freedom == "rotary" else None
    (found,) = records(w1, w2, freedom=freedom, rotary=rotary)
    one, two = w1[0].numpy(), w2[0].numpy()
    if freedom == "scaling":
        one, two = reference.neuron_balanced(one, two)
    else:
        a, b = (np.diag(g).reshape(2, d // 2).sum(0)
                for g in (reference.write_gram(one), reference.read_gram(two)))  # fmt: skip
        scale = np.tile((b / a) ** 0.25, 2)
        one, two = scale[:, None] * one, two / scale
    a = reference.traceless(reference.write_gram(one))
    b = reference.traceless(reference.read_gram(two))
    off = np.triu_indices(d, 1)
    mean = np.diag(a) @ np.diag(b)
    rows = [np.outer(np.diag(g), np.diag(g))[off]
            for g in (reference.write_gram(one), reference.read_gram(two))]  # fmt: skip
    weights = [outer / outer.sum() for outer in rows]
    variance = 4 * (a[off] ** 2).sum() * (b[off] ** 2).sum() * (weights[0] @ weights[1])
    expected = (np.sum(a * b) - mean) / variance**0.5
    assert found.balanced.gram_correlation_z == pytest.approx(expected, rel=1e-9)


def test_the_second_moment_is_that_of_signed_permutations():
    """At flat diagonals, by drawing them: P moves what is off the diagonal, and signs turn it."""
    d, draws = 6, 20_000
    rng = np.random.default_rng(0)
    a, b = (np.corrcoef(rng.standard_normal((d, m))) for m in (9, 5))
    a, b = (reference.traceless(g) for g in (a, b))
    norms = np.linalg.norm(a), np.linalg.norm(b)
    flat = torch.ones(d, dtype=torch.float64)
    z = []
    for _ in range(draws):
        order, signs = rng.permutation(d), rng.choice([-1, 1], d)
        turned = b[np.ix_(order, order)] * np.outer(signs, signs)
        rho = np.sum(a * turned) / norms[0] / norms[1]
        z.append(balanced_correlation_z(rho, flat, flat, norms=norms))
    z = np.array(z)
    assert abs(z.mean()) < 4 * z.std() / draws**0.5
    assert abs((z**2).mean() - 1) < 4 * (z**2).std() / draws**0.5


def test_where_there_is_no_null_there_is_no_z():
    w1, w2, of = grouped(8, 20, groups=2, queries=2, seed=1)
    for options in (
        {"freedom": "gl", "members": of},
        # Half of the dimensions are not turned: all of GL acts on them.
        {"freedom": "rotary", "rotary": Rotary(4, "half"), "members": of},
    ):
        for one in records(w1, w2, **options):
            assert one.balanced.gram_correlation is not None
            assert one.balanced.gram_correlation_z is None
    assert balanced_correlation_z(0.5, torch.ones(1), torch.ones(1), norms=(1.0, 1.0)) is None
    diagonal = torch.tensor([1.0, 3.0])  # all of Ã lies on its diagonal
    assert balanced_correlation_z(0.5, diagonal, diagonal, norms=(2**0.5, 2**0.5)) is None
