import math
from itertools import pairwise

import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    Flag,
    chordal_distance,
    degeneration,
    has_closed_orbit,
    principal_angles,
    relative_position,
)
from geometry.planted import haar_bases, seeded, spaces_with_angles

CASES = [
    ([0.0, 0.3, 1.2], 9, 3, 4),
    ([0.0, 0.0, math.pi / 2], 9, 3, 3),
    ([math.pi / 2, math.pi / 2], 8, 2, 5),
    ([0.4, math.pi / 2], 8, 5, 2),
    ([0.0, 1e-6, 1.0], 9, 4, 3),
    ([0.0], 4, 1, 2),
]


def same_space(first, second, tolerance=1e-13):
    assert first.shape == second.shape
    return principal_angles(first, second).max() < tolerance


@pytest.mark.parametrize(("angles", "d", "p", "q"), CASES)
def test_path_stays_in_the_orbit_and_ends_in_a_flag(angles, d, p, q):
    v, u = spaces_with_angles(angles, d, p=p, q=q, generator=seeded(p))
    path = degeneration(v, u)
    k = sum(angle == 0 for angle in angles)
    assert path.position.k == k
    for t in (1.0, 0.5, 0.1, 1e-3, 1e-5, -0.7, 3.0):
        assert relative_position(*path.subspaces(t)) == path.position
    for found, start in zip(path.subspaces(1.0), (v, u), strict=True):
        assert same_space(found, start)
    limit = relative_position(*path.subspaces(0.0))
    assert has_closed_orbit(limit)
    assert limit <= path.position


@pytest.mark.parametrize(("angles", "d", "p", "q"), CASES)
def test_path_is_the_orbit_of_a_one_parameter_subgroup(angles, d, p, q):
    v, u = spaces_with_angles(angles, d, p=p, q=q, generator=seeded(q))
    path = degeneration(v, u)
    m = path.moving.shape[1]
    for t in (2.0, 0.5, -0.1):
        g = path.transform(t)
        assert torch.linalg.det(g).item() == pytest.approx(t**m, rel=1e-12)
        for start, found in zip((v, u), path.subspaces(t), strict=True):
            moved = torch.linalg.qr(g @ start).Q
            assert same_space(moved, found)
    # g_s g_t = g_st
    product = path.transform(0.5) @ path.transform(3.0)
    torch.testing.assert_close(product, path.transform(1.5), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("angles", "d", "p", "q"), CASES)
def test_limit_flag_nests_and_is_approached(angles, d, p, q):
    v, u = spaces_with_angles(angles, d, p=p, q=q, generator=seeded(d))
    path = degeneration(v, u)
    flag = path.flag()
    assert flag.type == tuple(sorted({p, q}))
    for space, end in zip((v, u), path.subspaces(0.0), strict=True):
        index = flag.type.index(space.shape[1])
        assert same_space(flag.subspace(index), end)
    smaller = 0 if p <= q else 1
    distances = [
        chordal_distance(
            Flag(path.subspaces(t)[smaller], (min(p, q),)), Flag(flag.subspace(0), (min(p, q),))
        )
        for t in (1e-1, 1e-3, 1e-5, 1e-7)
    ]
    # Linear in t near the limit.
    for coarse, fine in pairwise(distances):
        assert fine < 0.02 * coarse + 1e-14


def test_generic_random_pair_in_forced_position():
    generator = seeded(3)
    v, u = haar_bases(6, 4, generator=generator), haar_bases(6, 4, generator=generator)
    path = degeneration(v, u, tolerance=1e-12)
    assert path.position.k == 2
    assert path.flag().type == (4,)
    assert relative_position(*path.subspaces(0.01)).k == 2


def test_a_flag_is_a_fixed_point():
    axes = torch.eye(5, dtype=torch.float64)
    path = degeneration(axes[:, :2], axes[:, :4])
    assert path.moving.shape == (5, 0)
    assert torch.equal(path.transform(0.3), axes)
    assert same_space(path.subspaces(0.0)[0], axes[:, :2])
    assert path.flag().type == (2, 4)


def test_zero_spaces():
    axes = torch.eye(3, dtype=torch.float64)
    path = degeneration(axes[:, :0], axes[:, :2])
    assert path.flag().type == (2,)
    assert path.subspaces(0.5)[0].shape == (3, 0)
    assert degeneration(axes[:, :0], axes[:, :0]).flag().type == ()


def test_no_transformation_at_the_limit():
    axes = torch.eye(3)
    with pytest.raises(InputError, match="not invertible"):
        degeneration(axes[:, :1], axes[:, 1:]).transform(0)
