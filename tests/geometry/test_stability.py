from fractions import Fraction
from itertools import combinations

import pytest
import torch

from flagscope.errors import InputError
from flagscope.geometry import (
    RelativePosition,
    Stability,
    git_stability,
    has_closed_affine_orbit,
    has_closed_orbit,
    intersection_dimension,
    orthogonal_complement,
    orthonormal_basis,
    relative_position,
    singular_space,
    strata,
)
from geometry.planted import haar_bases, map_with_values, seeded

WEIGHTS = [(1, 1), (2, 1), (1, 2), (Fraction(3, 2), Fraction(5, 2))]


def subspaces_over_two_elements(d):
    """All subspaces of F_2^d, each a bit mask of the vectors it holds."""

    def extended(space, vector):
        image = sum(1 << (x ^ vector) for x in range(1 << d) if space >> x & 1)
        return space | image

    found = layer = {1}
    while layer:
        layer = {
            extended(space, x) for space in layer for x in range(1 << d) if not space >> x & 1
        } - found
        found = found | layer
    return sorted(found)


def dimension(space):
    return space.bit_count().bit_length() - 1


def coordinate_subspace(axes):
    members = [0]
    for axis in axes:
        members += [x ^ (1 << axis) for x in members]
    return sum(1 << x for x in members)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_criterion_against_all_subspaces_of_a_finite_space(d, weights):
    # The inequality is about dimensions only, and F_2^d has few enough subspaces to try all.
    a, b = weights
    everything = subspaces_over_two_elements(d)
    for r1 in range(d + 1):
        for r2 in range(d + 1):
            for position in strata(d, r1, r2):
                k = position.k
                v = coordinate_subspace(range(r1))
                u = coordinate_subspace([*range(k), *range(r1, r1 + r2 - k)])
                assert dimension(v & u) == k
                mean = Fraction(a * r1 + b * r2, d)
                slopes = {
                    s: Fraction(a * dimension(v & s) + b * dimension(u & s), dimension(s))
                    for s in everything
                    if s != 1
                }
                largest = max(slopes.values())
                proper = [slope for s, slope in slopes.items() if dimension(s) < d]
                verdict = git_stability(position, weight_write=a, weight_read=b)
                assert verdict.slope == mean
                assert (verdict.stability is not Stability.UNSTABLE) == (largest <= mean)
                stable = all(slope < mean for slope in proper)
                assert (verdict.stability is Stability.STABLE) == stable
                # The first step of the filtration is the largest subspace of largest slope.
                steepest = [s for s, slope in slopes.items() if slope == largest]
                step = max(steepest, key=dimension)
                assert verdict.filtration[0] == (largest, dimension(step))
                assert sum(size for _, size in verdict.filtration) == d
                if verdict.stability is Stability.UNSTABLE:
                    both = [s for s in everything if s & v == v and s & u == u]
                    named = {"V": v, "U": u, "V ∩ U": v & u, "V + U": min(both, key=dimension)}
                    assert named[verdict.destabilising or ""] == step
                else:
                    assert verdict.destabilising is None


@pytest.mark.parametrize("d", [2, 3, 4])
def test_semistable_pairs_are_polystable(d):
    # Every subspace of the mean slope has a complement on which all dimensions add up.
    everything = subspaces_over_two_elements(d)
    for r1 in range(d + 1):
        v, u = coordinate_subspace(range(r1)), coordinate_subspace(range(r1, d))
        assert git_stability(RelativePosition(d, r1, d - r1, 0)).stability is Stability.POLYSTABLE
        level = [s for s in everything if dimension(v & s) + dimension(u & s) == dimension(s)]
        for s in level:
            assert any(
                s & c == 1 and dimension(s) + dimension(c) == d and c in level for c in everything
            )


@pytest.mark.parametrize("d", [3, 5, 8])
def test_criterion_over_the_reals_on_generic_and_special_subspaces(d):
    generator = seeded(d)
    for r1, r2 in combinations(range(1, d), 2):
        for position in strata(d, r1, r2):
            g = haar_bases(d, d, generator=generator)
            v, u = (g @ basis for basis in position.representative())
            verdict = git_stability(position)
            mean = (r1 + r2) / d
            worst = 0.0
            for size in range(1, d):
                special = [haar_bases(d, size, generator=generator)]
                special += [w[:, :size] for w in (v, u) if w.shape[1] >= size]
                both = torch.cat([v, u[:, position.k :]], dim=1)
                if both.shape[1] >= size:
                    special.append(orthonormal_basis(both[:, :size], rank=size))
                for s in special:
                    dims = [intersection_dimension(w, s, tolerance=1e-10).dimension for w in (v, u)]
                    worst = max(worst, sum(x or 0 for x in dims) / size)
            assert (worst <= mean + 1e-12) == (verdict.stability is not Stability.UNSTABLE)


def test_flags_are_closed_but_unstable():
    for position in (RelativePosition(5, 2, 3, 2), RelativePosition(4, 2, 2, 2)):
        assert has_closed_orbit(position)
        assert git_stability(position).stability is Stability.UNSTABLE
    complementary = RelativePosition(5, 2, 3, 0)
    assert not has_closed_orbit(complementary)
    assert git_stability(complementary).stability is Stability.POLYSTABLE
    unequal = git_stability(complementary, weight_write=2)
    assert (unequal.stability, unequal.destabilising) == (Stability.UNSTABLE, "V")


def balanced_pair(d, r, *, generator):
    """W1, W2 with W1 W1ᵀ = W2ᵀ W2 of rank r, moved to a random place of their orbit."""
    write = map_with_values([1.0 + i for i in range(r)], d, d + 2, generator=generator)
    read = haar_bases(d + 2, d + 2, generator=generator) @ write.mT
    g = torch.randn(d, d, dtype=torch.float64, generator=generator)
    return g @ write, read @ torch.linalg.inv(g)


def ranks(write, read):
    return {
        "rank_write": int(torch.linalg.matrix_rank(write, rtol=1e-9)),
        "rank_read": int(torch.linalg.matrix_rank(read, rtol=1e-9)),
        "rank_product": int(torch.linalg.matrix_rank(read @ write, rtol=1e-9)),
    }


@pytest.mark.parametrize("r", [0, 1, 3, 5])
def test_orbits_of_balanced_maps_are_closed(r):
    write, read = balanced_pair(5, r, generator=seeded(r))
    counted = ranks(write, read)
    assert set(counted.values()) == {r}
    assert has_closed_affine_orbit(**counted)
    if 0 < r < 5:
        # With the kernel of W2 in the place of U: the criterion of equal weights.
        kernel = orthogonal_complement(singular_space(read, rank=r, side="right"))
        position = relative_position(singular_space(write, rank=r), kernel, tolerance=1e-10)
        assert git_stability(position).stability is Stability.POLYSTABLE


def test_an_orbit_that_is_not_closed_has_a_limit_of_lower_rank():
    generator = seeded(9)
    write = map_with_values([1.0, 1.0], 4, 6, generator=generator)
    v = singular_space(write, rank=2)
    read = haar_bases(5, 3, generator=generator) @ orthogonal_complement(v[:, :1]).mT
    counted = ranks(write, read)
    assert counted == {"rank_write": 2, "rank_read": 3, "rank_product": 1}
    assert not has_closed_affine_orbit(**counted)
    # What is written and not read shrinks away; nothing else moves.
    lost = v[:, :1] @ v[:, :1].mT
    shrink = torch.eye(4, dtype=torch.float64) - lost
    assert ranks(shrink @ write, read)["rank_write"] == 1
    for t in (1e-2, 1e-4):
        g = shrink + t * lost
        torch.testing.assert_close(read @ torch.linalg.inv(g), read, rtol=0, atol=1e-10)
        torch.testing.assert_close(g @ write, shrink @ write, rtol=0, atol=2 * t)


@pytest.mark.parametrize("counts", [(2, 3, 2), (3, 2, 2), (2, 2, 1), (1, 0, 0)])
def test_all_three_ranks_must_agree(counts):
    names = ("rank_write", "rank_read", "rank_product")
    assert not has_closed_affine_orbit(**dict(zip(names, counts, strict=True)))


def test_bad_arguments_are_refused():
    position = RelativePosition(4, 2, 2, 0)
    for weight in (0, -1, float("nan")):
        with pytest.raises(InputError, match="positive"):
            git_stability(position, weight_write=weight)
    with pytest.raises(InputError, match="R\\^0"):
        git_stability(RelativePosition(0, 0, 0, 0))
    with pytest.raises(InputError, match="cannot come from"):
        has_closed_affine_orbit(rank_write=2, rank_read=3, rank_product=3)
