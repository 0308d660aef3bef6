"""Scale profiles: what chance gives for row norms, and what is left once they are divided out."""

import numpy as np
import pytest
import torch

import reference
from flagscope.geometry import (
    FEWEST,
    flat_spread,
    in_complement_of_mean,
    mean_removed,
    profiles,
    row_scales,
    unit_rows,
)
from flagscope.null import commutator_null, correlation_null, spectrum_invariants
from geometry.planted import haar, normal


def scales(w):
    return row_scales(w, (w @ w.mT).square().sum((-2, -1)))


def spectrum(kind, d):
    steps = torch.arange(1, d + 1, dtype=torch.float64)
    return {"1/i": 1 / steps, "exp": torch.exp(-steps / 8), "thin": (steps <= d / 4).double()}[kind]


@pytest.mark.parametrize("d", [12, 48, 128])
@pytest.mark.parametrize("kind", ["gaussian", "wide", "1/i", "exp", "thin"])
def test_maps_in_general_position_are_rarely_uneven_together(d, kind):
    """Both of a pair in one of a hundred at most; profiles correlated in a tenth of a tenth more.

    A steep spectrum has a few row norms for a spread, which vary more than their mean says.
    """
    draws = 400
    if kind in ("gaussian", "wide"):
        maps = [normal(draws, d, d * (4 if kind == "wide" else 1), seed=s) for s in (1, 2)]
    else:
        maps = [haar(draws, d, d, seed=s) * spectrum(kind, d) for s in (1, 2)]
    write, read = map(scales, maps)
    uneven = torch.cat([write.uneven, read.uneven]).double().mean()
    assert uneven < 0.13 + 4 * (0.13 / 2 / draws) ** 0.5
    both = (write.uneven & read.uneven).double().mean()
    assert both < 0.02 + 4 * (0.02 / draws) ** 0.5
    # A correlation beyond 1.64 of its standard deviations: a tenth of the normal law.
    assert abs(profiles(write, read).unlike.double().mean() - 0.1) < 0.1


@pytest.mark.parametrize("sd", [0.3, 0.5])
@pytest.mark.parametrize("shared", [True, False])
def test_row_profiles_are_seen(sd, shared):
    d, draws = 96, 60
    one = (sd * normal(draws, d, 1, seed=1)).exp()
    two = one if shared else (sd * normal(draws, d, 1, seed=2)).exp()
    write, read = (
        scales(one * normal(draws, d, 96, seed=3)),
        scales(two * normal(draws, d, 200, seed=4)),
    )
    assert bool(profiles(write, read).unlike.all())


def test_spread_of_row_norms_is_the_haar_mean_at_fixed_spectra():
    """The constant 2/(d+2) behind `uneven`, by draws: mean spread over chance is 1."""
    d, draws = 24, 4000
    values = spectrum("1/i", d)
    rows = (haar(draws, d, d, seed=1) * values).square().sum(-1)
    spread = (rows - rows.mean(-1, keepdim=True)).square().sum(-1)
    square = values.square()
    chance = 2 * float((square - square.mean()).square().sum()) / (d + 2)
    ratio = (spread / chance).numpy()
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / draws**0.5
    w = haar(draws, d, d, seed=1) * values
    assert scales(w).uneven.tolist() == (ratio > 1.5).tolist()


def test_uneven_is_that_of_the_reference_and_of_the_gram_made_here():
    for seed, profile in enumerate((0.0, 0.1, 0.2, 0.4)):
        w = (profile * normal(40, 1, seed=seed)).exp() * normal(40, 60, seed=seed + 10)
        w[5] = 0
        known, unknown = scales(w[None]), row_scales(w[None])
        assert bool(known.uneven) == bool(unknown.uneven) == reference.uneven(w.numpy())
        assert known.alive.sum() == 39
        assert known.square[0].tolist() == pytest.approx((w**2).sum(1).tolist())


def test_dead_coordinates_and_equal_rows():
    dead = torch.ones(1, 6, 3, dtype=torch.float64)
    dead[0, :2] = 0
    alive = torch.ones(1, 6, 3, dtype=torch.float64)
    found = profiles(scales(dead), scales(dead))
    assert (bool(found.dead), bool(found.unlike)) == (True, False)
    assert found.alive.tolist() == [[False] * 2 + [True] * 4]
    assert not bool(profiles(scales(dead), scales(alive)).any)
    # Norms that differ by round-off alone are even.
    near = alive * (1 + 1e-16 * torch.arange(6.0).double()[:, None])
    assert not bool(scales(near).uneven)


def test_a_profile_of_scales_is_divided_out_exactly():
    w = normal(2, 10, 30, seed=1)
    moved = w * normal(2, 10, 1, seed=2).exp()
    flat = [unit_rows(one, one.square().sum(-1)) for one in (w, moved)]
    torch.testing.assert_close(*flat)
    torch.testing.assert_close(flat[0].square().sum(-1), torch.ones(2, 10).double())


@pytest.mark.parametrize("d", [8, 16, 64])
def test_spread_of_rho_of_correlation_matrices(d):
    """Rows of uniform direction against any flat diagonal: the variance is exact."""
    draws = 160_000 // d
    a, b = (normal(draws, d, m, seed=m) for m in (d, 2 * d))
    a, b = (unit_rows(w, w.square().sum(-1)) for w in (a, b))
    one, two = (w @ w.mT - torch.eye(d, dtype=torch.float64) for w in (a, b))
    rho = (one * two).sum((-2, -1)) / one.norm(dim=(-2, -1)) / two.norm(dim=(-2, -1))
    haar_sd = (2 / ((d - 1) * (d + 2))) ** 0.5
    z = (rho / haar_sd / flat_spread(d)).numpy()
    assert abs(z.mean()) < 4 / draws**0.5
    assert abs((z**2).mean() - 1) < 4 * (z**2).std() / draws**0.5
    # And without the correction it is not: that would be seen at small d.
    if d == 8:
        raw = (rho / haar_sd).numpy() ** 2
        assert raw.mean() - 1 > 4 * raw.std() / draws**0.5


@pytest.mark.parametrize("d", [FEWEST, 32])
def test_size_of_rho_and_c_of_correlation_matrices(d):
    draws = 1500
    pairs = [normal(draws, d, m, seed=m + 5) for m in (d, 3 * d)]
    pairs = [unit_rows(w, w.square().sum(-1)) for w in pairs]
    spectra = [torch.linalg.eigvalsh(w @ w.mT).clamp_min(0).numpy() for w in pairs]
    a, b = (w @ w.mT for w in pairs)
    low = {"rho": [], "c": []}
    for i in range(draws):
        one, two = (spectrum_invariants(values[i]) for values in spectra)
        correlation = correlation_null(one, two)
        rho = reference.gram_correlation(pairs[0][i].numpy(), pairs[1][i].mT.numpy())
        low["rho"].append(correlation.significance(rho / flat_spread(d)).p)
        c = reference.gram_commutator_ratio(a[i].numpy(), b[i].numpy())
        low["c"].append(commutator_null(one, two, draws=999, seed=0).significance(c).p)
    for p in low.values():
        for level in (0.05, 0.01):
            share = np.mean(np.array(p) < level)
            assert share < 1.2 * level + 4 * (level / draws) ** 0.5, (level, share)


def test_the_mean_is_removed_over_live_coordinates_and_left_out():
    w = normal(2, 9, 5, seed=1)
    w[0, 3] = 0
    found = mean_removed(w)
    assert float(found[0, 3].abs().max()) == 0
    torch.testing.assert_close(found.sum(1), torch.zeros(2, 5).double(), rtol=0, atol=1e-13)
    kept = in_complement_of_mean(w)
    centre = np.eye(9) - 1 / 9
    for one, exact in zip(kept.numpy(), w.numpy(), strict=True):
        assert one.shape == (8, 5)
        np.testing.assert_allclose(one.T @ one, exact.T @ centre @ exact, atol=1e-12)
    constant = torch.ones(1, 9, 1, dtype=torch.float64)
    assert float(in_complement_of_mean(constant).abs().max()) < 1e-14
