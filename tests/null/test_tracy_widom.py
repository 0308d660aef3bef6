from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import integrate, special

from flagscope.errors import InputError
from flagscope.null import tracy_widom_log_sf, tracy_widom_quantile
from flagscope.null.tracy_widom import fredholm_log_sf


def painleve_sf(points: np.ndarray) -> np.ndarray:
    """1 - F_1 from the Hastings-McLeod solution of q'' = xq + 2q³, q ~ Ai."""
    start = 7.0
    airy, slope, _, _ = special.airy(start)
    # ∫q, ∫q² and ∫∫q² beyond the start, where q is the Airy function to 1e-10
    beyond = [
        integrate.quad(lambda x: special.airy(x)[0], start, 30)[0],
        integrate.quad(lambda x: special.airy(x)[0] ** 2, start, 30)[0],
        integrate.quad(lambda x: (x - start) * special.airy(x)[0] ** 2, start, 30)[0],
    ]
    solution = integrate.solve_ivp(
        lambda x, y: [y[1], x * y[0] + 2 * y[0] ** 3, -y[0], -(y[0] ** 2), -y[3]],
        (start, points[-1]),
        [airy, slope, *beyond],
        t_eval=points,
        method="DOP853",
        rtol=1e-13,
        atol=1e-18,
    )
    return -np.expm1(-0.5 * (solution.y[2] + solution.y[4]))


def test_agrees_with_painleve():
    points = np.array([6.0, 4.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0, -4.0])
    ours = np.exp([tracy_widom_log_sf(s) for s in points])
    np.testing.assert_allclose(ours, painleve_sf(points), rtol=1e-7)


@pytest.mark.parametrize(
    ("level", "quantile"), [(0.05, 0.979316), (0.01, 2.023449), (0.001, 3.272196), (0.5, -1.268575)]
)
def test_published_quantiles(level, quantile):
    assert tracy_widom_quantile(level) == pytest.approx(quantile, abs=2e-5)
    assert tracy_widom_log_sf(tracy_widom_quantile(level)) == pytest.approx(
        math.log(level), rel=1e-9
    )


def test_published_mean_and_variance():
    s = np.linspace(-9.9, 12, 8001)
    survival = np.exp([tracy_widom_log_sf(x) for x in s])
    mean = s[0] + integrate.simpson(survival, x=s)
    second = s[0] ** 2 + integrate.simpson(2 * s * survival, x=s)
    assert mean == pytest.approx(-1.2065335745820, abs=1e-8)
    assert second - mean**2 == pytest.approx(1.607781034581, abs=1e-7)


@pytest.mark.parametrize("s", [8.0, 20.0, 300.0, 1e4])
def test_far_tail_against_mpmath(s):
    with mpmath.workdps(30):
        width = 40 / mpmath.sqrt(s)
        tail = mpmath.quad(mpmath.airyai, [s, s + width / 8, s + width / 2, s + width])
        exact = float(mpmath.log(tail / 2))
    assert tracy_widom_log_sf(s) == pytest.approx(exact, rel=1e-9)


def test_interpolation_and_pieces_join():
    for s in np.linspace(-9.9, 7.99, 23):
        assert tracy_widom_log_sf(float(s)) == pytest.approx(
            fredholm_log_sf(float(s), nodes=90), abs=2e-10
        )
    for joint in (-10.0, 8.0, 2e5):
        below, above = tracy_widom_log_sf(joint * (1 - 1e-13)), tracy_widom_log_sf(joint)
        assert below == pytest.approx(above, rel=1e-8, abs=1e-10)


def test_extreme_levels():
    assert tracy_widom_log_sf(-50.0) == 0.0
    assert math.isfinite(tracy_widom_log_sf(1e12))
    assert tracy_widom_log_sf(tracy_widom_quantile(1e-300)) == pytest.approx(-690.7755, abs=1e-3)
    assert tracy_widom_quantile(1 - 1e-12) < -6


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_levels_outside_the_unit_interval_are_refused(level):
    with pytest.raises(InputError):
        tracy_widom_quantile(level)
