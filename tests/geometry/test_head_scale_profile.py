"""Scales of the stream's coordinates: planted gains, dead coordinates, and what they cost."""

import math

import numpy as np
import pytest
import torch

from flagscope.geometry import (
    divided_spaces,
    head_spaces,
    pairwise_overlaps,
    scale_profile,
    without_profile,
)
from geometry.planted import haar, normal


def decaying(count, r, d, *, seed):
    """Haar heads of singular values 1, 1/2, 1/3 …"""
    return haar(count, d, r, seed=seed).mT / torch.arange(1, r + 1)[:, None]


def gain(d, sd, *, seed):
    logs = sd * normal(d, seed=seed)
    return (logs - logs.mean()).exp()


@pytest.mark.parametrize("sd", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("maps", [normal, decaying])
def test_a_planted_gain_is_found_up_to_the_scatter_of_directions(sd, maps):
    planted = gain(64, sd, seed=1)
    pool = [head_spaces(maps(n, 8, 64, seed=n) * planted) for n in (8, 4, 2)]
    profile = scale_profile(pool)
    assert profile.differ
    assert profile.weight == pytest.approx(14 * 8 * (1 - 8 / 64))
    errors = (profile.scales / planted).log()
    # 64 logarithms of variance 1/(2 weight): four standard errors of their mean square.
    ratio = float(errors.square().mean()) * 2 * profile.weight
    assert abs(ratio - 1) < 4 * math.sqrt(2 / 63)


def test_neither_the_basis_of_a_head_nor_its_singular_values_matter():
    maps = normal(6, 8, 40, seed=1) * gain(40, 0.3, seed=2)
    changed = normal(6, 8, 8, seed=3) @ maps
    one, two = (scale_profile([head_spaces(w)]) for w in (maps, changed))
    torch.testing.assert_close(one.scales, two.scales, rtol=1e-8, atol=0)


def test_a_gain_drops_out_of_what_is_left():
    maps = normal(6, 8, 40, seed=1)
    left = [
        divided_spaces(s, [s]).spaces
        for s in (head_spaces(maps * gain(40, sd, seed=2)) for sd in (0.4, 1.5))
    ]
    # Up to the last pass, which is left at a tenth of the profile's own noise.
    torch.testing.assert_close(*map(pairwise_overlaps, left), rtol=0.03, atol=0.03)


def test_scales_that_differ_by_chance_alone_are_left():
    verdicts = []
    for seed in range(300):
        verdicts.append(scale_profile([head_spaces(normal(8, 8, 64, seed=seed))]).differ)
    # The level is 0.01; logarithms of few directions have longer tails than the normal law.
    assert np.mean(verdicts) < 0.01 + 4 * math.sqrt(0.01 / 300) + 0.02


def test_dead_coordinates_are_dropped():
    maps = normal(6, 8, 40, seed=1)
    maps[:, :, [3, 17, 39]] = 0
    maps[2, :, 5] = 0  # alive in the other heads
    spaces = head_spaces(maps)
    profile = scale_profile([spaces])
    assert torch.nonzero(~profile.live).flatten().tolist() == [3, 17, 39]
    assert profile.differ
    left = without_profile(spaces, profile)
    assert (left.d, left.ranks.tolist()) == (37, [8] * 6)


def test_a_coordinate_that_is_dead_in_one_space_takes_its_scale_from_the_others():
    planted = gain(40, 0.5, seed=1)
    first, second = (normal(6, 8, 40, seed=s) * planted for s in (2, 3))
    first[:, :, 7] = 0
    profile = scale_profile([head_spaces(first), head_spaces(second)])
    assert bool(profile.live.all())
    alone = scale_profile([head_spaces(second)])
    assert float(profile.scales[7] / alone.scales[7]) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("count", "r", "d"), [(8, 8, 64), (4, 16, 64)])
def test_what_it_takes_from_the_overlap_is_its_shift(count, r, d):
    lost = []
    for seed in range(200):
        spaces = head_spaces(normal(count, r, d, seed=seed))
        profile = scale_profile([spaces])
        both = [pairwise_overlaps(s) for s in (spaces, without_profile(spaces, profile))]
        upper = torch.triu_indices(count, count, 1)
        mean = [float(one[upper[0], upper[1]].mean()) * d / r**2 for one in both]
        lost.append(mean[0] - mean[1])
    shift = profile.shift(r, r)
    assert shift == pytest.approx(2 * (1 - r / d) / (count * r))
    error = np.std(lost) / math.sqrt(len(lost))
    # To first order in 1/weight.
    assert abs(np.mean(lost) - shift) < 4 * error + shift / 5


def test_heads_that_fill_the_stream_leave_no_scale_open():
    assert scale_profile([head_spaces(normal(3, 6, 6, seed=1))]).weight == 0
    assert scale_profile([head_spaces(torch.zeros(2, 3, 6).double())]) is None
    maps = torch.cat([normal(3, 6, 6, seed=1), torch.zeros(3, 6, 4)], -1)
    spaces = head_spaces(maps)
    profile = scale_profile([spaces])
    assert profile.differ
    assert profile.shift(6, 6) == 0
    assert without_profile(spaces, profile).d == 6
