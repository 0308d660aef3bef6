"""Printed digits: by hand, by their definition on random numbers, and where it is edgy."""

from __future__ import annotations

import numpy as np
import pytest

from flagscope.lab.digits import interval_text, rounded


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        # Two digits of the half width, 0.25, 0.0571, 0.041.
        ((0.84731, 0.6, 1.1), ("0.85", "0.60", "1.10")),
        ((0.8484, 0.7913, 0.9055), ("0.848", "0.791", "0.906")),
        ((148.298, 106.9, 189.7), ("148", "107", "190")),
        # A half width of 0.0996 is 0.10.
        ((0.1, 0.0004, 0.1996), ("0.10", "0.00", "0.20")),
        # Ends on a bound keep their digits; an asymmetric interval has one half width.
        ((1.0, 0.998278, 1.0), ("1.00000", "0.99828", "1.00000")),
        ((0.0, 0.0, 0.00438), ("0.0000", "0.0000", "0.0044")),
        # Without width: all digits, and no zeros that claim more.
        ((1.0, 1.0, 1.0), ("1", "1", "1")),
        ((-7.0, -7.0, -7.0), ("-7", "-7", "-7")),
        ((1 / 3, 1 / 3, 1 / 3), ("0.333333", "0.333333", "0.333333")),
        ((0.0, 0.0, 0.0), ("0", "0", "0")),
        ((100.0, 100.0, 100.0), ("100", "100", "100")),
        # Narrower than six digits can show.
        ((1.0, 1 - 1e-13, 1 + 1e-13), ("1", "1", "1")),
        ((1.000163, 1.000131, 1.000198), ("1.00016", "1.00013", "1.00020")),
        # Negative numbers; nothing is printed as -0.00.
        ((-12.6218, -13.1612, -12.0824), ("-12.62", "-13.16", "-12.08")),
        ((-0.004, -0.5, 0.5), ("0.00", "-0.50", "0.50")),
        ((-0.0, -1e-5, 1e-5), ("0", "-1.0e-5", "1.0e-5")),
        # Exponents.
        ((1.1759e-27, 9.61517e-28, 1.39028e-27), ("1.18e-27", "9.6e-28", "1.39e-27")),
        ((1.5e300, 1e300, 2e300), ("1.50e+300", "1.00e+300", "2.00e+300")),
        ((5e-324, 0.0, 1e-323), ("5.0e-324", "0", "1.00e-323")),
        ((1234567.0, 1234000.0, 1235000.0), ("1.23457e+6", "1.23400e+6", "1.23500e+6")),
        ((148298.0, 106900.0, 189700.0), ("148000", "107000", "190000")),
        # Nothing known of the digits.
        ((0.123456, None, None), ("0.123", "", "")),
        ((123456789.0, None, None), ("1.23e+8", "", "")),
        ((0.5, None, None), ("0.5", "", "")),
        ((0.0, None, None), ("0", "", "")),
    ],
)
def test_digits_by_hand(estimate, expected):
    assert rounded(*estimate) == expected


def test_rounding_moves_little_and_keeps_the_order():
    """By no more than half a unit: a twentieth of the half width, or six digits of the number."""
    rng = np.random.default_rng(0)
    for _ in range(3000):
        size, width = 10.0 ** rng.uniform(-30, 30), 10.0 ** rng.uniform(-9, 1)
        value = float(rng.normal()) * size
        low, high = value - size * width * rng.uniform(), value + size * width * rng.uniform()
        texts = rounded(value, low, high)
        shown = [float(text) for text in texts]
        assert shown[1] <= shown[0] <= shown[2]
        allowed = max((high - low) / 2 / 20, 1e-5 * max(map(abs, (value, low, high))) / 2)
        for text, exact in zip(shown, (value, low, high), strict=True):
            assert abs(text - exact) <= allowed * (1 + 1e-9)
        assert not any(text.startswith("-0") and float(text) == 0 for text in texts)


def test_all_three_end_at_one_place():
    rng = np.random.default_rng(1)
    for _ in range(500):
        value, half = float(rng.uniform(-50, 50)), float(10.0 ** rng.uniform(-2, 1))
        places = {
            len(text.partition(".")[2]) for text in rounded(value, value - half, value + half)
        }
        assert len(places) == 1


def test_the_interval_in_a_line():
    assert interval_text(0.84731, 0.6, 1.1) == "0.85 [0.60, 1.10]"
    assert interval_text(2.0, None, None) == "2"
