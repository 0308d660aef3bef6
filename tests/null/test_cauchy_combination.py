from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import stats

from flagscope.errors import InputError
from flagscope.null import cauchy_combination


def exact_log10(log10_p: list[float], weights: list[float]) -> float:
    """The combination in 60 digits, p-values above .99 taken as that."""
    with mpmath.workdps(60 + int(-min(log10_p))):
        p = [min(mpmath.mpf(10) ** value, mpmath.mpf("0.99")) for value in log10_p]
        total = mpmath.fsum(weights)
        statistic = sum(
            w / total / mpmath.tan(mpmath.pi * q) for w, q in zip(weights, p, strict=True)
        )
        # Beyond the middle the arctangent is that of the negative side.
        tail = mpmath.acot(statistic) / mpmath.pi
        return float(mpmath.log10(tail if tail > 0 else 1 + tail))


@pytest.mark.parametrize("seed", range(8))
def test_is_the_cauchy_tail_of_the_mean_quantile(seed):
    rng = np.random.default_rng(seed)
    p, weights = rng.uniform(0, 0.99, 5) ** 3, rng.uniform(0.1, 1, 5)
    found = cauchy_combination(np.log10(p).tolist(), weights.tolist())
    mean = np.average(stats.cauchy.isf(p), weights=weights)
    assert 10**found.log10_p == pytest.approx(stats.cauchy.sf(mean), rel=1e-10)
    assert found.strongest == int(np.argmin(p / weights))


@pytest.mark.parametrize(
    "log10_p",
    [
        [-9.0, -7.7, -8.0001, -7.9999],  # on both sides of where cotangents become 1/(πp)
        [-7.99, -7.99],
        [-8.01, -0.5],
        [-300.0, -310.0, -1.0],
        [-4000.0, -3999.0, -4000.3, -12.0, 0.0],
        [0.0, 0.0, -0.001],
        [-1e-9, -2.0],
    ],
)
def test_small_and_large_p_values_against_many_digits(log10_p):
    weights = [0.5, 0.3, 0.1, 0.05, 0.05][: len(log10_p)]
    found = cauchy_combination(log10_p, weights).log10_p
    assert found == pytest.approx(exact_log10(log10_p, weights), rel=1e-10, abs=1e-12)


def test_one_test_alone_and_equal_ones_are_themselves():
    for value in (-5000.0, -8.0, -3.0, -0.2):
        assert cauchy_combination([value], [7.0]).log10_p == pytest.approx(value, rel=1e-12)
        assert cauchy_combination([value] * 3, [1, 2, 3]).log10_p == pytest.approx(value, rel=1e-9)


def test_a_test_that_finds_nothing_costs_its_weight_and_no_more():
    # Bonferroni's p at this weight, whatever the other says; p = 1 counts as .99.
    for other in (-0.3, 0.0):
        found = cauchy_combination([-30.0, other], [0.25, 0.75]).log10_p
        assert found == pytest.approx(-30 + math.log10(4), rel=1e-12)


DRAWS = 40_000


@pytest.mark.parametrize("tests", [2, 6, 10])
@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
def test_size_of_independent_and_of_equal_tests(tests, level):
    rng = np.random.default_rng(tests)
    weights = np.r_[0.5, np.full(tests - 1, 0.5 / (tests - 1))].tolist()
    draws = int(min(DRAWS, 40 / level))
    independent = np.log10(rng.uniform(size=(draws, tests)))
    for sample in (independent, np.repeat(independent[:, :1], tests, axis=1)):
        found = [cauchy_combination(row.tolist(), weights).log10_p for row in sample]
        share = np.mean(np.array(found) <= math.log10(level))
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / draws)


@pytest.mark.parametrize("correlation", [-0.9, 0.3, 0.7, 0.95])
def test_size_of_dependent_two_sided_tests(correlation):
    """No theorem for these at .05: measured, the size stays within a tenth of it."""
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((DRAWS // 4, 1))
    own = rng.standard_normal((DRAWS // 4, 5))
    signs = np.sign(correlation) ** np.arange(5)
    z = abs(correlation) ** 0.5 * shared * signs + (1 - abs(correlation)) ** 0.5 * own
    log10_p = np.log10(2 * stats.norm.sf(abs(z)))
    found = np.array([cauchy_combination(row.tolist(), [1.0] * 5).log10_p for row in log10_p])
    for level in (0.05, 0.01):
        slack = 4 * math.sqrt(level / len(found))
        assert np.mean(found <= math.log10(level)) < 1.1 * level + slack


@pytest.mark.parametrize(
    ("log10_p", "weights"),
    [([], []), ([-1.0], [1.0, 1.0]), ([-1.0], [0.0]), ([0.1], [1.0]), ([math.nan], [1.0])],
)
def test_what_cannot_be_combined_is_refused(log10_p, weights):
    with pytest.raises(InputError):
        cauchy_combination(log10_p, weights)
