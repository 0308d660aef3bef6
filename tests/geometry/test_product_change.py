import math

import pytest
import torch

from flagscope.geometry.product_change import product_change
from geometry.planted import seeded


def factors(generator, n=3, read=9, d=6, write=7):
    def draw(*shape):
        return torch.randn(n, *shape, generator=generator, dtype=torch.float64)

    return draw(read, d), draw(d, write)


def test_norms_are_those_of_formed_products():
    generator = seeded(1)
    a, b = factors(generator), factors(generator)
    change = product_change(a, b)
    one, other = a[0] @ a[1], b[0] @ b[1]
    torch.testing.assert_close(change.change, torch.linalg.matrix_norm(other - one))
    torch.testing.assert_close(change.norm_a, torch.linalg.matrix_norm(one))
    torch.testing.assert_close(change.norm_b, torch.linalg.matrix_norm(other))


@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-12])
def test_small_changes_keep_their_digits(size):
    a = factors(seeded(2))
    change = product_change(a, (a[0] * (1 + size), a[1]))
    relative = change.change / change.norm_a
    torch.testing.assert_close(relative, torch.full_like(relative, size), rtol=1e-3, atol=0)


PLANES = [(0, 2), (1, 3)]


def test_planes_are_averaged_over_their_angles():
    generator = seeded(3)
    a, b = factors(generator), factors(generator)
    total = torch.zeros(3, 3, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            turn = torch.eye(6, dtype=torch.float64)
            for (x, y), k in zip(PLANES, (i, j), strict=True):
                angle = k * math.pi / 2
                turn[x, x] = turn[y, y] = math.cos(angle)
                turn[x, y], turn[y, x] = -math.sin(angle), math.sin(angle)
            one, other = a[0] @ turn @ a[1], b[0] @ turn @ b[1]
            total += torch.stack([m.square().sum((-1, -2)) for m in (other - one, one, other)])
    change = product_change(a, b, planes=PLANES)
    expected = (total / 16).sqrt()
    torch.testing.assert_close(torch.stack([change.change, change.norm_a, change.norm_b]), expected)


def test_a_rotary_change_of_basis_moves_nothing():
    generator = seeded(4)
    a = factors(generator)
    turn = torch.zeros(6, 6, dtype=torch.float64)
    for (x, y), (c, s) in zip(PLANES, ((1.3, 0.4), (0.2, -2.0)), strict=True):
        turn[x, x] = turn[y, y] = c
        turn[x, y], turn[y, x] = -s, s
    turn[4:, 4:] = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    moved = a[0] @ torch.linalg.inv(turn), turn @ a[1]
    change = product_change(a, moved, planes=PLANES)
    assert float((change.change / change.norm_a).max()) < 1e-13
    # A general change of basis is none of the rotary freedom.
    turn[0, 1] = 3.0
    moved = a[0] @ torch.linalg.inv(turn), turn @ a[1]
    change = product_change(a, moved, planes=PLANES)
    assert float((change.change / change.norm_a).min()) > 0.1


def test_zero_maps():
    zero = torch.zeros(1, 4, 2, dtype=torch.float64), torch.zeros(1, 2, 3, dtype=torch.float64)
    change = product_change(zero, zero)
    assert (float(change.change), float(change.norm_a), float(change.norm_b)) == (0, 0, 0)
