"""Sums of projectors: their spectrum, who shares a direction, and the largest eigenvalue alone."""

import numpy as np
import pytest

from flagscope.geometry import (
    eigenvalue_error,
    head_spaces,
    largest_of_projector_sum,
    projector_sum,
)
from geometry.planted import haar, normal


@pytest.mark.parametrize(("count", "d", "r"), [(3, 40, 4), (12, 20, 6)])
def test_projector_sum_on_either_side(count, d, r):
    maps = normal(count, r, d, seed=1)
    maps[:, 0] = maps[0, 0]
    spaces = head_spaces(maps)
    found = projector_sum(spaces, threshold=count - 0.01)
    assert found.shared.tolist() == pytest.approx([count], rel=1e-5)
    assert found.membership.shape == (1, count)
    np.testing.assert_allclose(found.membership, 1, atol=1e-4)
    assert len(found.eigenvalues) == min(d, count * r)
    assert float(found.eigenvalues.sum()) == pytest.approx(count * r, rel=1e-5)


@pytest.mark.parametrize(("count", "d", "r"), [(20, 600, 30), (12, 600, 60), (30, 520, 40)])
def test_the_largest_eigenvalue_alone_is_that_of_the_spectrum(count, d, r):
    maps = normal(count, r, d, seed=1)
    for planted in (False, True):
        if planted:
            maps[:6, 0] = maps[0, 0]
        spaces = head_spaces(maps)
        exact = float(projector_sum(spaces, threshold=float("inf")).eigenvalues[0])
        found = largest_of_projector_sum(spaces)
        assert found == pytest.approx(exact, rel=1e-5 if planted else 1e-2)
        assert found < exact * (1 + 1e-5)
    turned = haar(1, 640, 560, seed=2)[0].mT.reshape(14, 40, 640)
    assert largest_of_projector_sum(head_spaces(turned)) == pytest.approx(1, rel=1e-5)


def test_members_of_the_first_directions_by_a_krylov_space():
    # Two equal heads: 24 directions of eigenvalue 2 at the least, in a space where few are asked.
    maps = normal(12, 24, 400, seed=3).float()
    maps[5] = maps[2]
    spaces = head_spaces(maps)
    every = projector_sum(spaces, threshold=1.9)
    first = projector_sum(spaces, threshold=1.9, most=3)
    assert first.shared.tolist() == every.shared.tolist()
    assert first.membership.shape == (3, 12)
    np.testing.assert_allclose(first.membership, every.membership[:3], atol=1e-3)
    np.testing.assert_allclose(first.membership.sum(1), first.shared[:3], rtol=1e-4)


def test_equal_eigenvalues_that_a_krylov_space_would_miss():
    # Forty directions in all of three heads: more equal ones than a block holds.
    basis = haar(1, 2600, 40, seed=4)[0].mT
    spaces = head_spaces(basis.expand(3, 40, 2600).float())
    found = projector_sum(spaces, threshold=2.0, most=40)
    assert found.shared.tolist() == pytest.approx([3] * 40, rel=1e-5)
    np.testing.assert_allclose(found.membership, 1, atol=1e-4)


@pytest.mark.parametrize("d", [64, 512, 1536])
def test_eigenvalues_err_by_less_than_their_bound(d):
    spaces = head_spaces(normal(8, d // 8, d, seed=5).float())
    bases = spaces.bases.double()
    exact = np.linalg.eigvalsh(sum(q @ q.mT for q in bases).numpy())[::-1]
    found = projector_sum(spaces, threshold=float("inf")).eigenvalues
    assert np.abs(found.numpy() - exact).max() < eigenvalue_error(d)
