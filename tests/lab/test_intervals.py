"""Intervals against scipy and by coverage; verdicts by their definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from flagscope.errors import InputError
from flagscope.lab.experiment import Estimate
from flagscope.lab.intervals import (
    band_verdict,
    bootstrap_interval,
    joint_ends,
    mean_interval,
    share_interval,
    spearman_interval,
)


def test_the_mean_interval_is_students():
    x = np.random.default_rng(0).normal(3, 2, size=12)
    found = mean_interval("x", x)
    expected = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-13)
    assert found.n == 12


def test_intervals_cover_what_they_should():
    """950 of 1000 intervals hold the truth, within four standard errors."""
    rng = np.random.default_rng(1)
    trials, error = 1000, 4 * np.sqrt(0.95 * 0.05 / 1000)
    means = [mean_interval("", rng.normal(size=5)) for _ in range(trials)]
    assert abs(np.mean([e.low <= 0 <= e.high for e in means]) - 0.95) < error
    ranks = []
    for _ in range(trials):
        x = rng.normal(size=(2, 60))
        ranks.append(spearman_interval("", x[0], 0.75 * x[0] + np.sqrt(1 - 0.75**2) * x[1]))
    truth = 6 / np.pi * np.arcsin(0.75 / 2)
    assert abs(np.mean([e.low <= truth <= e.high for e in ranks]) - 0.95) < error


def test_several_intervals_cover_together_what_one_covers():
    """All of five dependent means of four numbers: 95 % at least; by their own ends far less."""
    rng = np.random.default_rng(5)
    trials, together, own = 2000, 0, 0
    for _ in range(trials):
        x = rng.normal(size=(5, 4)) + 0.5 * rng.normal(size=4)
        estimates = [mean_interval("", row) for row in x]
        ends = [joint_ends(e, 5) for e in estimates]
        together += all(low <= 0 <= high for low, high in ends)
        own += all(e.low <= 0 <= e.high for e in estimates)
    assert together / trials > 0.95 - 4 * np.sqrt(0.95 * 0.05 / trials)
    assert own / trials < 0.9
    assert joint_ends(mean_interval("", [1.0]), 5) is None


def test_a_true_claim_of_many_parts_is_seldom_refuted():
    """Every mean is 0, the edge of the band: at most 2.5 % refutations, however many the parts."""
    rng = np.random.default_rng(6)
    trials, parts = 1000, 8
    verdicts = [
        band_verdict([mean_interval("", row) for row in rng.normal(size=(parts, 5))], 0, np.inf)
        for _ in range(trials)
    ]
    assert verdicts.count("refuted") / trials < 0.025 + 4 * np.sqrt(0.025 * 0.975 / trials)


def test_parts_judged_one_by_one_are_judged_together():
    x = [0.9, 1.0, 1.1]  # 1 ± 0.25 by itself
    assert band_verdict([mean_interval("x", x)], 1.3, 2) == "refuted"
    assert band_verdict([mean_interval("x", x)], 1.3, 2, together=4) == "open"


def test_a_share_has_the_exact_interval():
    found = share_interval("s", [True] * 7 + [False] * 3)
    expected = stats.binomtest(7, 10).proportion_ci(0.95, method="exact")
    assert (found.value, found.low, found.high, found.n) == (0.7, expected.low, expected.high, 10)
    # The rule of three: nothing in n trials leaves some 3/n.
    assert share_interval("s", [False] * 100).high == pytest.approx(0.0362, abs=1e-4)
    with pytest.raises(InputError, match="no trials"):
        share_interval("s", [])


def test_the_rank_correlation_is_scipys():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 20))
    assert spearman_interval("", x, y).value == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    perfect = spearman_interval("", [1, 2, 3, 4], [2, 4, 6, 9])
    assert (perfect.low, perfect.value, perfect.high) == (1, 1, 1)
    assert spearman_interval("", [1, 2, 3], [1, 3, 2]).low is None


def test_the_bootstrap_is_scipys_and_repeats_itself():
    x = np.random.default_rng(3).exponential(size=25)
    found = bootstrap_interval("", x, seed=4)
    expected = stats.bootstrap((x,), np.median, rng=np.random.default_rng(4), vectorized=False)
    low, high = expected.confidence_interval
    assert (found.value, found.low, found.high) == (np.median(x), low, high)
    assert bootstrap_interval("", x, seed=4) == found


def test_one_number_or_a_constant_has_the_interval_it_has():
    assert mean_interval("x", [2.0]) == Estimate("x", 2.0, None, None, 1)
    assert bootstrap_interval("x", [2.0]) == Estimate("x", 2.0, None, None, 1)
    assert bootstrap_interval("x", [2.0, 2.0, 2.0]) == Estimate("x", 2.0, 2.0, 2.0, 3)
    assert mean_interval("x", [2.0, 2.0]).high == 2.0


@pytest.mark.parametrize("bad", [[], [1.0, float("nan")], [[1.0]], [float("inf")]])
def test_what_is_not_a_list_of_numbers_is_refused(bad):
    with pytest.raises(InputError, match="finite numbers"):
        mean_interval("x", bad)


def test_constants_and_unequal_lengths_have_no_rank_correlation():
    with pytest.raises(InputError, match="constant"):
        spearman_interval("x", [1, 1, 1, 1], [1, 2, 3, 4])
    with pytest.raises(InputError, match="cannot be paired"):
        spearman_interval("x", [1, 2], [1, 2, 3])


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ([(0.2, 0.8)], "confirmed"),
        ([(0.0, 1.0)], "confirmed"),
        ([(0.2, 0.8), (0.9, 1.1)], "open"),
        ([(-1.0, 2.0)], "open"),
        ([(0.2, 0.8), (1.1, 1.2)], "refuted"),
        ([(-0.2, -0.1)], "refuted"),
        ([(0.2, 0.8), (None, None)], "open"),
        ([], "open"),
    ],
)
def test_verdicts(ends, verdict):
    # Each of a thousand numbers: the joint ends differ little from these.
    estimates = [Estimate("x", 0.5, low, high, 1000) for low, high in ends]
    assert band_verdict(estimates, 0, 1) == verdict
