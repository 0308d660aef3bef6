from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.null import (
    cluster_significance,
    haar_overlap,
    mean_overlap,
    mean_overlap_fourth,
    mean_overlap_significance,
    overlap_significance,
)
from flagscope.null import mean_overlap_law as module
from null import sampling


def ratios(n: int, ranks: list[int], d: int, *, seed: int) -> np.ndarray:
    """Mean overlap ratios by their definition."""
    spaces = [sampling.bases(n, d, r, seed=1000 * i + seed) for i, r in enumerate(ranks)]
    pairs = [
        (v.mT @ u).square().sum((-1, -2)) * d / (v.shape[-1] * u.shape[-1])
        for v, u in itertools.combinations(spaces, 2)
    ]
    return torch.stack(pairs).mean(0).numpy()


@pytest.mark.parametrize(
    ("ranks", "d"),
    [
        ([2, 2, 2], 4),
        ([1, 1, 1], 2),
        ([1, 2, 3], 5),
        ([4] * 6, 16),
        ([3, 5, 8, 2], 12),
        ([1] * 8, 3),
    ],
)
def test_moments_of_the_mean_agree_with_haar_draws(ranks, d):
    ratio = ratios(30_000, ranks, d, seed=d)
    moments = mean_overlap(ranks, d)
    sampling.assert_mean(ratio, 1.0)
    sampling.assert_mean((ratio - 1) ** 2, moments.variance)
    sampling.assert_mean((ratio - 1) ** 3, moments.third)
    sampling.assert_mean((ratio - 1) ** 4, mean_overlap_fourth(ranks, d))


SIZES = [
    ([4, 4], 12), ([2] * 3, 8), ([2] * 4, 8), ([4] * 4, 24), ([1] * 3, 3), ([1] * 3, 4),
    ([1] * 3, 8), ([2] * 3, 3), ([1, 1, 2], 4), ([1, 1, 6], 12), ([1] * 6, 20), ([9] * 3, 12),
    ([1, 1, 1, 4], 16), ([2, 3, 5, 6], 16),
]  # fmt: skip


@pytest.mark.parametrize(("ranks", "d"), SIZES)
def test_size_of_either_tail(ranks, d):
    n = 20_000
    sample = ratios(n, ranks, d, seed=d + len(ranks))
    for level in (0.05, 0.01, 0.001):
        shares = sampling.tail_shares(
            lambda value: mean_overlap_significance(max(0.0, value), ranks, d).p,
            sample, level, center=1.0,
        )  # fmt: skip
        sampling.assert_share(sum(shares), n, 0.8 * level, 1.15 * level)
        for share in shares:
            sampling.assert_share(share, n, 0.3 * level, 0.65 * level)


@pytest.mark.parametrize("n", [3, 4, 6, 40])
def test_fourth_moment_of_lines_in_the_plane(n):
    # R - 1 = (|S|² - n)/(n(n-1)) for S a sum of n random phases, of known moments.
    square = n
    fourth = 2 * n**2 - n
    sixth = 6 * n**3 - 9 * n**2 + 4 * n
    eighth = 24 * n**4 - 72 * n**3 + 82 * n**2 - 33 * n
    central = eighth - 4 * n * sixth + 6 * n**2 * fourth - 4 * n**3 * square + n**4
    assert mean_overlap_fourth([1] * n, 2) == pytest.approx(central / (n * (n - 1)) ** 4, rel=1e-10)


def test_two_subspaces_are_tested_by_their_own_law():
    alone = overlap_significance(1.5, 3, 4, 12)
    assert mean_overlap_significance(1.5, [3, 4], 12).log10_p == pytest.approx(alone.log10_p)
    moments = mean_overlap([3, 4], 12)
    assert moments.sd == pytest.approx(haar_overlap(3, 4, 12).sd)
    assert moments.skewness == pytest.approx(haar_overlap(3, 4, 12).skewness)


@pytest.mark.parametrize(
    ("ratio", "z"), [(1.893, 179.3), (0.887, -22.7), (0.0, -200.8), (2.59, 319.3)]
)
def test_far_out_both_ways(ratio, z):
    result = mean_overlap_significance(ratio, [32] * 12, 384)
    assert result.z == pytest.approx(z, abs=0.1)
    assert math.isfinite(result.log10_p)
    assert result.log10_p < -100
    assert result.p == (0.0 if result.log10_p < -330 else pytest.approx(10**result.log10_p))


def test_heads_that_span_everything_have_no_freedom():
    result = mean_overlap_significance(1.0, [4, 4, 4], 4)
    assert "no freedom" in result.status
    assert mean_overlap_significance(1.0, [1, 1], 1).z is None


@pytest.mark.parametrize(
    ("ranks", "d", "ratio", "drawn"),
    [
        ([32] * 12, 384, 0.99, False),  # hardly skewed
        ([32] * 12, 384, 1.01, False),
        ([1] * 5, 64, 0.7, True),  # skewed: its lower tail alone
        ([1] * 5, 64, 1.3, False),
        ([2] * 3, 5, 0.7, True),  # few dimensions: both tails
        ([2] * 3, 5, 1.3, True),
    ],
)
def test_draws_stand_in_where_the_law_does_not_hold_and_nowhere_else(
    ranks, d, ratio, drawn, monkeypatch
):
    asked = []
    monkeypatch.setattr(module, "_sample", lambda *of: asked.append(of))
    mean_overlap_significance(ratio, ranks, d)
    assert bool(asked) == drawn


def test_fewer_draws_than_bear_a_tail_are_none():
    # 5 lines in R^d cost 70 d each time.
    assert module._sample((1,) * 5, 10**6) is None
    assert len(module._sample((1,) * 5, 10**4)) >= module.FEWEST


def test_impossible_values_are_refused():
    with pytest.raises(InputError, match="two subspaces"):
        mean_overlap([3], 12)
    with pytest.raises(InputError, match="dimension 0"):
        mean_overlap_significance(1.0, [3, 0], 12)
    with pytest.raises(InputError, match="negative"):
        mean_overlap_significance(-0.1, [3, 3], 12)
    with pytest.raises(InputError, match="finite"):
        mean_overlap_significance(math.inf, [3, 3], 12)
    with pytest.raises(InputError, match="fewer"):
        cluster_significance(1.2, [3, 3, 3], 12, heads=2)


@pytest.mark.parametrize("ranks", [[1, 1, 1], [2, 2, 2], [4] * 12])
def test_tails_are_finite_and_monotone(ranks):
    d = 8 if len(ranks) == 3 else 96
    highest = mean_overlap(ranks, d).mean * d / ranks[0]
    values = [
        mean_overlap_significance(ratio, ranks, d).log10_p
        for ratio in np.linspace(1.5, highest, 12).tolist()
    ]
    assert all(map(math.isfinite, values))
    assert values == sorted(values, reverse=True)
    assert math.isfinite(mean_overlap_significance(0.0, ranks, d).log10_p)


def test_cluster_is_the_upper_tail_times_what_was_searched():
    alone = mean_overlap_significance(1.3, [4] * 3, 32)
    cluster = cluster_significance(1.3, [4] * 3, 32, heads=8)
    # Half of the two-sided p, 56 groups of three, 7 sizes.
    expected = alone.log10_p + math.log10(0.5 * 56 * 7)
    assert cluster.log10_p == pytest.approx(min(0.0, expected), abs=1e-9)
    assert cluster.z == alone.z
    assert cluster_significance(0.9, [4] * 3, 32, heads=8).p == 1.0
    pair = cluster_significance(1.9, [4, 4], 32, heads=2)
    two_sided = mean_overlap_significance(1.9, [4, 4], 32)
    assert pair.log10_p == pytest.approx(two_sided.log10_p - math.log10(2.0))
    assert cluster_significance(1.0, [4, 4, 4], 4, heads=6).z is None


@pytest.mark.parametrize(("heads", "rank", "d"), [(5, 2, 8), (6, 4, 16)])
def test_best_cluster_of_all_is_found_by_chance_no_more_often_than_stated(heads, rank, d):
    n = 1_500
    spaces = [sampling.bases(n, d, rank, seed=77 + i) for i in range(heads)]
    table = np.zeros((n, heads, heads))
    for i, j in itertools.combinations(range(heads), 2):
        overlap = (spaces[i].mT @ spaces[j]).square().sum((-1, -2)).numpy() * d / rank**2
        table[:, i, j] = table[:, j, i] = overlap
    best = np.ones(n)
    for count in range(2, heads + 1):
        groups = itertools.combinations(range(heads), count)
        mean = np.max([table[:, g][:, :, g].sum((1, 2)) for g in map(list, groups)], axis=0)
        mean /= count * (count - 1)
        p = [cluster_significance(m, [rank] * count, d, heads=heads).p for m in mean.tolist()]
        best = np.minimum(best, p)
    sampling.assert_size(best < 0.05, 0.0, 0.05)
