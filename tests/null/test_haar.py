from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from flagscope.errors import InputError
from flagscope.null import haar_overlap, overlap_significance
from flagscope.null.pillai import log_overlap_tails
from null import sampling

DIMENSIONS = [
    (1, 1, 2), (1, 2, 3), (1, 3, 8), (2, 2, 4), (2, 3, 5), (2, 5, 6), (3, 3, 6), (3, 4, 9),
    (5, 4, 7), (4, 8, 24), (8, 8, 18), (10, 12, 40),
]  # fmt: skip


@pytest.mark.parametrize(("p", "q", "d"), DIMENSIONS)
def test_moments_agree_with_haar_draws(p, q, d):
    total = (sampling.cosines(20_000, p, q, d, seed=p + 10 * q + 100 * d) ** 2).sum(1)
    moments = haar_overlap(p, q, d)
    centred = total - moments.mean
    sampling.assert_mean(total, moments.mean)
    sampling.assert_mean(centred**2, moments.variance)
    sampling.assert_mean(centred**3, moments.third)


@pytest.mark.parametrize(("q", "d"), [(1, 2), (1, 9), (3, 8), (7, 8), (40, 64)])
def test_a_line_has_the_moments_of_its_beta_law(q, d):
    law = stats.beta(q / 2, (d - q) / 2)
    mean, variance, skewness = law.stats("mvs")
    moments = haar_overlap(1, q, d)
    assert moments.mean == pytest.approx(mean, rel=1e-12)
    assert moments.variance == pytest.approx(variance, rel=1e-12)
    assert moments.skewness == pytest.approx(skewness, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("d", [1, 2, 3, 17])
def test_dimensions_that_fix_the_overlap(d):
    for p, q in ((0, d), (d, d), (1, d), (d, 1), (0, 0)):
        assert haar_overlap(p, q, d).variance == 0.0
        result = overlap_significance(float(min(p, q)), p, q, d)
        assert result.z is result.p is result.log10_p is None
        assert "no freedom" in result.status


SMALL = [(3, 3, 7), (4, 4, 8), (3, 4, 7), (3, 3, 12), (4, 4, 9), (5, 5, 10), (3, 5, 8)]


@pytest.mark.parametrize(("p", "q", "d"), DIMENSIONS + SMALL)
def test_overlap_test_has_its_size(p, q, d):
    n = 20_000
    total = (sampling.cosines(n, p, q, d, seed=7 + p + 10 * q + 100 * d) ** 2).sum(1)
    exact = min(p, q, d - p, d - q) <= 2
    for level in (0.05, 0.01, 0.001):
        shares = sampling.tail_shares(
            lambda value: overlap_significance(value, p, q, d).p, total, level, center=p * q / d
        )
        least, most = (1.0, 1.0) if exact else (0.85, 1.2 if level < 0.05 else 1.1)
        sampling.assert_share(sum(shares), n, least * level, most * level)


@pytest.mark.parametrize(("p", "q", "d"), [(3, 3, 6), (5, 8, 20), (32, 32, 384)])
def test_law_is_continuous_where_the_beta_law_takes_over(p, q, d):
    totals = np.linspace(0, p, 400)[1:-1]
    tails = np.array([log_overlap_tails(float(total), p, q, d) for total in totals])
    assert (np.diff(tails[:, 0]) >= 0).all()
    assert (np.diff(tails[:, 1]) <= 0).all()
    # No jump: second differences of the tails' logarithms stay small beside their slopes.
    for tail in tails.T:
        slopes = np.abs(np.diff(tail[(tail > -40) & (tail < -2)]))
        assert np.abs(np.diff(slopes)).max() < 0.35 * slopes.max()


@pytest.mark.parametrize(("q", "d"), [(2, 4), (3, 7), (4, 20), (10, 40)])
@pytest.mark.parametrize("total", [0.3, 0.8, 1.2, 1.7])
def test_law_for_planes_agrees_with_its_density(q, d, total):
    def density(x: float, s: float) -> float:
        y = s - x
        if not 0.0 < y < x < 1.0:
            return 0.0
        return (x - y) * (x * y) ** ((q - 3) / 2) * ((1 - x) * (1 - y)) ** ((d - q - 3) / 2)

    def slice_at(s: float) -> float:
        # A sine removes the square roots at the end.
        half = min(s, 2 - s) / 2
        return integrate.quad(
            lambda a: density(s / 2 + half * math.sin(a), s) * half * math.cos(a),
            0, math.pi / 2, epsrel=1e-9,
        )[0]  # fmt: skip

    whole = sum(integrate.quad(slice_at, *ends, epsrel=1e-8)[0] for ends in ((0, 1), (1, 2)))
    if total < 1:
        part = whole - integrate.quad(slice_at, 0, total, epsrel=1e-8)[0]
    else:
        part = integrate.quad(slice_at, total, 2, epsrel=1e-8)[0]
    log_cdf, log_sf = log_overlap_tails(total, 2, q, d)
    assert math.exp(log_sf) == pytest.approx(part / whole, rel=2e-6)
    assert math.exp(log_sf) + math.exp(log_cdf) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("d", [4, 100, 1000, 10**5])
def test_a_plane_against_half_a_space_overlaps_by_more_than_1_half_the_time(d):
    """Its complement overlaps by as much as half a space does: T and 2 - T have one law."""
    for tail in log_overlap_tails(1.0, 2, d // 2, d):
        assert tail == pytest.approx(-math.log(2), rel=1e-9)


@pytest.mark.parametrize(("q", "d"), [(1, 10), (5, 4096), (20, 64)])
def test_a_line_against_scipy(q, d):
    for x in (0.01, 0.3, 0.7):
        law = stats.beta(q / 2, (d - q) / 2)
        log_cdf, log_sf = log_overlap_tails(x, 1, q, d)
        assert math.exp(log_cdf) == pytest.approx(law.cdf(x), rel=1e-10)
        assert math.exp(log_sf) == pytest.approx(law.sf(x), rel=1e-10)


@pytest.mark.parametrize(("p", "q", "d"), [(1, 3, 8), (2, 5, 12), (4, 3, 9), (6, 6, 15)])
def test_law_is_the_same_for_complements_and_for_exchange(p, q, d):
    total = 0.7 * p * q / d + 0.3 * max(0, p + q - d)
    reference = log_overlap_tails(total, p, q, d)
    assert log_overlap_tails(total, q, p, d) == reference
    shifted = log_overlap_tails(total + d - p - q, d - p, d - q, d)
    assert shifted == pytest.approx(reference, rel=1e-9)
    mirrored = log_overlap_tails(p - total, p, d - q, d)
    assert mirrored[::-1] == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize(("p", "q", "d"), [(1, 2, 9), (2, 5, 4096), (32, 32, 384), (30, 40, 64)])
def test_ends_of_the_range_are_finite_and_far_out(p, q, d):
    for total in (min(p, q), max(0, p + q - d)):
        result = overlap_significance(float(total), p, q, d)
        assert math.isfinite(result.log10_p)
        assert result.log10_p < -5
    assert overlap_significance(min(p, q) * (1 + 1e-6), p, q, d).log10_p < -5


@pytest.mark.parametrize(("p", "q", "d"), [(-1, 2, 4), (5, 2, 4), (1, 1, 0), (1.5, 2, 4)])
def test_impossible_dimensions_are_refused(p, q, d):
    with pytest.raises(InputError):
        haar_overlap(p, q, d)


def test_impossible_values_are_refused():
    with pytest.raises(InputError, match="no sum of squared cosines"):
        overlap_significance(3.5, 3, 4, 12)
    with pytest.raises(InputError, match="no sum of squared cosines"):
        overlap_significance(math.nan, 3, 4, 12)
