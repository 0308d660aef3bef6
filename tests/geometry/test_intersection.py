import math

import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    count_intersection,
    intersection_dimension,
    intersection_dimensions,
    kernel_intersection,
    singular_space,
)
from geometry.planted import haar_bases, map_with_values, seeded, spaces_with_angles


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_planted_intersection_is_counted(k, dtype):
    angles = [0.0] * k + [0.5, 0.9, 1.4][k:]
    v, u = spaces_with_angles(angles, 12, p=3, q=5, generator=seeded(k))
    for first, second in ((v, u), (u, v)):
        count = intersection_dimension(first.to(dtype), second.to(dtype))
        assert (count.dimension, count.status) == (k, "ok")
        assert len(count.sines) == 3


def test_an_angle_that_no_cosine_resolves_is_not_an_intersection():
    v, u = spaces_with_angles([0.0, 1e-10, 1e-9], 10, p=3, q=3, generator=seeded())
    assert intersection_dimension(v, u).dimension == 1
    assert intersection_dimension(v, u, tolerance=2e-10).dimension == 2
    assert intersection_dimension(v, u, tolerance=2e-9).dimension == 3


@pytest.mark.parametrize("seed", range(20))
def test_tolerance_of_stored_matrices_covers_what_storage_moves(seed):
    # Exact low-rank maps that share two directions, rounded to bfloat16.
    generator = seeded(seed)
    v, u = spaces_with_angles([0.0, 0.0, 0.9, 1.2], 40, p=4, q=4, generator=generator)
    values = torch.tensor([3.0, 2.0, 1.5, 1.0], dtype=torch.float64)
    write = v * values @ haar_bases(50, 4, generator=generator).mT
    read = (u * values @ haar_bases(60, 4, generator=generator).mT).mT
    stored_write, stored_read = write.bfloat16().double(), read.bfloat16().double()
    tolerance = sum(
        (torch.linalg.matrix_norm(stored - exact, ord=2) / torch.linalg.svdvals(stored)[3]).item()
        for stored, exact in ((stored_write, write), (stored_read, read))
    )
    found_v = singular_space(stored_write, rank=4, side="left")
    found_u = singular_space(stored_read, rank=4, side="right")
    assert intersection_dimension(found_v, found_u).dimension == 0
    assert intersection_dimension(found_v, found_u, tolerance=tolerance).dimension == 2


def test_forced_intersections_and_limits():
    generator = seeded(5)
    v, u = haar_bases(7, 5, generator=generator), haar_bases(7, 4, generator=generator)
    assert intersection_dimension(v, u).dimension == 2
    assert intersection_dimension(v, torch.eye(7, dtype=torch.float64)).dimension == 5
    assert intersection_dimension(v[:, :0], u).dimension == 0


def test_unresolvable_is_a_status():
    axes = torch.eye(4)
    count = intersection_dimension(axes[:, :2], axes[:, 2:], tolerance=0.31)
    assert (count.dimension, count.status) == (None, "unresolvable")
    assert intersection_dimension(axes[:, :2], axes[:, 2:], tolerance=0.3).dimension == 0


def test_batches_with_one_tolerance_each():
    v, u = spaces_with_angles([0.0, 0.1], 6, p=2, q=2, generator=seeded())
    batch = intersection_dimensions(
        v.expand(3, 6, 2), u[None], tolerance=torch.tensor([0.0, 0.11, 0.5])
    )
    assert [count.dimension for count in batch] == [1, 2, None]
    assert [c.dimension for c in intersection_dimensions(v.expand(2, 6, 2), u)] == [1, 1]


def test_kernel_intersection_by_null_spaces():
    generator = seeded(6)
    write = map_with_values([1.0, 1.0, 1.0], 8, 5, generator=generator)
    # A reader that loses one written direction, and five others.
    lost = singular_space(write, rank=3)[:, :1]
    rest = haar_bases(8, 2, generator=generator)
    rest = rest - lost @ (lost.mT @ rest)
    read = torch.randn(6, 2, dtype=torch.float64, generator=generator) @ rest.mT
    rank = int(torch.linalg.matrix_rank(read @ write))
    kernel = singular_space(read, rank=2, side="right")
    complement = torch.linalg.qr(kernel, mode="complete").Q[:, 2:]
    direct = intersection_dimension(singular_space(write, rank=3), complement).dimension
    assert kernel_intersection(rank_write=3, rank_product=rank) == direct == 1
    # Unlike the intersection with the read space it survives a general change of basis.
    g = torch.randn(8, 8, dtype=torch.float64, generator=generator)
    moved = torch.linalg.matrix_rank(read @ torch.linalg.inv(g) @ (g @ write), rtol=1e-10)
    assert moved == rank


def test_bad_arguments_are_refused():
    axes = torch.eye(4)
    for tolerance in (-0.1, math.nan):
        with pytest.raises(InputError, match="tolerance"):
            intersection_dimension(axes, axes, tolerance=tolerance)
    with pytest.raises(InputError, match="two dimensions"):
        intersection_dimension(axes[None], axes)
    with pytest.raises(InputError, match="one dimension"):
        intersection_dimensions(axes, axes)
    with pytest.raises(InputError, match="2 tolerances for 3"):
        intersection_dimensions(axes.expand(3, 4, 4), axes, tolerance=torch.zeros(2))
    with pytest.raises(InputError, match="sines"):
        count_intersection(torch.tensor([1.5]), d=4)
    with pytest.raises(InputError, match="cannot come from"):
        kernel_intersection(rank_write=2, rank_product=3)
