import math

import pytest
import scipy.linalg
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    attainable_overlap,
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
def test_flag_defect_is_the_part_of_the_smaller_space_outside_the_larger(p, q):
    generator = seeded(p)
    v, u = haar_bases(5, 9, p, generator=generator), haar_bases(5, 9, q, generator=generator)
    smaller, larger = (v, u) if p <= q else (u, v)
    outside = ((smaller - larger @ (larger.mT @ smaller)) ** 2).sum((-2, -1))
    overlaps = principal_cosines(v, u).square().sum(-1).tolist()
    found = [flag_defect(overlap, rank_write=p, rank_read=q) for overlap in overlaps]
    assert found == pytest.approx(outside.tolist(), abs=1e-13)


def test_flag_defect_vanishes_on_flags_whichever_space_is_the_larger():
    v, u = spaces_with_angles([0.0, 0.0], 8, p=2, q=4, generator=seeded())
    overlap = float(principal_cosines(v, u).square().sum())
    assert flag_defect(overlap, rank_write=2, rank_read=4) < 1e-14
    assert flag_defect(overlap, rank_write=4, rank_read=2) < 1e-14
    assert flag_defect(0.0, rank_write=2, rank_read=0) == 0


@pytest.mark.parametrize(
    ("overlap", "ranks", "attainable"),
    [(2.1, (2, 3), 2), (0.9, (2, 3), 1), (-0.1, (1, 1), 0), (1.5, (2, 3), 1.5)],
)
def test_an_overlap_is_carried_no_further_than_dimensions_allow(overlap, ranks, attainable):
    assert attainable_overlap(overlap, *ranks, 4) == attainable


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="squared length"):
        incidence_at_ranks(torch.ones(2, 2), [1], [1])
    for ranks in ([0], [3]):
        with pytest.raises(InputError, match="of 2 vectors"):
            incidence_at_ranks(torch.eye(2), ranks, [1])
    for overlap in (2.1, -0.5, float("nan")):
        with pytest.raises(InputError, match="overlap of spaces") as caught:
            flag_defect(overlap, rank_write=2, rank_read=4)
        assert "from 0 to 2" in str(caught.value.hint)
