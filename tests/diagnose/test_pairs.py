import json

import numpy as np
import pytest
import torch

import reference
from diagnose.planted import pair_group, record, records, stored_map
from flagscope.arch import LinearMap, Rotary, Side
from flagscope.diagnose import pair_records
from flagscope.diagnose.values import rounded
from flagscope.geometry import Matrices
from flagscope.null import overlap_significance
from flagscope.records import ArraySummary, PairRecord
from geometry.planted import haar, matrices, normal, with_values

SHAPES = [(6, 9, 20), (20, 3, 4), (20, 7, 30), (20, 20, 20), (40, 25, 24), (2, 3, 2)]
UNDEFINED = (
    *("commutator_ratio", "commutator_p", "gram_correlation", "gram_correlation_z"),
    *("gram_correlation_p", "commutation_defect"),
)


def no_nan(value) -> bool:
    """No NaN or infinity in the JSON (Python's parser would accept them)."""

    def refuse(constant):
        raise ValueError(constant)

    json.loads(value.model_dump_json(), parse_constant=refuse)
    return True


@pytest.mark.parametrize("shape", SHAPES)
def test_record_against_the_reference(shape):
    d, m1, m2 = shape
    w1, w2 = normal(d, m1, seed=1), normal(m2, d, seed=2)
    found = record(w1, w2)
    a, b = w1.numpy(), w2.numpy()
    r1, r2 = reference.effective_rank(a), reference.effective_rank(b)
    v, u = reference.left_space(a, r1), reference.right_space(b, r2)
    cosines = reference.principal_cosines(v, u)
    assert (found.effective_rank_write, found.effective_rank_read) == (r1, r2)
    assert (found.rank_write, found.rank_read) == (min(d, m1), min(d, m2))
    assert found.commutator_ratio == pytest.approx(reference.commutator_ratio(a, b))
    assert found.gram_correlation == pytest.approx(reference.gram_correlation(a, b))
    assert found.gram_correlation_z == pytest.approx(reference.gram_correlation_z(a, b))
    assert found.commutation_defect == pytest.approx(reference.commutation_defect(a, b))
    assert found.imbalance == pytest.approx(reference.imbalance(a, b))
    assert found.overlap_ratio == pytest.approx(reference.overlap_ratio(a, b))
    small, large = (v, u) if r1 <= r2 else (u, v)
    assert found.flag_defect == pytest.approx(reference.flag_defect(small, large), abs=1e-12)
    assert found.kernel_intersection == reference.kernel_intersection(a, b)
    np.testing.assert_allclose(found.cosines, cosines, rtol=1e-5, atol=1e-9)
    deviation = reference.haar_overlap_variance(d, r1, r2) ** 0.5
    if deviation:
        z = (reference.total_overlap(v, u) - reference.haar_overlap_mean(d, r1, r2)) / deviation
        assert found.overlap_z == pytest.approx(z)
    product = np.linalg.svd(b @ a, compute_uv=False)[: min(shape)]
    np.testing.assert_allclose(found.functional.product_spectrum, product, rtol=1e-5)
    assert found.functional.product_effective_rank == pytest.approx(
        reference.participation_ratio(b @ a)
    )
    assert found.status == "ok"


def test_profile_and_incidence_are_sums_over_projectors():
    w1, w2 = normal(14, 9, seed=1), normal(30, 14, seed=2)
    found = record(w1, w2)
    surface = reference.incidence_surface(
        reference.left_space(w1.numpy(), 9), reference.right_space(w2.numpy(), 14)
    )
    grid = found.incidence
    assert (grid.ranks_write, grid.ranks_read) == (list(range(1, 10)), list(range(1, 15)))
    np.testing.assert_allclose(grid.surface, surface, rtol=1e-5, atol=1e-12)
    for rank, ratio in found.profile:
        assert ratio == pytest.approx(surface[rank - 1, rank - 1] * 14 / rank**2, rel=1e-5)


@pytest.mark.parametrize(("rule", "ranks"), [("numerical", (9, 14)), ("fixed:3", (3, 3))])
def test_rank_rules(rule, ranks):
    found = record(normal(20, 9, seed=1), normal(14, 20, seed=2), rank=rule)
    assert (found.effective_rank_write, found.effective_rank_read) == ranks
    exact = reference.overlap_ratio(
        normal(20, 9, seed=1).numpy(), normal(14, 20, seed=2).numpy(), *ranks
    )
    assert found.overlap_ratio == pytest.approx(exact)


@pytest.mark.parametrize("d", [30, 12])
def test_planted_intersection(d):
    # V and U share exactly three directions, all of their dimension (5 and 6).
    q = haar(1, d, 8, seed=1)[0]
    scale = torch.tensor([3.0, 2.5, 2.0, 1.5, 1.4, 1.2], dtype=torch.float64)
    w1 = (q[:, :5] * scale[:5]) @ haar(1, 9, 5, seed=2)[0].mT
    w2 = haar(1, 40, 6, seed=3)[0] @ (q[:, 2:8] * scale).mT
    found = record(w1, w2, rank="numerical", delta=1e-6)
    assert (found.rank_write, found.rank_read) == (5, 6)
    assert (found.intersection_exact, found.intersection_beyond_chance) == (3, 3)
    assert found.flag_defect == pytest.approx(2)
    assert found.kernel_intersection == 2
    assert found.functional.product_rank == 3


def test_a_small_angle_is_not_an_intersection_until_noise_hides_it():
    q = haar(1, 30, 4, seed=1)[0]
    tilted = torch.cat([(q[:, :1] + 1e-5 * q[:, 3:]) / (1 + 1e-10) ** 0.5, q[:, 2:3]], 1)
    w1, w2 = 2 * q[:, :2], tilted.mT
    counts = [
        record(w1, w2, rank="numerical", delta=delta).intersection_exact
        for delta in (0.0, 1e-8, 1e-4, 0.5)
    ]
    assert counts == [0, 0, 1, None]


def test_flag_defect_near_a_flag():
    q = haar(1, 30, 8, seed=1)[0]
    angles = torch.tensor([1e-3, 1e-5, 1e-6], dtype=torch.float64)
    v = q[:, :3] * angles.cos() + q[:, 5:] * angles.sin()
    found = record(v, q[:, :5].mT, rank="numerical")
    assert found.flag_defect == pytest.approx(float(angles.sin().square().sum()), abs=1e-13)
    assert record(q[:, :3], q[:, :5].mT, rank="numerical").flag_defect < 1e-13


def test_an_intersection_that_chance_makes_as_exact_is_left_open():
    # In R^10 two 5-dimensional spaces come as near as a sine of 0.01 by chance.
    q = haar(1, 10, 10, seed=1)[0]
    tilted = (q[:, :1] + 0.01 * q[:, 9:]) / (1 + 1e-4) ** 0.5
    w1, w2 = q[:, :5], torch.cat([tilted, q[:, 5:9]], 1).mT
    blind, noisy = (record(w1, w2, rank="numerical", delta=delta) for delta in (1e-9, 0.01))
    # Storage to 1e-9 knows that they do not meet; how near is near enough nobody can say.
    assert (blind.intersection_exact, blind.intersection_beyond_chance) == (0, None)
    assert blind.intersection_status.startswith("cannot be tested: chance brings a cosine to 0.9")
    # Noise of the size of the tilt makes it one that they may share, and chance would too.
    assert (noisy.intersection_exact, noisy.intersection_beyond_chance) == (None, None)
    assert noisy.intersection_status != "ok"
    # The same two spaces with room around them: 1e-9 is beyond chance, and so is 0.01.
    wide = torch.zeros(190, 5, dtype=torch.float64)
    w1, w2 = torch.cat([w1, wide]), torch.cat([w2, wide.mT], 1)
    blind, noisy = (record(w1, w2, rank="numerical", delta=delta) for delta in (1e-9, 0.01))
    assert (blind.intersection_exact, blind.intersection_beyond_chance) == (0, 1)
    assert (noisy.intersection_exact, noisy.intersection_beyond_chance) == (1, 1)
    assert blind.intersection_status == noisy.intersection_status == "ok"


def test_forced_intersections_are_not_counted():
    found = record(normal(10, 8, seed=1), normal(7, 10, seed=2), rank="numerical")
    assert found.cosines[:5] == [1.0] * 5
    assert found.cosines_forced == 5
    assert found.intersection_exact == 0
    # The 1 % point of the largest that is left is .9999, where no other cosine can be told apart.
    assert found.intersection_beyond_chance in (0, None)
    inside = record(normal(10, 10, seed=1), normal(7, 10, seed=2), rank="numerical")
    assert inside.flag_defect == pytest.approx(0, abs=1e-12)
    assert inside.cosines_forced == 7
    assert (inside.intersection_exact, inside.intersection_beyond_chance) == (None, None)
    assert inside.intersection_status.startswith("cannot be tested: the dimensions force")
    # The effect has no freedom there, but leading spaces have some, and are tested.
    assert inside.overlap_z is None
    assert max(inside.overlap_test.rank_write, inside.overlap_test.rank_read) < 10


def law(total: float, p: int, q: int, d: int) -> float:
    return overlap_significance(total, p, q, d).log10_p


@pytest.mark.parametrize("planted", [False, True])
@pytest.mark.parametrize("profile", [0.0, 0.5])
@pytest.mark.parametrize("shape", [*SHAPES, (64, 96, 200), (96, 24, 12)])
def test_p_is_that_of_the_combined_test(shape, profile, planted):
    """At signal ranks, from singular value decompositions, with and without scale profiles."""
    d, m1, m2 = shape
    w1, w2 = normal(d, m1, seed=1), normal(m2, d, seed=2)
    if planted:
        along = haar(1, d, 1, seed=3)[0]
        w1 += 4 * d**0.5 * along @ haar(1, m1, 1, seed=4)[0].mT
        w2 += 4 * d**0.5 * haar(1, m2, 1, seed=5)[0] @ along.mT
    scales = (profile * normal(d, seed=6)).exp()
    w1, w2 = scales[:, None] * w1, w2 * scales
    found = record(w1, w2, rank="signal")
    a, b = w1.numpy(), w2.numpy()
    ranks = reference.signal_rank(a), reference.signal_rank(b)
    assert (found.effective_rank_write, found.effective_rank_read) == ranks
    shares = reference.level_shares(
        ranks,
        (min(d, m1), min(d, m2)),
        (reference.effective_rank(a), reference.effective_rank(b)),
        d,
    )
    if not shares:
        assert found.p is found.overlap_test is None
        return
    assert sum(shares.values()) == pytest.approx(1)
    raw = reference.combined_log10_p(a, b, shares, law)
    assert found.overlap_test.log10_p == pytest.approx(raw, rel=1e-7)
    guarded = found.overlap_test.log10_p_profile
    if guarded is not None:
        expected = reference.guarded_log10_p(a, b, shares, law)
        assert guarded == pytest.approx(expected, rel=1e-6)
    else:
        smallest = min(10**raw, found.commutator_p or 1, found.gram_correlation_p or 1)
        assert smallest > 0.2 or reference.without_profiles(a, b) is None
    assert found.log10_p == pytest.approx(raw if guarded is None else max(raw, guarded), rel=1e-7)
    assert found.p == pytest.approx(10**found.log10_p)


def test_directions_beyond_chance_are_counted():
    q = haar(1, 200, 20, seed=4)[0]
    w1 = q[:, :10]
    other = haar(1, 200, 10, seed=5)[0]
    other[:, :4] = q[:, :4] + 0.1 * other[:, :4]
    found = record(w1, torch.linalg.qr(other).Q.mT, rank="numerical", delta=1e-9)
    assert (found.intersection_exact, found.intersection_beyond_chance) == (0, 4)
    assert found.log10_p < -10


@pytest.mark.parametrize(("d", "m1", "m2"), [(8, 20, 30), (30, 9, 30)])
def test_kernel_intersection(d, m1, m2):
    w1, w2 = normal(d, m1, seed=1), normal(m2, 5, seed=2) @ normal(5, d, seed=3)
    found = record(w1, w2)
    assert found.kernel_intersection == min(d, m1) - 5
    assert found.functional.product_rank == 5
    # Storage noise above the smallest singular value of W2 W1 leaves it open.
    w2 = with_values(m2, d, [1.0, 0.9, 0.8, 0.7, 1e-7], seed=4)
    assert record(w1, w2).functional.product_rank == 5
    open_ = record(w1, w2, delta=1e-6)
    assert open_.kernel_intersection is None
    assert open_.functional.product_rank == 4


@pytest.mark.parametrize(
    ("fault", "text"),
    [(0.0, "all zero"), (float("nan"), "not finite"), (float("inf"), "not finite")],
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_broken_map_gets_a_status_and_the_others_stand(fault, text, side):
    maps = [normal(3, 12, 5, seed=1), normal(3, 6, 12, seed=2)]
    whole = records(*maps)
    if fault == 0:
        maps[side][1] = 0
    else:
        maps[side][1, 2, 3] = fault
    found = records(*maps)
    assert text in found[1].status
    assert ("write", "read")[side] in found[1].status
    assert (
        found[1].commutator_ratio is found[1].p is found[1].functional is found[1].cosines is None
    )
    for i in (0, 2):
        assert found[i].status == "ok"
        assert found[i].commutator_ratio == pytest.approx(whole[i].commutator_ratio, rel=1e-12)
        assert found[i].overlap_ratio == pytest.approx(whole[i].overlap_ratio, rel=1e-12)
    assert all(no_nan(one) for one in found)


@pytest.mark.parametrize("freedom", ["gl", "scaling", "permutation"])
@pytest.mark.parametrize("isotropic", ["write", "read", "both"])
def test_isotropic_gram_matrices_leave_c_rho_and_nu_undefined(freedom, isotropic):
    turn = haar(1, 30, 12, seed=1)[0]
    w1 = turn.mT if isotropic != "read" else normal(12, 30, seed=2)
    w2 = 5 * turn if isotropic != "write" else normal(30, 12, seed=2)
    found = record(w1, w2, freedom=freedom)
    assert "isotropic" in found.status
    assert all(getattr(found, name) is None for name in UNDEFINED)
    assert found.imbalance == pytest.approx(reference.imbalance(w1.numpy(), w2.numpy()))
    assert found.rank_write == 12
    assert no_nan(found)


def test_isotropic_up_to_storage_noise():
    rough = haar(1, 30, 12, seed=1)[0].mT + 1e-3 * normal(12, 30, seed=2)
    w2 = normal(40, 12, seed=3)
    assert record(rough, w2).status == "ok"
    assert "isotropic" in record(rough, w2, delta=1e-2).status
    below = record(1e-3 * rough, w2, delta=1e-2)
    assert below.status == "a map lies below its storage noise"
    assert below.rank_write == 0
    assert below.overlap_ratio is below.commutator_ratio is None
    assert no_nan(below)


@pytest.mark.parametrize("m1", [1, 5])
def test_one_shared_dimension(m1):
    found = record(normal(1, m1, seed=1), normal(4, 1, seed=2), freedom="scaling")
    assert found.commutator_ratio is None
    assert "isotropic" in found.status
    assert found.overlap_ratio == pytest.approx(1)
    assert found.p is None
    assert found.kernel_intersection == 0
    assert no_nan(found)


def test_rank_one_everywhere():
    found = record(normal(9, 1, seed=1), normal(1, 9, seed=2))
    assert (found.rank_write, found.effective_rank_read) == (1, 1)
    assert len(found.cosines) == 1
    cosine = found.cosines[0]
    assert found.overlap_ratio == pytest.approx(9 * cosine**2, rel=1e-4)
    assert found.flag_defect == pytest.approx(1 - cosine**2, rel=1e-4)
    assert no_nan(found)


SCALE_FREE = (
    *("rank_write", "rank_read", "effective_rank_write", "effective_rank_read", "commutator_p"),
    *("commutator_ratio", "gram_correlation", "commutation_defect", "overlap_ratio", "overlap_z"),
    *("kernel_intersection", "intersection_exact", "flag_defect", "log10_p", "status"),
)


@pytest.mark.parametrize("freedom", ["gl", "scaling", "rotary"])
@pytest.mark.parametrize("scales", [(1e-150, 1e150), (1e150, 1e150), (1e-150, 1e-150), (3e-9, 2e7)])
@pytest.mark.parametrize("shape", [(8, 20, 30), (30, 8, 9)])
def test_scales_leave_all_but_the_imbalance(freedom, scales, shape):
    rotary = Rotary(4, "half") if freedom == "rotary" else None
    d, m1, m2 = shape
    w1, w2 = normal(d, m1, seed=1), normal(m2, d, seed=2)
    before = record(w1, w2, freedom=freedom, rotary=rotary)
    after = record(scales[0] * w1, scales[1] * w2, freedom=freedom, rotary=rotary)
    for name in SCALE_FREE:
        one, other = getattr(before, name), getattr(after, name)
        assert one == (pytest.approx(other, rel=1e-9) if isinstance(other, float) else other), name
    spectrum = np.array(after.functional.product_spectrum) / scales[0] / scales[1]
    np.testing.assert_allclose(spectrum, before.functional.product_spectrum, rtol=2e-5)
    a, b = ((s / max(scales)) ** 2 * np.linalg.norm(g) for s, g in zip(
        scales, (w1 @ w1.mT, w2.mT @ w2), strict=True))  # fmt: skip
    if scales[0] == scales[1]:
        assert after.imbalance == pytest.approx(before.imbalance)
    elif min(a, b) < 1e-30 * max(a, b):
        assert after.imbalance == pytest.approx(1)
    for name in ("commutator_ratio", "gram_correlation", "imbalance", "effective_rank", "status"):
        one, other = getattr(before.balanced, name), getattr(after.balanced, name)
        assert one == (pytest.approx(other, rel=1e-8) if isinstance(other, float) else other), name
    assert no_nan(after)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_float32_arithmetic_at_any_scale(scale):
    w1, w2 = normal(8, 20, seed=1), normal(30, 8, seed=2)
    exact = record(w1, w2, freedom="scaling")
    found = record((scale * w1).float(), (w2 / scale).float(), freedom="scaling")
    for name in ("commutator_ratio", "gram_correlation", "commutation_defect", "overlap_ratio"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-3), name
    np.testing.assert_allclose(
        found.functional.product_spectrum, exact.functional.product_spectrum, rtol=1e-4
    )


def test_a_product_beyond_double_precision_is_no_number():
    found = record(1e160 * normal(8, 20, seed=1), 1e160 * normal(30, 8, seed=2), freedom="gl")
    assert found.functional.product_spectrum is None
    assert found.functional.product_rank == 8
    assert "exceed" in found.status
    assert found.commutator_ratio is not None
    assert no_nan(found)


def test_long_arrays_are_summarised():
    found = record(normal(150, 300, seed=1), normal(300, 150, seed=2), rank="fixed:100")
    assert isinstance(found.cosines, ArraySummary)
    assert found.cosines.length == 100
    assert len(found.cosines.top) == 16
    assert found.cosines.top == sorted(found.cosines.top, reverse=True)
    assert found.profile[-1][0] == 150


def test_convolutions_sum_over_the_kernel():
    # The write Gram runs over output channels, the read Gram over input channels.
    one, two = normal(6, 4, 3, 3, seed=1), normal(5, 6, 3, 3, seed=2)
    layout = {"layout": "o i y x", "out": "o", "inp": "i", "role": "conv"}
    maps = [
        LinearMap(tensor=name, shape=tuple(w.shape),
                  sizes=dict(zip("oiyx", w.shape, strict=True)), **layout)
        for name, w in (("one", one), ("two", two))
    ]  # fmt: skip
    sides = Side(maps[0]).write(one), Side(maps[1]).read(two)
    found = pair_records(pair_group(*sides), *(matrices(side) for side in sides))[0]
    a = np.einsum("oiyx,piyx->op", one, one)
    b = np.einsum("oiyx,ojyx->ij", two, two)
    assert found.d == 6
    assert found.commutator_ratio == pytest.approx(reference.gram_commutator_ratio(a, b))


def test_members_choose_their_maps():
    w1, w2 = normal(4, 8, 20, seed=1), normal(2, 20, 8, seed=2)
    found = records(w1, w2, members=[(0, 0), (1, 0), (2, 1), (3, 1)])
    expected = [record(w1[i], w2[i // 2]) for i in range(4)]
    for one, other in zip(found, expected, strict=True):
        assert one.commutator_ratio == pytest.approx(other.commutator_ratio, rel=1e-12)
        assert one.overlap_ratio == pytest.approx(other.overlap_ratio, rel=1e-12)
    assert [one.read.slice for one in found] == [
        "[0:20, :]",
        "[0:20, :]",
        "[20:40, :]",
        "[20:40, :]",
    ]


def test_records_round_trip():
    for found in (
        record(normal(12, 20, seed=1), normal(30, 12, seed=2), freedom="gl"),
        record(torch.zeros(12, 20, dtype=torch.float64), normal(30, 12, seed=2)),
    ):
        assert PairRecord.model_validate_json(found.model_dump_json()) == found


def test_rounding_from_one_end_of_the_range_to_the_other():
    values = np.array([5e-324, 1.23456789e-305, -1.23456789, 0.0, 1.23456789e308])
    expected = [5e-324, 1.23456789e-305, -1.23457, 0.0, 1.23457e308]
    assert rounded(values) == pytest.approx(expected, rel=1e-15, abs=0)


def test_faults_and_choice_of_matrices():
    maps = normal(3, 2, 4, seed=1)
    maps[1] = 0
    maps[2, 0, 0] = float("inf")
    whole = Matrices(maps, torch.arange(3.0), torch.arange(3.0))
    assert whole.faults() == [None, "all zero", "not finite"]
    assert whole.take([0, 1, 2]) is whole
    chosen = whole.take([1, 1, 0])
    assert chosen.delta.tolist() == [1.0, 1.0, 0.0]
    assert torch.equal(chosen.values[2], maps[0])
    assert stored_map("a", 2, 3, 4).count == 2


def test_normalised_maps_are_the_maps_over_powers_of_two():
    maps = (
        normal(2, 3, 4, seed=1) * torch.tensor([1e-200, 1e300], dtype=torch.float64)[:, None, None]
    )
    noisy = Matrices(maps, maps.abs().amax((1, 2)) * 1e-8, torch.zeros(2, dtype=torch.float64))
    found = noisy.normalised()
    largest = found.values.abs().amax((1, 2))
    assert bool(((largest >= 0.25) & (largest < 1)).all())
    assert not bool((found.exponents % 2).any())
    np.testing.assert_array_equal(
        np.ldexp(found.values.numpy(), found.exponents.numpy()[:, None, None]), maps.numpy()
    )
    torch.testing.assert_close(found.delta, 1e-8 * largest)
    # Squares beyond double precision are replaced by a bound from delta.
    torch.testing.assert_close(found.mean_square, found.delta.square() / 4, rtol=1e-12, atol=0)
    usual = matrices(normal(2, 3, 4, seed=1))
    assert usual.normalised() is usual
