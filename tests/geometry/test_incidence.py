import math

import pytest
import scipy.linalg
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    flag_defect,
    incidence_at_ranks,
    incidence_surface,
    principal_cosines,
)
from geometry.planted import haar_bases, seeded, spaces_with_angles


def test_surface_sums_the_squared_cosines_of_all_leading_spaces():
    generator = seeded()
    left, right = haar_bases(8, 4, generator=generator), haar_bases(8, 5, generator=generator)
    surface = incidence_surface(left, right)
    for i in range(1, 5):
        for j in range(1, 6):
            angles = scipy.linalg.subspace_angles(left[:, :i].numpy(), right[:, :j].numpy())
            expected = sum(math.cos(angle) ** 2 for angle in angles)
            assert surface[i - 1, j - 1].item() == pytest.approx(expected, abs=1e-13)
    some = incidence_at_ranks(left.mT @ right, [1, 3, 4], [2, 5])
    torch.testing.assert_close(some, surface[[0, 2, 3]][:, [1, 4]])


def test_surface_has_haar_mean_ij_over_d():
    d, p, q, draws = 7, 5, 4, 4000
    generator = seeded(11)
    surfaces = incidence_surface(
        haar_bases(draws, d, p, generator=generator), haar_bases(draws, d, q, generator=generator)
    )
    i, j = torch.arange(1, p + 1)[:, None], torch.arange(1, q + 1)
    error = (surfaces.mean(0) - i * j / d) / (surfaces.std(0) / math.sqrt(draws))
    assert error.abs().max() < 4


def test_surface_is_at_least_the_dimension_of_the_intersection():
    axes = torch.eye(6, dtype=torch.float64)
    permutation = torch.randperm(6, generator=seeded(3))
    surface = incidence_surface(axes, axes[:, permutation])
    for i in range(1, 7):
        for j in range(1, 7):
            common = set(range(i)) & set(permutation[:j].tolist())
            assert surface[i - 1, j - 1] == len(common)


def test_batches_and_empty_spaces():
    generator = seeded(2)
    left, right = (
        haar_bases(3, 1, 6, 2, generator=generator),
        haar_bases(4, 6, 3, generator=generator),
    )
    surface = incidence_surface(left, right)
    assert surface.shape == (3, 4, 2, 3)
    torch.testing.assert_close(surface[2, 1], incidence_surface(left[2, 0], right[1]))
    assert incidence_surface(torch.eye(3)[:, :0], torch.eye(3)).shape == (0, 3)


@pytest.mark.parametrize(("p", "q"), [(2, 4), (4, 2), (3, 3), (1, 1)])
def test_flag_defect_is_the_part_of_v_outside_u(p, q):
    generator = seeded(p)
    v, u = haar_bases(5, 9, p, generator=generator), haar_bases(5, 9, q, generator=generator)
    projector = u @ u.mT
    outside = ((v - projector @ v) ** 2).sum((-2, -1))
    found = flag_defect(principal_cosines(v, u), rank_write=p, rank_read=q)
    torch.testing.assert_close(found, outside, atol=1e-13, rtol=0)


def test_flag_defect_vanishes_exactly_on_flags():
    v, u = spaces_with_angles([0.0, 0.0], 8, p=2, q=4, generator=seeded())
    assert flag_defect(principal_cosines(v, u), rank_write=2, rank_read=4).item() < 1e-14
    assert flag_defect(torch.ones(2), rank_write=3, rank_read=2).item() == 1
    assert flag_defect(torch.ones(0), rank_write=2, rank_read=0).item() == 2


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="squared length"):
        incidence_at_ranks(torch.ones(2, 2), [1], [1])
    for ranks in ([0], [3]):
        with pytest.raises(InputError, match="of 2 vectors"):
            incidence_at_ranks(torch.eye(2), ranks, [1])
    with pytest.raises(InputError, match="cosines for spaces"):
        flag_defect(torch.ones(3), rank_write=2, rank_read=4)
    with pytest.raises(InputError, match="cosine is") as caught:
        flag_defect(torch.tensor([1.5]), rank_write=1, rank_read=4)
    assert "angles" in str(caught.value.hint)
    with pytest.raises(InputError, match="negative"):
        flag_defect(torch.tensor([-0.5]), rank_write=1, rank_read=4)
