from __future__ import annotations

import math

import mpmath
import pytest
from scipy import special, stats

from flagscope.null import tails


@pytest.mark.parametrize(
    ("x", "a", "b"),
    [(0.3, 0.5, 9.5), (1e-9, 512.0, 5632.0), (1e-3, 30.0, 20.0), (0.05, 900.0, 80.0)],
)
def test_beta_tails_agree_with_mpmath_however_far_out(x, a, b):
    with mpmath.workdps(40):
        exact = float(mpmath.log(mpmath.betainc(a, b, 0, x, regularized=True)))
    assert tails.log_beta_tails(x, a, b)[0] == pytest.approx(exact, rel=1e-11)
    # 1 - x rounds, so the mirrored tail is compared where the rounding leaves x.
    shift = a * math.log((1 - (1 - x)) / x)
    assert tails.log_beta_tails(1 - x, b, a)[1] == pytest.approx(exact + shift, rel=1e-10)


@pytest.mark.parametrize(
    ("k", "delta"),
    [(4.0, 300.0), (36982.0, 0.931), (2.5, 0.1), (150.0, 9.0), (1e6, 0.05), (0.5, 2e3)],
)
def test_upper_gamma_tail_agrees_with_mpmath(k, delta):
    with mpmath.workdps(40):
        x = mpmath.mpf(k) * (1 + mpmath.mpf(delta))
        exact = float(mpmath.log(mpmath.gammainc(k, x, mpmath.inf, regularized=True)))
    assert tails.log_gamma_tails(k, delta)[1] == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize(("k", "delta"), [(150.0, -0.9999), (400.0, -0.99), (3.0, -0.5)])
def test_lower_gamma_tail_agrees_with_mpmath(k, delta):
    with mpmath.workdps(60):
        x = mpmath.mpf(k) * (1 + mpmath.mpf(delta))
        exact = float(mpmath.log(mpmath.gammainc(k, 0, x, regularized=True)))
    assert tails.log_gamma_tails(k, delta)[0] == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("z", [0.0, 3.0, 40.0, 318.0])
def test_normal_tail_agrees_with_mpmath(z):
    with mpmath.workdps(30):
        exact = float(mpmath.log(mpmath.erfc(mpmath.mpf(z) / mpmath.sqrt(2)) / 2))
    assert tails.log_normal_tails(z)[1] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("skewness", [0.01, 0.3, 1.5, 2.8])
@pytest.mark.parametrize("z", [-0.3, 0.0, 2.0, 5.0])
def test_pearson3_agrees_with_scipy(skewness, z):
    log_cdf, log_sf = tails.log_pearson3_tails(z, skewness)
    assert math.exp(log_sf) == pytest.approx(stats.pearson3.sf(z, skewness), rel=1e-9)
    assert math.exp(log_cdf) == pytest.approx(stats.pearson3.cdf(z, skewness), rel=1e-9)
    assert tails.log_pearson3_tails(-z, -skewness) == (log_sf, log_cdf)


@pytest.mark.parametrize("skewness", [0.0, 1e-7, 0.01, 0.3, 1.5])
def test_pearson3_stays_finite_and_monotone_beyond_its_thin_end(skewness):
    points = [-300.0, -30.0, -8.0, -4.0, -3.2, -2.9, -1.0, 0.0]
    lower = [tails.log_pearson3_tails(z, skewness)[0] for z in points]
    assert all(math.isfinite(value) for value in lower)
    assert lower == sorted(lower)
    # The heavier of the two laws at hand: never below the normal tail's decay.
    assert lower[0] >= tails.log_normal_tails(-300.0)[0] * 1.01


def test_pearson3_is_continuous_where_the_thin_side_is_continued():
    shape = 4 / 0.3**2
    z = (special.gammaincinv(shape, 1e-3) - shape) / math.sqrt(shape)
    low, high = (tails.log_pearson3_tails(z + step, 0.3)[0] for step in (-1e-9, 1e-9))
    assert low == pytest.approx(high, abs=1e-7)
