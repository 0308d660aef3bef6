import math
from itertools import pairwise

import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import Flag, chordal_distance, singular_blocks, singular_flag
from geometry.planted import haar_bases, map_with_values, seeded, spaces_with_angles


def random_flag(d, kind, *, generator):
    return Flag(haar_bases(d, kind[-1], generator=generator), kind)


def test_flag_parts():
    flag = random_flag(7, (1, 3, 6), generator=seeded())
    assert (flag.d, flag.type, flag.block_sizes) == (7, (1, 3, 6), (1, 2, 3))
    assert [block.shape[1] for block in flag.blocks()] == [1, 2, 3]
    total = sum(flag.projectors())
    torch.testing.assert_close(total, flag.subspace(2) @ flag.subspace(2).mT)
    for i, p in enumerate(flag.projectors()):
        torch.testing.assert_close(p @ p, p)
        assert p.trace().item() == pytest.approx(flag.block_sizes[i])


def test_distance_by_its_definition():
    generator = seeded(1)
    one, other = (random_flag(8, (2, 3, 6), generator=generator) for _ in range(2))
    direct = sum(
        0.5 * torch.linalg.matrix_norm(p - q).item() ** 2
        for p, q in zip(one.projectors(), other.projectors(), strict=True)
    )
    assert chordal_distance(one, other) == pytest.approx(math.sqrt(direct), rel=1e-13)
    assert chordal_distance(other, one) == pytest.approx(math.sqrt(direct), rel=1e-13)


def test_distance_of_single_subspaces_is_that_of_their_angles():
    angles = [1e-9, 0.3, 1.1]
    x, y = spaces_with_angles(angles, 9, p=3, q=3, generator=seeded(2))
    expected = math.sqrt(sum(math.sin(angle) ** 2 for angle in angles))
    assert chordal_distance(Flag(x, (3,)), Flag(y, (3,))) == pytest.approx(expected, rel=1e-13)
    x, y = spaces_with_angles([1e-12], 9, p=1, q=1, generator=seeded(2))
    assert chordal_distance(Flag(x, (1,)), Flag(y, (1,))) == pytest.approx(1e-12, rel=1e-3)


def test_distance_is_a_metric():
    generator = seeded(3)
    for _ in range(50):
        a, b, c = (random_flag(6, (1, 4), generator=generator) for _ in range(3))
        assert chordal_distance(a, c) <= chordal_distance(a, b) + chordal_distance(b, c) + 1e-14
        turn = haar_bases(6, 6, generator=generator)
        moved = [Flag(turn @ flag.basis, flag.type) for flag in (a, b)]
        assert chordal_distance(*moved) == pytest.approx(chordal_distance(a, b), rel=1e-12)
        # Rotations within the blocks change the basis, not the flag.
        inner = haar_bases(3, 3, generator=generator)
        same = Flag(torch.cat([-a.basis[:, :1], a.basis[:, 1:] @ inner], dim=1), a.type)
        assert chordal_distance(a, same) < 1e-14


def test_defect_of_a_basis_does_not_reach_the_distance():
    basis = haar_bases(6, 2, generator=seeded(4))
    assert chordal_distance(Flag(basis, (2,)), Flag(basis * (1 + 1e-9), (2,))) < 1e-14


def test_full_flags_and_the_empty_flag():
    axes = torch.eye(3, dtype=torch.float64)
    one, other = Flag(axes, (1, 2, 3)), Flag(axes[:, [1, 0, 2]], (1, 2, 3))
    assert chordal_distance(one, other) == pytest.approx(math.sqrt(2))
    empty = Flag(axes[:, :0], ())
    assert empty.blocks() == ()
    assert chordal_distance(empty, empty) == 0


def test_block_rule():
    values = torch.tensor([10.0, 9.0, 5.0, 4.9999, 1.0, 0.01], dtype=torch.float64)
    for noise in (1e-4, 1e-2):
        edges = [0]
        for i in range(4):
            a, b = values[i].item(), values[i + 1].item()
            if noise * math.hypot(a, b) / (a * a - b * b) <= 0.1:
                edges.append(i + 1)
        edges.append(5)
        expected = tuple(high - low for low, high in pairwise(edges))
        blocks = singular_blocks(values, noise_sd=noise, noise_norm=0.1)
        assert (blocks.sizes, blocks.null) == (expected, 1)
    assert singular_blocks(values, noise_sd=100.0).sizes == (6,)


@pytest.mark.parametrize("ratio", [1.001, 1.5, 4.0, 1000.0])
def test_two_values_part_at_the_noise_that_turns_their_vectors_by_a_tenth(ratio):
    upper, lower = 3.0 * ratio, 3.0
    noise = 0.1 * (upper**2 - lower**2) / math.hypot(upper, lower)
    values = torch.tensor([upper, lower], dtype=torch.float64)
    assert singular_blocks(values, noise_sd=0.999 * noise).sizes == (1, 1)
    assert singular_blocks(values, noise_sd=1.001 * noise).sizes == (2,)


def test_blocks_at_the_limits():
    assert singular_blocks(torch.tensor([2.0, 2.0, 1.0])).sizes == (2, 1)
    zero = singular_blocks(torch.zeros(3))
    assert (zero.sizes, zero.null) == ((), 3)
    assert singular_blocks(torch.zeros(0)).sizes == ()
    assert singular_blocks(torch.tensor([1.0])).sizes == (1,)
    assert singular_blocks(torch.tensor([1.0, 1e-9])).null == 1


def test_rotation_of_singular_vectors_under_entry_noise():
    # The law behind the block rule: standard deviation s √(σ_i² + σ_j²) / (σ_i² - σ_j²).
    sigma, noise, draws = torch.tensor([3.0, 2.5], dtype=torch.float64), 1e-3, 4000
    generator = seeded(7)
    matrix = torch.zeros(6, 8, dtype=torch.float64)
    matrix[0, 0], matrix[1, 1] = sigma
    error = noise * torch.randn(draws, 6, 8, dtype=torch.float64, generator=generator)
    left = torch.linalg.svd(matrix + error, full_matrices=False)[0]
    angle = torch.atan2(left[:, 1, 0] * left[:, 0, 0].sign(), left[:, 0, 0].abs())
    expected = noise * torch.linalg.vector_norm(sigma) / (sigma[0] ** 2 - sigma[1] ** 2)
    standard_error = expected**2 * math.sqrt(2 / draws)
    assert abs((angle**2).mean() - expected**2) < 4 * standard_error


@pytest.mark.parametrize("side", ["left", "right"])
def test_flag_of_a_matrix_is_steady_where_its_vectors_are_not(side):
    generator = seeded(8)
    values = [5.0, 3.0, 3.0, 3.0, 1.0]
    exact = map_with_values(values, 12, 10, generator=generator)
    noise = 1e-6
    flags = [
        singular_flag(
            exact + noise * torch.randn(12, 10, dtype=torch.float64, generator=generator),
            side=side,
            noise_sd=noise,
            noise_norm=1e-5,
        )
        for _ in range(2)
    ]
    assert [flag.type for flag in flags] == [(1, 4, 5), (1, 4, 5)]
    assert chordal_distance(*flags) < 1e-4
    vectors = [Flag(flag.basis, (1, 2, 3, 4, 5)) for flag in flags]
    assert chordal_distance(*vectors) > 0.01


def test_flag_of_a_zero_matrix_is_empty():
    assert singular_flag(torch.zeros(3, 4)).type == ()


def test_bad_arguments_are_refused():
    axes = torch.eye(4)
    for kind in ((2, 2, 4), (0, 4), (1, 3), (5,), ()):
        with pytest.raises(InputError, match="does not fit"):
            Flag(axes, kind)
    with pytest.raises(InputError, match="not orthonormal"):
        Flag(2 * axes, (4,))
    with pytest.raises(InputError, match="two dimensions"):
        Flag(axes[None], (4,))
    with pytest.raises(InputError, match="no distance"):
        chordal_distance(Flag(axes, (1, 4)), Flag(axes, (2, 4)))
    with pytest.raises(InputError, match="descending"):
        singular_blocks(torch.tensor([1.0, 2.0]))
    with pytest.raises(InputError, match="negative"):
        singular_blocks(torch.tensor([2.0, 1.0]), noise_sd=-1.0)
    with pytest.raises(InputError, match="side"):
        singular_flag(axes, side="top")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="two dimensions"):
        singular_flag(axes[None])
