import math

import numpy as np
import pytest
import torch

import reference
from flagscope.diagnose import alignment_levels
from flagscope.errors import InputError
from flagscope.geometry import RankRule
from geometry.planted import haar, normal

D = 20
ALL = RankRule.parse("numerical")


def pair(write, read, alpha, beta):
    """W1 with left singular vectors `write` and values alpha, W2 with right ones `read`, beta."""
    left, right = haar(1, 30, len(alpha), seed=0)[0], haar(1, 25, len(beta), seed=1)[0]
    w1 = write @ torch.diag(torch.tensor(alpha, dtype=torch.float64)) @ left.mT
    w2 = right @ torch.diag(torch.tensor(beta, dtype=torch.float64)) @ read.mT
    return w1[None], w2[None]


def turned(basis, angle, i, j):
    """The basis with its vectors i and j turned into each other."""
    out = basis.clone()
    c, s = math.cos(angle), math.sin(angle)
    out[:, i], out[:, j] = c * basis[:, i] + s * basis[:, j], c * basis[:, j] - s * basis[:, i]
    return out


BASIS = haar(1, D, D, seed=7)[0]
VALUES = [5.0, 4.0, 3.0, 2.0]


def test_one_basis_reaches_level_three():
    v = BASIS[:, :4]
    # Other values, same order of the vectors: only vectors and gaps matter.
    (found,) = alignment_levels(*pair(v, v, VALUES, [9.0, 6.0, 2.0, 1.0]), rule=ALL)
    assert (found.rank_write, found.rank_read, found.rank_product) == (4, 4, 4)
    grades = (found.rank, found.subspace, found.commutation, found.blocks, found.basis)
    for grade in (*grades, found.commutation_within):
        assert grade == pytest.approx(1, abs=1e-12)
    assert found.reached == 3
    assert found.subspace_chance == 4 / D
    assert found.blocks_chance == 1 / 4


@pytest.mark.parametrize("angle", [0.1, 0.5, math.pi / 4, math.pi / 2])
def test_bases_turned_within_one_space_stay_at_level_two(angle):
    # Vectors 0 and 3 turned: of four blocks of one, two keep cos² of their overlap.
    v = BASIS[:, :4]
    w1, w2 = pair(v, turned(v, angle, 0, 3), VALUES, VALUES)
    (found,) = alignment_levels(w1, w2, rule=ALL)
    assert found.subspace == pytest.approx(1, abs=1e-12)
    assert found.blocks == pytest.approx((2 + 2 * math.cos(angle) ** 2) / 4, rel=1e-12)
    nu = reference.commutation_defect(w1[0].numpy(), w2[0].numpy())
    assert found.commutation == pytest.approx(1 - min(1, nu), abs=1e-10)
    assert found.basis == min(found.blocks, found.commutation)
    assert found.reached == (3 if found.basis >= 0.9 else 2)


@pytest.mark.parametrize("angle", [0.3, 1.2])
def test_within_one_space_commutation_is_that_of_the_small_grams(angle):
    # In the coordinates of V the Grams are 4 × 4, and their ν is that of the pair of small maps.
    v, turn = BASIS[:, :4], turned(torch.eye(4, dtype=torch.float64), angle, 0, 3)
    values = [1.03, 1.02, 1.01, 1.0]
    (found,) = alignment_levels(*pair(v, v @ turn, values, values), rule=ALL)
    small = torch.diag(torch.tensor(values, dtype=torch.float64))
    nu = reference.commutation_defect(small.numpy(), (small @ turn.mT).numpy())
    assert found.commutation_within == pytest.approx(1 - min(1, nu), abs=1e-10)
    # The whole Grams are nearly projectors on one space and commute whatever the turn.
    assert found.commutation > 0.998


def test_within_tilted_spaces_the_lesser_commutation_counts():
    v, u = haar(1, D, 4, seed=11)[0], haar(1, D, 4, seed=12)[0]
    w1, w2 = pair(v, u, VALUES, [9.0, 6.0, 2.0, 1.0])
    (found,) = alignment_levels(w1, w2, rule=ALL)
    a, b = (w1 @ w1.mT)[0], (w2.mT @ w2)[0]
    defects = []
    for basis in (v, u):
        x, y = (torch.linalg.cholesky(basis.mT @ g @ basis) for g in (a, b))
        defects.append(reference.commutation_defect(x.numpy(), y.mT.numpy()))
    assert abs(defects[0] - defects[1]) > 0.01
    assert found.commutation_within == pytest.approx(1 - min(1, max(defects)), abs=1e-10)


def test_commuting_grams_with_crossed_blocks_are_not_level_three():
    # At a right angle the Grams commute, but the strongest direction reads the weakest.
    v = BASIS[:, :4]
    (found,) = alignment_levels(*pair(v, turned(v, math.pi / 2, 0, 3), VALUES, VALUES), rule=ALL)
    assert found.commutation == pytest.approx(1, abs=1e-12)
    assert (found.blocks, found.reached) == (pytest.approx(0.5, abs=1e-12), 2)


def test_near_equal_values_are_one_block():
    # Within 1 % of each other vectors mean nothing, however they are turned.
    v = BASIS[:, :4]
    values = [5.0, 2.01, 2.005, 2.0]
    w1, w2 = pair(v, turned(v, 1.0, 1, 3), values, values)
    (coarse,) = alignment_levels(w1, w2, rule=ALL)
    assert coarse.blocks == pytest.approx(1, abs=1e-12)
    assert coarse.blocks_chance == pytest.approx((1 + 9) / 16)
    assert coarse.reached == 3
    (fine,) = alignment_levels(w1, w2, rule=ALL, resolution=0.0)
    assert fine.blocks == pytest.approx((2 + 2 * math.cos(1.0) ** 2) / 4, rel=1e-10)
    # A cut of one map alone does not count.
    (mixed,) = alignment_levels(*pair(v, turned(v, 1.0, 1, 3), values, VALUES), rule=ALL)
    assert mixed.blocks_chance == coarse.blocks_chance


def test_blocks_chance_is_the_mean_over_turns():
    v = BASIS[:, :4]
    values = [5.0, 2.01, 2.0, 1.0]
    draws = [v @ haar(1, 4, 4, seed=s)[0] for s in range(400)]
    found = [alignment_levels(*pair(v, u, values, values), rule=ALL)[0] for u in draws]
    blocks = np.array([f.blocks for f in found])
    assert found[0].blocks_chance == (1 + 4 + 1) / 16
    error = blocks.std() / len(blocks) ** 0.5
    assert abs(blocks.mean() - found[0].blocks_chance) < 4 * error


@pytest.mark.parametrize("angle", [0.2, 1.0])
def test_tilted_spaces_stay_at_level_one(angle):
    v = BASIS[:, :4]
    u = torch.cat([turned(BASIS, angle, i, i + 4)[:, i : i + 1] for i in range(4)], dim=1)
    (found,) = alignment_levels(*pair(v, u, VALUES, VALUES), rule=ALL)
    assert found.subspace == pytest.approx(math.cos(angle) ** 2, rel=1e-12)
    assert found.blocks == pytest.approx(math.cos(angle) ** 2, rel=1e-12)
    assert found.rank == 1.0
    assert found.reached == (3 if math.cos(angle) ** 2 > 0.9 and found.commutation > 0.9 else 1)


def test_a_product_that_loses_rank_stays_below_level_one():
    (found,) = alignment_levels(*pair(BASIS[:, :4], BASIS[:, 2:6], VALUES, VALUES), rule=ALL)
    assert (found.rank_product, found.rank, found.reached) == (2, 0.5, 0)
    assert found.subspace == pytest.approx(0.5, abs=1e-12)


def test_unequal_ranks_are_graded_by_the_larger():
    (found,) = alignment_levels(*pair(BASIS[:, :3], BASIS[:, :4], VALUES[:3], VALUES), rule=ALL)
    assert (found.rank_write, found.rank_read, found.rank_product) == (3, 4, 3)
    assert found.rank == found.subspace == pytest.approx(0.75, abs=1e-12)
    assert found.blocks == pytest.approx(0.75, abs=1e-12)


def test_generic_pairs_of_full_rank_pass_level_one_by_dimension():
    w1, w2 = normal(1, D, 40, seed=1), normal(1, 40, D, seed=2)
    (found,) = alignment_levels(w1, w2, rule=ALL)
    assert found.rank == 1.0
    assert found.subspace == pytest.approx(1, abs=1e-9)
    assert found.subspace_chance == 1.0
    assert found.basis < 0.3
    assert found.reached == 2


def test_a_multiple_of_the_identity_commutes_with_all():
    w1 = 3 * haar(1, D, D, seed=3)
    (found,) = alignment_levels(w1, normal(1, D, D, seed=2), rule=ALL)
    assert found.commutation == 1.0
    assert found.blocks == pytest.approx(1, abs=1e-9)


def test_noise_hides_weak_directions():
    v = BASIS[:, :4]
    w1, w2 = pair(v, v, [5.0, 4.0, 3.0, 1e-3], VALUES)
    (clean,) = alignment_levels(w1, w2, rule=ALL)
    (noisy,) = alignment_levels(w1, w2, rule=ALL, noise_write=1e-2)
    assert (clean.rank_write, noisy.rank_write) == (4, 3)
    assert alignment_levels(2**20 * w1, w2, rule=ALL, noise_write=1e-2 * 2**20) == [noisy]
    assert alignment_levels(w1, 2**20 * w2, rule=ALL, noise_write=1e-2) == [noisy]
    (drowned,) = alignment_levels(w1, w2, rule=ALL, noise_write=10.0)
    assert drowned.status == "a map is below its noise"
    assert drowned.rank is drowned.reached is None


def test_invariance_under_rotation_scaling_and_outer_bases():
    w1, w2 = normal(3, D, 30, seed=1), normal(3, 10, D, seed=2)
    q = haar(1, D, D, seed=3)
    outer = haar(1, 30, 30, seed=4)
    before = alignment_levels(w1, w2)
    after = alignment_levels(1e100 * q @ w1 @ outer, 1e-90 * w2 @ q.mT)
    for one, other in zip(before, after, strict=True):
        for name, value in one.model_dump().items():
            expected = value if isinstance(value, str) else pytest.approx(value, rel=1e-9)
            assert other.model_dump()[name] == expected, name


def test_bad_maps_have_a_status_and_leave_the_others_alone():
    w1, w2 = normal(3, D, 30, seed=1), normal(3, 10, D, seed=2)
    expected = alignment_levels(w1, w2)[2]
    w1[0], w2[1, 0, 0] = 0, torch.nan
    found = alignment_levels(w1, w2)
    assert [f.status == "ok" for f in found] == [False, False, True]
    assert found[0].basis is None
    assert found[2] == expected


@pytest.mark.parametrize("setting", ["noise_write", "noise_read", "resolution", "tolerance"])
def test_settings_out_of_range_are_refused(setting):
    w = normal(1, 4, 4, seed=1)
    for value in (-1.0, math.nan):
        with pytest.raises(InputError, match=setting):
            alignment_levels(w, w, **{setting: value})
    with pytest.raises(InputError, match="do not share a space"):
        alignment_levels(w, normal(1, 4, 5, seed=1))
