"""Rates of planted series: coverage, the law of linear networks, and what is not a number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.rate_coverage import coverage
from benchmarks.rate_linear import SCHEDULES, UPDATES, cosine, rates, trained_imbalances
from scipy import stats

from flagscope.errors import InputError
from flagscope.series.rates import DecayTime, GroupSchedule, fitted_rate, known_rates, logged_rates
from flagscope.series.rates.scatter import leading_coefficient


def exact(time) -> DecayTime:
    time = np.asarray(time, dtype=float)
    return DecayTime(time, time, time)


def noisy(n: int, size: float, seed: int = 0) -> np.ndarray:
    return np.exp(size * np.random.default_rng(seed).normal(size=n))


@pytest.mark.slow
def test_intervals_cover_95_of_100_planted_rates():
    """200 series; the band is that of a coverage of 93 to 97 % with the chance of 200 draws."""
    answers, share = coverage(0, 200)
    assert answers["rate"] >= 190
    chance = 2 * math.sqrt(0.95 * 0.05 / 200)
    assert 0.93 - chance / 2 <= share <= 0.97 + chance / 2


def test_without_correlation_it_is_the_line_of_least_squares():
    """Alternating scatter leaves all of the weight on independent points."""
    x = np.linspace(0, 3, 60)
    y = 2 - 1.3 * x + 0.1 * np.random.default_rng(3).normal(size=60)
    found, line = leading_coefficient(x, y, order=1, level=0.95), stats.linregress(x, y)
    half = stats.t.ppf(0.975, 58) * line.stderr
    assert found.value == pytest.approx(line.slope, abs=0.02 * half)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.2)
    assert found.high - found.low >= 2 * half * 0.98
    curve = leading_coefficient(x, 0.5 * x**2 - x, order=2, level=0.95)
    assert curve.value == pytest.approx(0.5, rel=1e-9)


def test_with_few_points_a_correlation_that_cannot_be_seen_widens_the_interval():
    x, generator = np.linspace(0, 3, 7), np.random.default_rng(2)
    for _ in range(5):
        y = generator.normal(size=7)
        found, line = leading_coefficient(x, y, order=1, level=0.95), stats.linregress(x, y)
        half = stats.t.ppf(0.975, 5) * line.stderr
        assert found.high - found.low > 1.05 * 2 * half


def test_correlated_scatter_widens_the_interval():
    """A random walk of the same size says less of a slope than independent scatter."""
    x, generator = np.linspace(0, 3, 40), np.random.default_rng(1)
    walk = np.zeros(40)
    for i in range(1, 40):
        walk[i] = 0.9 * walk[i - 1] + math.sqrt(0.19) * generator.normal()
    shuffled = generator.permutation(walk)
    wide, narrow = (
        leading_coefficient(x, 0.05 * e - x, order=1, level=0.95) for e in (walk, shuffled)
    )
    assert wide.correlation > 0.5 > 0.2 > narrow.correlation
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("pair", [0, 1])
def test_linear_networks_fall_at_the_rate_1_in_decay_time(name, pair):
    assert rates(name, [0.01] * 3, pair, range(3)) == pytest.approx(np.ones(3), abs=0.02)


def test_two_groups_have_a_time_each_and_a_pair_between_them_no_law():
    decays = [0.01, 0.01, 0.005, 0.005]
    first, across, last = (rates("cosine", decays, pair, range(3)) for pair in range(3))
    assert first == pytest.approx(np.ones(3), abs=0.02)
    assert last == pytest.approx(np.ones(3), abs=0.02)
    assert not (np.abs(across - 1) <= 0.02).any()


def test_in_steps_the_same_series_has_no_single_rate():
    """Decay time is what makes a cosine's series straight."""
    steps, sizes = trained_imbalances(cosine, [0.01] * 3, [0])
    assert steps[-1] == UPDATES
    wrong = exact(np.array(steps) * 0.002)
    assert fitted_rate(wrong, sizes[:, 0, 0].tolist()).answer == "not-exponential"


def test_what_lies_at_the_floor_is_left_out():
    time = np.linspace(0, 6, 25)
    floor = 0.01
    values = np.hypot(np.exp(-time), floor)
    fit = fitted_rate(exact(time), values, floor=floor)
    assert fit.rate == pytest.approx(1, abs=0.01)
    assert fit.points == int((np.exp(-time) > 0.1).sum())
    assert fitted_rate(exact(time), values).answer == "not-exponential"
    below = fitted_rate(exact(time), values, floor=0.09)
    assert (below.answer, below.rate) == ("unresolved", None)
    assert "floor of storage noise" in below.reason
    # What comes after the first point at the floor is left out, even if chance lifts it.
    values[-1] = 1.0
    assert fitted_rate(exact(time), values, floor=floor).points == fit.points


@pytest.mark.parametrize(
    ("time", "answer", "word"),
    [
        ([0, 0, 0, 0, 0], "no-decay", "0"),
        ([0, 0.5, 1.5], "unresolved", "3 checkpoints"),
        ([0, 0.1, 0.2, 0.3, 0.9], "unresolved", "span 0.9"),
        ([0, 2.1, 4.2, 6.3, 8.4], "unresolved", "1/(ηλ)"),
        ([0, 0.5, 1.0, 1.5], "rate", ""),
        ([0, 1.9, 3.8, 5.7, 7.6], "rate", ""),
    ],
)
def test_what_cannot_be_resolved_is_not_a_number(time, answer, word):
    fit = fitted_rate(exact(time), np.exp(-np.array(time)) * noisy(len(time), 1e-3))
    assert fit.answer == answer
    assert word in fit.reason
    assert (fit.rate is None) == (answer != "rate")


def test_the_longest_run_without_a_gap_is_used():
    """Five points on a logarithmic scale, as the bundled checkpoints are, and a dense part."""
    time = [0, 3, 3.5, 4, 4.5, 5, 9]
    fit = fitted_rate(exact(time), np.exp(-np.array(time)))
    assert (fit.points, fit.span) == (5, 2.0)


@pytest.mark.parametrize(
    "curve",
    [
        lambda t: np.exp(-t) + 0.1,
        lambda t: np.exp(-(t**1.5)),
        lambda t: 1 / (1 + t),
        lambda t: np.exp(t) / (1 + 0.1 * np.exp(t)),
    ],
)
def test_what_bends_is_not_exponential(curve):
    time = np.linspace(0, 4, 25)
    fit = fitted_rate(exact(time), curve(time) * noisy(25, 0.01))
    assert fit.answer == "not-exponential"
    assert fit.rate is None
    slopes = -np.gradient(np.log(curve(time)), time)
    assert fit.ends is not None
    assert np.sign(fit.ends[1] - fit.ends[0]) == np.sign(slopes[-1] - slopes[0])


def test_growth_is_a_negative_rate_and_scatter_alone_includes_zero():
    time = np.linspace(0, 3, 20)
    grown = fitted_rate(exact(time), np.exp(0.5 * time) * noisy(20, 0.01))
    assert grown.rate == pytest.approx(-0.5, abs=0.02)
    flat = fitted_rate(exact(time), noisy(20, 0.1))
    assert flat.low < 0 < flat.high


def test_an_uncertain_schedule_widens_the_interval():
    logged = logged_rates({n: cosine(n) for n in range(1, 1001, 250)}, updates=UPDATES)
    known = known_rates(cosine, updates=UPDATES)
    steps = list(range(0, 751, 50))
    true = GroupSchedule("all", known, 0.02).decay_time(steps)
    values = np.exp(-true.value) * noisy(len(steps), 1e-3)
    sure = fitted_rate(true, values)
    unsure = fitted_rate(GroupSchedule("all", logged, 0.02).decay_time(steps), values)
    assert sure.low <= 1 <= sure.high
    assert unsure.low <= sure.low
    assert sure.high <= unsure.high
    assert unsure.high - unsure.low > 5 * (sure.high - sure.low)


@pytest.mark.parametrize(
    ("time", "values", "floor", "words"),
    [
        ([0, 1, 2, 3], [1, 1, 1], 0.0, "3 values"),
        ([0, 1, 2, 3], [1, 1, -1, 1], 0.0, "not negative"),
        ([0, 1, 2, 3], [1, 1, math.nan, 1], 0.0, "finite"),
        ([0, 1, 2, 3], [1, 1, 1, 1], -1.0, "not negative"),
        ([0, 2, 1, 3], [1, 1, 1, 1], 0.0, "do not ascend"),
        ([0, 1, 1, 3], [1, 1, 1, 1], 0.0, "one decay time"),
    ],
)
def test_what_is_no_series_is_refused(time, values, floor, words):
    with pytest.raises(InputError, match=words):
        fitted_rate(exact(time), values, floor=floor)
