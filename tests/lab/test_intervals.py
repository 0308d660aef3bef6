"""Intervals against scipy and by coverage; verdicts by their definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from flagscope.errors import InputError
from flagscope.lab.experiment import Estimate
from flagscope.lab.intervals import (
    CORRELATION,
    SHARE,
    band_verdict,
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


def test_rank_correlations_of_few_pairs_are_covered_a_little_too_well():
    """Bonett and Wright's variance has n - 3: with n - 2 fewer than 95 % are covered at n = 7."""
    rng = np.random.default_rng(2)
    covered = []
    for rho in (0.0, 0.5):
        truth = 6 / np.pi * np.arcsin(rho / 2)
        for x, noise in rng.normal(size=(2000, 2, 7)):
            found = spearman_interval("", x, rho * x + np.sqrt(1 - rho**2) * noise)
            covered.append(found.low <= truth <= found.high)
    assert 0.955 < np.mean(covered) < 0.975


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


def test_a_bounded_mean_has_the_interval_of_its_logit():
    """By statsmodels' and Stata's formula, written out; correlations on Fisher's scale."""
    x = np.random.default_rng(7).beta(8, 1, size=6)
    found = mean_interval("x", x, bounds=SHARE)
    logit = np.log(x.mean() / (1 - x.mean()))
    half = stats.t.ppf(0.975, 5) * stats.sem(x) / (x.mean() * (1 - x.mean()))
    ends = [1 / (1 + np.exp(-(logit + sign * half))) for sign in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-12)
    moved = mean_interval("x", 2 * x - 1, bounds=CORRELATION)
    assert (moved.low, moved.high) == pytest.approx([2 * end - 1 for end in ends], rel=1e-12)
    fisher = np.arctanh(moved.value) + half / 2
    assert moved.high == pytest.approx(np.tanh(fisher), rel=1e-12)


@pytest.mark.parametrize("shape", [(2.0, 2.0), (9.0, 1.0), (50.0, 1.0), (0.5, 0.5)])
def test_bounded_intervals_cover_and_stay_within(shape):
    """At least 92 % of them at 6 seeds, and never fewer than of Student's, less sampling error."""
    rng = np.random.default_rng(8)
    truth, trials = shape[0] / sum(shape), 2000
    error = 4 * np.sqrt(0.08 * 0.92 / trials)
    draws = rng.beta(*shape, size=(trials, 6))
    bounded = [mean_interval("", row, bounds=SHARE) for row in draws]
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in bounded)
    covered = np.mean([e.low <= truth <= e.high for e in bounded])
    students = np.mean([e.low <= truth <= e.high for e in (mean_interval("", r) for r in draws)])
    assert covered > max(0.92, students) - error


def test_joint_ends_stay_within_the_bounds():
    for values in ([0.9, 1.0, 1.0], [0.5, 0.97, 0.99], [1 - 1e-15, 1.0], [0.0, 1e-300]):
        low, high = joint_ends(mean_interval("x", values, bounds=SHARE), 40)
        assert 0 <= low <= np.mean(values) <= high <= 1
    estimate = mean_interval("x", [0.9, 0.95, 0.97, 0.99], bounds=SHARE)
    assert joint_ends(estimate, 1) == pytest.approx((estimate.low, estimate.high), rel=1e-12)
    nine = share_interval("s", [True] * 9 + [False])
    exact = stats.binomtest(9, 10).proportion_ci(1 - 0.05 / 4)
    assert joint_ends(nine, 4) == (exact.low, exact.high)


def test_numbers_on_a_bound_have_no_width_and_beyond_it_are_refused():
    assert mean_interval("x", [1.0, 1.0, 1.0], bounds=SHARE).low == 1
    assert joint_ends(mean_interval("x", [1.0, 1.0], bounds=SHARE), 5) == (1, 1)
    # Rounding alone carries a sum of squared cosines past 1.
    assert mean_interval("x", [1.0, 1 + 1e-15], bounds=SHARE).value == 1
    with pytest.raises(InputError, match="cannot lie in"):
        mean_interval("x", [0.5, 1.01], bounds=SHARE)


def test_a_share_has_the_exact_interval():
    found = share_interval("s", [True] * 7 + [False] * 3)
    expected = stats.binomtest(7, 10).proportion_ci(0.95, method="exact")
    assert (found.value, found.low, found.high, found.n) == (0.7, expected.low, expected.high, 10)
    # The rule of three: nothing in n trials leaves some 3/n.
    assert share_interval("s", [False] * 100).high == pytest.approx(0.0362, abs=1e-4)
    with pytest.raises(InputError, match="at least one trial"):
        share_interval("s", [])


def test_the_rank_correlation_is_scipys():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 20))
    assert spearman_interval("", x, y).value == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)
    perfect = spearman_interval("", [1, 2, 3, 4], [2, 4, 6, 9])
    assert (perfect.low, perfect.value, perfect.high) == (1, 1, 1)
    assert spearman_interval("", [1, 2, 3], [1, 3, 2]).low is None
    assert spearman_interval("", [1, 2, 3, 4], [1, 3, 2, 4]).low is not None


def test_one_number_or_a_constant_has_the_interval_it_has():
    assert mean_interval("x", [2.0]) == Estimate("x", 2.0, None, None, 1)
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
