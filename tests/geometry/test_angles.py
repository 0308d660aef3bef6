import math

import mpmath
import pytest
import scipy.linalg
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    leading_angles,
    principal_angles,
    principal_cosines,
    principal_sines,
    principal_vectors,
)
from geometry.planted import haar_bases, seeded, spaces_with_angles

EPS = torch.finfo(torch.float64).eps


def angles_by_mpmath(x, y):
    """Angles between the spans of exactly these floats, to 50 digits, ascending."""
    with mpmath.workdps(60):
        qx, qy = (
            mpmath.qr(mpmath.matrix(basis.double().tolist()), mode="skinny")[0] for basis in (x, y)
        )
        if qx.cols > qy.cols:
            qx, qy = qy, qx
        sines = mpmath.svd_r(qx - qy * (qy.T * qx), compute_uv=False)
        return sorted(float(mpmath.asin(min(s, mpmath.mpf(1)))) for s in sines)


@pytest.mark.parametrize(("d", "p", "q"), [(9, 3, 4), (9, 4, 3), (6, 6, 2), (5, 4, 4), (3, 1, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 3e-6)])
def test_angles_agree_with_scipy(d, p, q, dtype, tolerance):
    generator = seeded(d + p)
    x, y = (haar_bases(d, r, generator=generator).to(dtype) for r in (p, q))
    expected = scipy.linalg.subspace_angles(x.double().numpy(), y.double().numpy())[::-1].copy()
    found = principal_angles(x, y)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), torch.tensor(expected), atol=tolerance, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_angles_of_every_size_agree_with_mpmath(seed):
    angles = [0.0, 3e-16, 1e-15, 1e-12, 1e-8, 1e-4, math.pi / 4, math.pi / 2 - 1e-15]
    x, y = spaces_with_angles(angles, 20, p=8, q=9, generator=seeded(seed))
    expected = torch.tensor(angles_by_mpmath(x, y), dtype=torch.float64)
    for found in (principal_angles(x, y), principal_angles(y, x)):
        torch.testing.assert_close(found, expected, atol=8 * EPS, rtol=0)
    torch.testing.assert_close(principal_sines(x, y), expected.sin(), atol=8 * EPS, rtol=0)
    torch.testing.assert_close(principal_cosines(x, y), expected.cos(), atol=8 * EPS, rtol=0)


def test_float32_bases_give_the_angle_of_their_spans():
    # The columns are orthonormal only to 1e-7; the angle between the spans is known far better.
    x, y = spaces_with_angles([1e-7, 1e-3, 0.5], 12, p=3, q=4, generator=seeded(3))
    x, y = x.float(), y.float()
    expected = torch.tensor(angles_by_mpmath(x, y))
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(principal_angles(x, y), expected.float(), atol=4 * eps, rtol=0)


def test_an_angle_far_below_epsilon_keeps_its_digits():
    x = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [1e-30]], dtype=torch.float64)
    assert principal_angles(x, y).item() == pytest.approx(1e-30, rel=1e-14)


def test_defect_of_the_larger_basis_does_not_reach_the_angles():
    x, y = spaces_with_angles([0.0, 0.0], 10, p=2, q=4, generator=seeded(9))
    assert principal_angles(x, y * (1 + 1e-9)).max() < 1e-14


def test_batches_broadcast_and_equal_single_pairs():
    generator = seeded(1)
    x = haar_bases(3, 1, 8, 2, generator=generator)
    y = haar_bases(1, 4, 8, 3, generator=generator)
    found = principal_angles(x, y)
    assert found.shape == (3, 4, 2)
    for i in range(3):
        for j in range(4):
            torch.testing.assert_close(
                found[i, j], principal_angles(x[i, 0], y[0, j]), atol=1e-14, rtol=0
            )


def test_rank_zero_and_full_space():
    axes = torch.eye(5, dtype=torch.float64)
    assert principal_angles(axes[:, :0], axes).shape == (0,)
    assert principal_sines(axes[:, :0], axes).shape == (0,)
    x = haar_bases(5, 2, generator=seeded())
    assert principal_angles(x, axes).max() < 1e-15
    assert principal_cosines(x, x).min() > 1 - 1e-15


def test_a_common_rotation_changes_nothing():
    generator = seeded(2)
    x, y = spaces_with_angles([1e-10, 0.4, 1.2], 9, p=3, q=3, generator=generator)
    rotation = haar_bases(9, 9, generator=generator)
    torch.testing.assert_close(
        principal_angles(rotation @ x, rotation @ y), principal_angles(x, y), atol=1e-14, rtol=0
    )


@pytest.mark.parametrize(("p", "q"), [(4, 5), (5, 4), (4, 4)])
def test_principal_vectors_diagonalise_the_overlap(p, q):
    generator = seeded(p)
    angles = [1e-12, 1e-9, 0.7, math.pi / 2]
    expected = torch.tensor(angles, dtype=torch.float64)
    x, y = spaces_with_angles(angles, 12, p=p, q=q, generator=generator)
    pairs = principal_vectors(x, y)
    identity = torch.eye(4, dtype=torch.float64)
    for basis, space in ((pairs.x, x), (pairs.y, y)):
        torch.testing.assert_close(basis.mT @ basis, identity, atol=1e-14, rtol=0)
        torch.testing.assert_close(space @ (space.mT @ basis), basis, atol=1e-14, rtol=0)
    overlap = torch.diag(expected.cos())
    torch.testing.assert_close(pairs.x.mT @ pairs.y, overlap, atol=1e-14, rtol=0)
    # Each pair realises its own angle, also where the cosines of two pairs are both 1.
    lengths = 2 * torch.asin(torch.linalg.vector_norm(pairs.x - pairs.y, dim=0) / 2)
    torch.testing.assert_close(lengths, expected, atol=1e-14, rtol=0)
    torch.testing.assert_close(pairs.angles, expected, atol=1e-14, rtol=0)


def test_principal_vectors_in_a_batch():
    generator = seeded(5)
    x, y = haar_bases(3, 7, 2, generator=generator), haar_bases(7, 4, generator=generator)
    pairs = principal_vectors(x, y)
    assert principal_vectors(x[:0], y).x.shape == (0, 7, 2)
    assert principal_vectors(x, y[:, :0]).x.shape == (3, 7, 0)
    cosines = (pairs.x * pairs.y).sum(-2)
    torch.testing.assert_close(cosines, principal_cosines(x, y), atol=1e-14, rtol=0)


def test_bfloat16_is_widened_or_refused():
    axes = torch.eye(4).bfloat16()
    assert principal_angles(axes[:, :2], axes[:, 1:]).dtype == torch.float32
    rounded = haar_bases(40, 5, generator=seeded()).bfloat16()
    with pytest.raises(InputError, match="not orthonormal"):
        principal_angles(rounded, rounded)


def test_wrong_arguments_say_what_to_do():
    axes = torch.eye(4)
    with pytest.raises(InputError, match="not orthonormal") as caught:
        principal_cosines(2 * axes, axes)
    assert "orthonormal_basis" in str(caught.value.hint)
    with pytest.raises(InputError, match="different spaces"):
        principal_cosines(axes, torch.eye(3))
    with pytest.raises(InputError, match="cannot be independent") as caught:
        principal_cosines(axes, axes[:2])
    assert "y.mT" in str(caught.value.hint)
    with pytest.raises(InputError, match="broadcast"):
        principal_cosines(axes.expand(2, 4, 4), axes.expand(3, 4, 4))
    with pytest.raises(InputError, match="NaN"):
        principal_cosines(axes / 0, axes)
    with pytest.raises(InputError, match="torch tensor"):
        principal_cosines(axes.numpy(), axes)
    with pytest.raises(InputError, match="dtype"):
        principal_cosines(axes.to(torch.int64), axes)
    with pytest.raises(InputError, match="dimensions"):
        principal_cosines(axes[0], axes)


@pytest.mark.parametrize(
    ("r1", "r2", "d"), [(3, 5, 12), (5, 3, 12), (200, 210, 220), (210, 200, 220)]
)
def test_angles_of_leading_spaces_from_overlaps_of_whole_bases(r1, r2, d):
    """Large ones go by the complement of the larger space, and by sines where those are small."""
    generator = seeded(3)
    x, y = (haar_bases(d, d, generator=generator) for _ in range(2))
    y[:, :2] = x[:, :2]
    y = torch.linalg.qr(y).Q
    angles = leading_angles(x.mT @ y, r1, r2, d)
    torch.testing.assert_close(
        angles.cosines, principal_cosines(x[:, :r1], y[:, :r2]), atol=1e-7, rtol=0
    )
    assert (angles.sines is not None) == (d == 220)
    forced = max(0, r1 + r2 - d)
    assert angles.count_within(1e-6, rounding=1e-13) == max(2, forced)
    assert angles.count_within(1.0, rounding=0.0) == min(r1, r2)
