from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from flagscope.errors import InputError
from flagscope.null import (
    FreeDimensions,
    count_beyond_chance,
    free_dimensions,
    largest_cosine_significance,
    largest_cosine_threshold,
)
from null import sampling

# Whether the law is exact there, or Johnstone's or the hard edge's approximation to it.
SETTINGS = [
    (1, 1, 2, True), (1, 3, 8, True), (7, 6, 8, True), (2, 3, 6, True), (6, 8, 15, True),
    (2, 2, 4, False), (3, 3, 6, False), (8, 8, 16, False), (5, 4, 7, False), (5, 5, 6, True),
    (2, 2, 6, False), (3, 5, 10, False), (2, 10, 14, False), (6, 8, 24, False),
    (8, 8, 18, False), (8, 12, 40, False), (40, 12, 45, False),
]  # fmt: skip


@pytest.mark.parametrize(("p", "q", "d", "exact"), SETTINGS)
def test_threshold_has_its_size(p, q, d, exact):
    n = 10_000
    forced = max(0, p + q - d)
    largest = sampling.cosines(n, min(p, q), max(p, q), d, seed=p + 50 * q + d)[:, forced]
    for level in (0.05, 0.01):
        threshold = largest_cosine_threshold(p, q, d, level=level)
        low = level if exact else 0.5 * level
        sampling.assert_size(largest > threshold, low, level if exact else 1.14 * level)


@pytest.mark.parametrize(("p", "q", "d", "exact"), SETTINGS)
def test_test_and_threshold_agree(p, q, d, exact):
    for level in (0.05, 0.01, 1e-3):
        threshold = largest_cosine_threshold(p, q, d, level=level)
        result = largest_cosine_significance(threshold, p, q, d)
        # Beyond 5 % the tail may be continued by its power law, to the large side.
        assert result.p >= level * (1 - 1e-6)
        assert result.p == pytest.approx(level, rel=1e-6 if exact or level > 0.01 else 9)


def plane_tail(square: float, q: int, d: int) -> float:
    """P(cos²_max > square) for p = 2 by the joint density of both squared cosines."""
    a, b = (q - 3) / 2, (d - q - 3) / 2

    def density(y: float, x: float) -> float:
        return (x - y) * (x * y) ** a * ((1 - x) * (1 - y)) ** b

    def mass(low: float, high: float) -> float:
        return integrate.dblquad(density, low, high, 0, lambda x: x, epsrel=1e-9, epsabs=0)[0]

    return mass(square, 1) / mass(0, 1)


@pytest.mark.parametrize(("q", "d"), [(4, 7), (3, 6)])
def test_gap_of_one_is_exact(q, d):
    for cosine in (0.5, 0.9, 0.999):
        result = largest_cosine_significance(cosine, 2, q, d)
        assert result.p == pytest.approx(plane_tail(cosine**2, q, d), rel=1e-5)


@pytest.mark.parametrize(("q", "d"), [(3, 10), (5, 16), (9, 24)])
def test_far_tail_is_never_too_small_by_much(q, d):
    for rest in (0.1, 1e-2, 1e-4):
        exact = plane_tail(1 - rest, q, d)
        ours = largest_cosine_significance(math.sqrt(1 - rest), 2, q, d, sine=math.sqrt(rest)).p
        assert ours > 0.3 * exact


def test_tail_has_the_exponent_of_the_exact_law_near_one():
    p, q, d = 3, 6, 20
    logs = [
        largest_cosine_significance(1.0, p, q, d, sine=sine).log10_p for sine in (1e-4, 1e-8, 1e-12)
    ]
    assert logs[0] - logs[1] == pytest.approx(4 * (d - p - q + 1), rel=1e-6)
    assert logs[1] - logs[2] == pytest.approx(4 * (d - p - q + 1), rel=1e-6)


@pytest.mark.parametrize(("p", "q", "d"), [(1, 4, 9), (2, 4, 7), (3, 3, 6), (4, 6, 24)])
def test_significance_is_monotone_and_finite_everywhere(p, q, d):
    values = [
        largest_cosine_significance(c, p, q, d).log10_p
        for c in (0, 0.2, 0.6, 0.9, 0.99, 1 - 1e-9, 1)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(0.0, abs=1e-3)
    assert all(math.isfinite(value) for value in values)


def test_a_line_uses_the_sine_where_it_is_given():
    result = largest_cosine_significance(1.0, 1, 4, 64, sine=1e-12)
    exact = -24 * 30 + math.log10(31)  # I_x(30, 2) = x³⁰ (31 - 30x)
    assert result.log10_p == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize(("p", "q", "d"), [(5, 2, 5), (2, 5, 5), (1, 1, 1), (0, 3, 5)])
def test_nothing_is_left_to_chance(p, q, d):
    assert largest_cosine_threshold(p, q, d, level=0.05) is None
    assert "no freedom" in largest_cosine_significance(1.0, p, q, d).status
    assert count_beyond_chance([1.0] * min(p, q), p, q, d) is None


def test_free_dimensions():
    assert free_dimensions(4, 3, 10) == FreeDimensions(0, 3, 4, 10)
    assert free_dimensions(9, 3, 10) == FreeDimensions(2, 1, 7, 10)
    assert free_dimensions(10, 3, 10) == FreeDimensions(3, 0, 7, 10)


def test_forced_cosines_equal_those_of_the_complements():
    full = torch.linalg.qr(sampling.bases(1, 9, 9, seed=5)[0]).Q
    v, v_rest = full[:, :6], full[:, 6:]
    cosines = torch.linalg.svdvals(v[:5])
    rest = torch.linalg.svdvals(v_rest[5:])
    torch.testing.assert_close(cosines[:2], torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(cosines[2:], rest[:3])


@pytest.mark.parametrize(
    ("p", "q", "d", "k", "planted"),
    [
        (4, 6, 24, 2, 1.0),
        (4, 6, 24, 2, 0.999),
        (6, 6, 40, 3, 1.0),
        (5, 4, 7, 3, 1.0),
        (8, 8, 64, 4, 0.99),
    ],
)
def test_planted_directions_are_counted_and_no_more(p, q, d, k, planted):
    n = 4_000
    forced = max(0, p + q - d)
    # k pairs of directions at the planted cosine; the rest of V Haar in what V's first k leave.
    v = torch.zeros(n, d, p, dtype=torch.float64)
    u = torch.zeros(n, d, q, dtype=torch.float64)
    for i in range(k):
        v[:, i, i] = 1.0
        u[:, i, i], u[:, d - 1 - i, i] = planted, math.sqrt(1 - planted**2)
    v[:, k:, k:] = sampling.bases(n, d - k, p - k, seed=p + d)
    extra = sampling.bases(n, d, q, seed=q + 7 * d)[:, :, k:]
    first = u[:, :, :k]
    u[:, :, k:] = torch.linalg.qr(extra - first @ (first.mT @ extra)).Q
    values = torch.linalg.svdvals(v.mT @ u).clamp(max=1.0).numpy()
    for level in (0.05, 0.01):
        counts = np.array(
            [count_beyond_chance(row, p, q, d, level=level) for row in values.tolist()]
        )
        expected = k - forced if planted == 1.0 else k
        assert (counts >= expected).mean() > 0.99
        sampling.assert_size(counts > expected, 0.2 * level, 1.2 * level)


def test_exact_directions_count_without_being_tested():
    # 0.9 alone is chance in these dimensions, and 0.99999 is known to be shared.
    assert count_beyond_chance([0.99999, 0.3], 2, 2, 5, level=1e-9) == 0
    assert count_beyond_chance([0.99999, 0.3], 2, 2, 5, level=1e-9, exact=1) == 1
    assert count_beyond_chance([1.0, 1.0, 0.1], 3, 4, 6, exact=2) == 1
    assert count_beyond_chance([1.0, 1.0], 2, 3, 9, exact=2) == 2


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="cosines"):
        count_beyond_chance([0.5], 2, 2, 5)
    with pytest.raises(InputError, match="intersection"):
        count_beyond_chance([0.5, 0.5], 2, 2, 5, exact=3)
    with pytest.raises(InputError, match="level"):
        largest_cosine_threshold(2, 2, 5, level=0)
    for cosine in (1.1, -0.1, math.nan):
        with pytest.raises(InputError, match="cosine"):
            largest_cosine_significance(cosine, 2, 2, 5)
