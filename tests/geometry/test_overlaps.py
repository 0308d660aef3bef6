"""Overlaps of many subspaces: against scipy, either form, any slab, float32 against float64."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from flagscope.geometry import (
    cheaper_form,
    head_spaces,
    orthonormal_rows,
    overlaps_by_projectors,
    squared_overlaps,
    whitening,
)
from flagscope.null import haar_overlap
from geometry.planted import haar, matrices, normal, with_values

SIZES = [(40, 6, 5), (3, 40, 4), (30, 12, 9), (7, 33, 3), (4, 5, 5), (300, 9, 2)]


def by_scipy(bases):
    """Σcos² of all pairs from the principal angles."""
    return np.array(
        [[(np.cos(subspace_angles(a.T, b.T)) ** 2).sum() for b in bases] for a in bases]
    )


@pytest.mark.parametrize("form", ["projectors", "grams"])
def test_against_principal_angles(form):
    maps = normal(9, 4, 20, seed=1)
    rows = orthonormal_rows(matrices(maps), whitening(matrices(maps)))
    assert rows.dtype == torch.float32
    found = squared_overlaps(rows, form=form)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, by_scipy(maps.numpy()), atol=2e-6)


@pytest.mark.parametrize(("count", "d", "r"), SIZES)
@pytest.mark.parametrize("slab", [1 << 24, 4000, 8])
def test_both_forms_agree_whatever_the_slab(count, d, r, slab):
    bases = haar(count, d, r, seed=1).mT
    one = squared_overlaps(bases, form="projectors", slab=slab)
    two = squared_overlaps(bases, form="grams", slab=slab)
    torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)
    assert torch.equal(one, one.mT)
    assert torch.equal(two, two.mT)
    torch.testing.assert_close(one.diagonal(), torch.full((count,), float(r)).double())


@pytest.mark.parametrize("width", [1, 3, 5, 7, 12])
def test_two_blocks_of_coordinates_at_a_time_are_enough(width):
    bases = haar(10, 12, 4, seed=1).mT
    asked = []

    def rows(start, stop):
        asked.append((start, stop))
        return bases[:, :, start:stop]

    found = overlaps_by_projectors(rows, count=10, d=12, width=width, device=bases.device)
    torch.testing.assert_close(found, squared_overlaps(bases), rtol=1e-12, atol=1e-12)
    blocks = -(-12 // width)
    assert len(asked) == blocks * (blocks - 1) // 2 + 1
    assert max(stop - start for start, stop in asked) == width


@pytest.mark.parametrize("form", ["projectors", "grams"])
def test_no_temporary_is_larger_than_the_slab(form, monkeypatch):
    bases = haar(20, 48, 6, seed=1).mT
    largest = []
    multiply = torch.Tensor.__matmul__

    def measured(one, two):
        product = multiply(one, two)
        largest.append(product.numel() * product.element_size())
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", measured)
    for slab in (8 * 20 * 20, 40_000):
        largest.clear()
        squared_overlaps(bases, form=form, slab=slab)
        assert slab / 4 < max(largest) <= slab


def test_the_form_is_the_one_of_fewer_operations():
    assert cheaper_form(144, 64, 768) == cheaper_form(1024, 128, 4096) == "projectors"
    assert cheaper_form(12, 64, 768) == "grams"
    assert cheaper_form(100, 8, 768) == cheaper_form(2, 64, 4096) == "grams"


@pytest.mark.parametrize(("count", "d", "r"), [(24, 768, 64), (8, 2048, 128)])
@pytest.mark.parametrize("form", ["projectors", "grams"])
def test_the_error_of_float32_is_far_below_the_spread_by_chance(count, d, r, form):
    maps = normal(count, r, d, seed=1)
    maps[1] = maps[0] + 0.1 * maps[1]
    exact = squared_overlaps(head_spaces(maps).bases.mT)
    rows = orthonormal_rows(matrices(maps), whitening(matrices(maps)))
    error = (squared_overlaps(rows, form=form) - exact).abs()
    off = error - torch.diag(error.diagonal())
    assert float(off.max()) < 1e-4 * haar_overlap(r, r, d).sd
    assert float(error.max()) < 2e-7 * r


# Bases


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e9])
def test_bases_are_orthonormal_whatever_the_condition(condition):
    values = np.geomspace(1, 1 / condition, 8).tolist()
    maps = torch.stack([with_values(8, 50, values, seed=seed) for seed in (1, 5)])
    found = whitening(matrices(maps))
    assert found.ranks.tolist() == [8, 8]
    rows = orthonormal_rows(matrices(maps), found)
    eye = torch.eye(8).expand(2, 8, 8)
    torch.testing.assert_close(rows @ rows.mT, eye, rtol=0, atol=1e-6)
    # The span is that of the map.
    exact = head_spaces(maps).bases
    torch.testing.assert_close(
        (exact.mT @ rows.mT.double()).square().sum((1, 2)), torch.full((2,), 8.0).double(),
        rtol=0, atol=1e-5,
    )  # fmt: skip
    # A part of the coordinates is that part of the rows.
    parts = torch.cat([found.rows(maps, 0, 20), found.rows(maps, 20, 50)], -1)
    tolerance = 1e-6 if condition < 1e9 else 1e-5
    torch.testing.assert_close(parts @ parts.mT, eye.double(), rtol=0, atol=tolerance)


def test_ranks_are_those_of_head_spaces():
    maps = normal(6, 6, 30, seed=1)
    maps[1] = normal(6, 2, seed=2) @ normal(2, 30, seed=3)
    maps[2, 5] = maps[2, :5].sum(0) + 1e-4 * normal(30, seed=2)
    maps[3] *= 1e-120
    maps[4] *= 1e-5
    delta = torch.tensor([0.0, 0.0, 1e-2, 0.0, 1e-2, 1e-2], dtype=torch.float64)
    maps_of = matrices(maps)
    noisy = type(maps_of)(maps, delta, delta**2)
    found = whitening(noisy)
    assert found.ranks.tolist() == [6, 2, 5, 6, 0, 6]
    assert found.ranks.tolist() == head_spaces(maps, noise=delta).ranks.tolist()
    assert found.statuses == ("ok",) * 4 + ("below its storage noise", "ok")
    assert found.sharp.tolist() == [True, False, False, True, False, True]
    rows = orthonormal_rows(noisy, found)
    assert not rows[1, 2:].any()
    assert not rows[4].any()
    exact = squared_overlaps(head_spaces(maps, noise=delta).bases.mT)
    torch.testing.assert_close(squared_overlaps(rows), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("value", "status"),
    [(0.0, "all zero"), (float("nan"), "not finite"), (float("inf"), "not finite")],
)
def test_what_cannot_be_measured_has_rank_0(value, status):
    maps = normal(3, 4, 20, seed=1)
    maps[1, :, 3:] = value
    if value == 0:
        maps[1] = 0
    found = whitening(matrices(maps))
    assert (found.ranks.tolist(), found.statuses) == ([4, 0, 4], ("ok", status, "ok"))
    rows = orthonormal_rows(matrices(maps), found)
    assert bool(torch.isfinite(rows).all())
    assert not rows[1].any()
    assert not found.rows(maps, 0, 7)[1].any()


def test_more_rows_than_dimensions():
    maps = normal(3, 9, 5, seed=1)
    found = whitening(matrices(maps))
    assert found.ranks.tolist() == [5, 5, 5]
    total = squared_overlaps(orthonormal_rows(matrices(maps), found))
    torch.testing.assert_close(total, torch.full((3, 3), 5.0).double(), rtol=0, atol=1e-5)
