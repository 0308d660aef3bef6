"""Planted heads: near-copies, shared directions, clusters, orthogonal heads."""

import json

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, ndtr

import reference
from diagnose.planted import heads
from flagscope.geometry import (
    head_spaces,
)
from flagscope.null import mean_overlap_significance, overlap_significance
from flagscope.records import HeadRecord
from geometry.planted import haar, normal


def spaces_of(maps: torch.Tensor) -> list[np.ndarray]:
    return [reference.right_space(one, np.linalg.matrix_rank(one)) for one in maps.numpy()]


@pytest.mark.parametrize(
    ("count", "r", "d"), [(5, 4, 40), (12, 8, 30), (3, 9, 12), (2, 5, 30), (4, 7, 7)]
)
def test_against_the_reference(count, r, d):
    maps = normal(count, r, d, seed=1)
    found = heads(maps)
    spaces = spaces_of(maps)
    np.testing.assert_allclose(
        found.pairwise, reference.pairwise_head_overlaps(spaces), rtol=1e-5, atol=1e-9
    )
    ratio = reference.head_overlap_ratio(spaces)
    assert found.overlap_ratio == pytest.approx(ratio, rel=1e-12)
    upper = np.array(found.pairwise)[np.triu_indices(count, 1)]
    assert found.max_pair_ratio == pytest.approx(upper.max(), rel=1e-5)
    assert found.min_pair_ratio == pytest.approx(upper.min(), rel=1e-5)
    exact = reference.projector_sum_spectrum(spaces)[: min(d, count * r)]
    np.testing.assert_allclose(found.spectrum, exact, atol=1e-5 * count)
    if r < d:
        assert found.z == pytest.approx(reference.head_overlap_z(spaces), rel=1e-9)
        assert found.overlap_ratio_sd == pytest.approx((ratio - 1) / found.z, rel=1e-6)
    else:
        assert found.z is None
        assert "no freedom" in found.status


def test_thresholds_are_those_of_the_projector_sum():
    found = heads(normal(12, 32, 384, seed=1))
    assert found.shared_threshold == pytest.approx(
        reference.projector_sum_threshold(384, 32, 12), abs=2e-3
    )
    assert (found.shared_directions, found.clusters, found.near_copies) == (0, [], [])
    assert abs(found.z) < 4


def test_orthogonal_heads_do_not_overlap():
    q = haar(1, 60, 48, seed=1)[0]
    found = heads(q.mT.reshape(6, 8, 60))
    assert found.overlap_ratio == pytest.approx(0, abs=1e-25)
    assert found.z < -10
    assert found.log10_p < -10
    assert found.shared_directions == 0
    assert found.near_copies == []
    np.testing.assert_allclose(found.spectrum, np.ones(48), atol=1e-5)


def test_equal_heads():
    one = normal(1, 8, 60, seed=1)
    maps = normal(4, 8, 8, seed=2) @ one
    found = heads(maps)
    assert found.overlap_ratio == pytest.approx(60 / 8)
    assert found.clusters == [[0, 1, 2, 3]]
    assert found.shared_directions == 8
    assert found.shared[0].eigenvalue == pytest.approx(4, rel=1e-5)
    assert found.shared[0].heads == [0, 1, 2, 3]
    assert len(found.near_copies) == 6
    for pair in found.near_copies:
        assert (pair.shared, pair.rank) == (8, 8)
        assert pair.mean_squared_cosine == pytest.approx(1)


def test_near_copies_and_clusters():
    # Heads 1 and 6 share 7 of 8 directions, 2, 4 and 5 are rotated copies of each other.
    maps = haar(9, 100, 8, seed=1).mT.contiguous()
    maps[6] = torch.cat([maps[1, :7], maps[6, 7:]])
    for head, seed in ((4, 3), (5, 4)):
        maps[head] = normal(8, 8, seed=seed) @ (maps[2] + 0.02 * normal(8, 100, seed=seed + 5))
    found = heads(maps)
    assert sorted(found.clusters) == [[1, 6], [2, 4, 5]]
    assert {pair.heads for pair in found.near_copies} == {(1, 6), (2, 4), (2, 5), (4, 5)}
    shared = {pair.heads: pair.shared for pair in found.near_copies}
    assert shared[(1, 6)] == 7
    assert shared[(2, 4)] == 8
    assert sorted(found.order) == list(range(9))
    places = [found.order.index(h) for h in (2, 4, 5)]
    assert max(places) - min(places) == 2
    assert found.z > 20


def test_shared_directions_name_their_heads():
    # Two directions of the stream lie in heads 0-4 and in heads 3-8; nothing else is planted.
    maps = normal(10, 8, 200, seed=1)
    directions = haar(1, 200, 2, seed=2)[0].mT
    maps[0:5, 0] = 30 * directions[0]
    maps[3:9, 1] = 30 * directions[1]
    found = heads(maps)
    assert found.shared_directions == 2
    assert [one.heads for one in found.shared] == [list(range(3, 9)), list(range(5))]
    assert found.shared[0].eigenvalue > found.shared[1].eigenvalue > found.shared_threshold


def test_directions_that_dimensions_force_are_not_shared_beyond_chance():
    # Three 9-dimensional heads of R^10 meet in at least 7 dimensions.
    found = heads(normal(3, 9, 10, seed=1))
    assert np.allclose(found.spectrum[:7], 3, atol=1e-5)
    assert found.shared_directions in (None, 0)
    two = heads(normal(2, 8, 10, seed=1))
    assert np.allclose(two.spectrum[:6], 2, atol=1e-5)
    assert two.shared_directions == 0
    assert two.shared == []
    maps = normal(2, 8, 10, seed=1)
    maps[1, :7] = maps[0, :7]
    seven = heads(maps)
    assert seven.shared_directions == 1
    assert [one.heads for one in seven.shared] == [[0, 1]]


def test_basis_changes_within_heads_and_of_the_stream_move_nothing():
    maps = normal(6, 8, 50, seed=1)
    maps[1] = maps[0] + normal(8, 50, seed=2)
    found = heads(maps)
    turned = heads(1e4 * normal(6, 8, 8, seed=3) @ maps @ haar(1, 50, 50, seed=4)[0])
    assert turned.overlap_ratio == pytest.approx(found.overlap_ratio, rel=1e-10)
    # The p-value also looks at the scales of coordinates, which a turn of the stream does move.
    assert turned.z == pytest.approx(found.z, rel=1e-8)
    assert (turned.clusters, turned.shared_directions) == (found.clusters, found.shared_directions)
    # A general change of the stream does move them.
    bent = heads(maps @ torch.diag(torch.linspace(0, 3, 50, dtype=torch.float64).exp()))
    assert abs(bent.overlap_ratio - found.overlap_ratio) > 0.01


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_scales_move_nothing(scale):
    maps = normal(6, 8, 50, seed=1)
    assert heads(scale * maps).overlap_ratio == pytest.approx(heads(maps).overlap_ratio, rel=1e-12)


def test_rank_deficient_heads_have_their_own_ranks():
    maps = normal(3, 6, 30, seed=1)
    maps[1] = normal(6, 2, seed=2) @ normal(2, 30, seed=3)
    spaces = head_spaces(maps)
    assert spaces.ranks.tolist() == [6, 2, 6]
    for one, basis, rank in zip(maps, spaces.bases, (6, 2, 6), strict=True):
        projector = basis @ basis.mT
        torch.testing.assert_close(projector @ projector, projector)
        torch.testing.assert_close(one @ projector, one)
        assert float(projector.trace()) == pytest.approx(rank)
    found = heads(maps)
    exact = reference.pairwise_head_overlaps(spaces_of(maps))
    np.testing.assert_allclose(found.pairwise, exact, rtol=1e-5, atol=1e-9)
    assert found.rank == 6


@pytest.mark.parametrize(
    ("change", "text"),
    [(0.0, "head 1 is all zero"), (float("nan"), "head 1 is not finite"), (None, "single head"),
     (1e-9, "below its storage noise")],
)  # fmt: skip
def test_statuses(change, text):
    maps = normal(1 if change is None else 3, 4, 20, seed=1)
    delta = 0.0
    if change == 1e-9:
        maps[1] *= change
        delta = 1e-4
    elif change is not None:
        maps[1] = change
    found = heads(maps, delta=delta)
    assert text in found.status
    assert found.overlap_ratio is found.p is found.pairwise is found.clusters is None
    json.loads(found.model_dump_json(), parse_constant=pytest.fail)
    assert HeadRecord.model_validate_json(found.model_dump_json()) == found


def gain(d, sd, *, seed):
    return (sd * normal(d, seed=seed)).exp()


def sizes(draw, *, count=200):
    """Shares of p below 0.05 of R, of the largest shared direction, and of R's z alone."""
    found = [heads(draw(seed)) for seed in range(count)]
    p = [[10**one.log10_p, 10**one.shared_log10_p, 2 * ndtr(-abs(one.z))] for one in found]
    claims = [(len(one.clusters), len(one.near_copies)) for one in found]
    return (np.array(p) < 0.05).mean(0), np.mean(np.array(claims) > 0, 0)


@pytest.mark.parametrize(("count", "r", "d"), [(8, 8, 64), (4, 6, 24), (2, 8, 16)])
@pytest.mark.parametrize("kind", ["gain", "dead", "decaying"])
def test_scales_of_coordinates_are_not_overlap(count, r, d, kind):
    def draw(seed):
        maps = normal(count, r, d, seed=seed)
        if kind == "decaying":
            maps = haar(count, d, r, seed=seed).mT / torch.arange(1, r + 1)[:, None]
        if kind == "dead":
            maps[:, :, : d // 4] = 0
            return maps
        return maps * gain(d, 0.4, seed=1000 + seed)

    (mean, shared, raw), (clusters, copies) = sizes(draw)
    bound = 0.05 + 4 * np.sqrt(0.05 * 0.95 / 200)
    assert mean < bound
    assert shared < bound
    assert clusters < 0.05
    assert copies < 0.05
    if count > 2:
        assert raw > 0.2  # what the law of heads as they are would say


def test_planted_heads_are_found_under_a_gain():
    maps = normal(9, 8, 100, seed=1)
    maps[5] = normal(8, 8, seed=2) @ (maps[2] + 0.3 * normal(8, 100, seed=3))
    direction = 4 * normal(100, seed=4)
    maps[[0, 1, 3, 6, 7, 8], 0] = direction
    found = heads(maps * gain(100, 0.4, seed=5))
    assert found.log10_p_profile == found.log10_p
    assert found.log10_p > log10_p_of(found.z)
    assert found.log10_p < -3
    assert found.shared_log10_p < -3
    assert found.near_copies[0].heads == (2, 5)
    assert found.near_copies[0].log10_p < -10
    assert found.clusters == [[2, 5]]
    (cluster,) = found.cluster_tests
    assert cluster.log10_p < -10
    assert cluster.mean_squared_cosine == pytest.approx(
        found.near_copies[0].mean_squared_cosine, rel=1e-6
    )


def log10_p_of(z):
    return np.log10(2) + log_ndtr(-abs(z)) / np.log(10)


def test_heads_that_the_live_coordinates_hold_as_a_whole_claim_nothing():
    maps = torch.cat([normal(3, 8, 8, seed=1), torch.zeros(3, 8, 12)], -1)
    found = heads(maps)
    assert found.overlap_ratio == pytest.approx(20 / 8)
    assert (found.log10_p, found.p, found.log10_p_profile) == (0, 1, 0)
    assert found.clusters == found.near_copies == []


def test_without_a_profile_the_tests_are_those_of_heads_as_they_are():
    maps = normal(12, 8, 60, seed=1)
    maps[1] = maps[0] + 0.7 * normal(8, 60, seed=2)
    found = heads(maps)
    assert found.log10_p_profile is None
    test = mean_overlap_significance(found.overlap_ratio, [8] * 12, 60)
    assert found.log10_p == test.log10_p
    share = found.near_copies[0].mean_squared_cosine
    assert found.near_copies[0].log10_p == overlap_significance(share * 8, 8, 8, 60).log10_p


@pytest.mark.parametrize("d", [16, 40])
def test_clusters_need_more_than_dimensions_give(d):
    # At r = d/2 two random heads share half of their directions on average.
    for seed in range(40):
        assert heads(normal(4, 8, d, seed=seed)).clusters == []
    maps = normal(4, 8, d, seed=50)
    maps[3] = normal(8, 8, seed=51) @ (maps[1] + 0.2 * normal(8, d, seed=52))
    assert heads(maps).clusters == [[1, 3]]


def test_a_group_of_near_copies_is_tested_as_the_best_of_all_groups():
    maps = normal(10, 6, 60, seed=1)
    for head in (4, 7):
        maps[head] = maps[2] + 0.5 * normal(6, 60, seed=head)
    found = heads(maps)
    (cluster,) = found.cluster_tests
    assert cluster.heads == [2, 4, 7]
    block = np.array(found.pairwise)[np.ix_(cluster.heads, cluster.heads)]
    mean = block[np.triu_indices(3, 1)].mean()
    alone = mean_overlap_significance(mean, [6] * 3, 60).log10_p
    # One-sided, 120 groups of three, nine sizes.
    assert cluster.log10_p == pytest.approx(alone - np.log10(2) + np.log10(120 * 9), abs=0.5)


def test_two_heads_that_fill_the_stream_share_no_direction_by_rounding():
    """R^16 holds two spaces of 8 whose smallest angle is by chance as small as float32's error."""
    generator = torch.Generator().manual_seed(0)
    small = [
        heads(torch.randn(2, 8, 16, generator=generator, dtype=torch.float64)).shared_log10_p
        for _ in range(1500)
    ]
    # A cosine of 1 to rounding had p = 1e-7; of 1,500 the smallest should be 1e-3 or so.
    assert min(small) > -3.2
    assert np.mean(np.array(small) <= np.log10(0.05)) < 0.05 + 4 * (0.05 / len(small)) ** 0.5
