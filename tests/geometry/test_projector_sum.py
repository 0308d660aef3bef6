"""Sums of projectors: their spectrum, who shares a direction, and the largest eigenvalue alone."""

import numpy as np
import pytest

from flagscope.geometry import head_spaces, largest_of_projector_sum, projector_sum
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
