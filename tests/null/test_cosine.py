"""Law of the cosine of independent vectors, and of equal signs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flagscope.errors import InputError
from flagscope.null.cosine import cosine_significance, log10_upper_tail, sign_agreement


@pytest.mark.parametrize("entries", [2, 3, 10, 1000])
def test_the_tail_is_that_of_students_law(entries):
    """cos √(n-1) / √(1 - cos²) follows Student's t with n - 1 degrees of freedom."""
    for cosine in (-0.9, -0.1, 0.0, 0.05, 0.3, 0.9):
        t = cosine * math.sqrt((entries - 1) / (1 - cosine**2))
        expected = stats.t.sf(t, entries - 1)
        assert cosine_significance(cosine, entries).p == pytest.approx(expected, rel=1e-9)


def test_the_size_of_the_test_is_its_level():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 20000, 40))
    cosines = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    share = np.mean([cosine_significance(float(c), 40).p < 0.05 for c in cosines])
    assert abs(share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 20000)


def test_far_tails_stay_finite():
    law = cosine_significance(1.0, 10**8)
    assert law.p == 0.0
    assert math.isfinite(law.log10_p)
    assert law.log10_p < -(10**8)
    assert cosine_significance(0.5, 10**7).log10_p == pytest.approx(
        stats.norm.logsf(0.0) / math.log(10) + 5e6 * math.log10(0.75), rel=1e-3
    )


@pytest.mark.parametrize(("cosine", "entries"), [(1.1, 10), (0.5, 1), (math.nan, 10)])
def test_what_is_no_cosine_is_refused(cosine, entries):
    with pytest.raises(InputError):
        cosine_significance(cosine, entries)


def test_equal_signs_are_hypergeometric():
    """Against scipy's law: equal signs are two times the common positives, and a constant."""
    n, p, q = 50, 20, 30
    law = stats.hypergeom(n, p, q)
    mean = n - p - q + 2 * law.mean()
    for common in (5, 12, 20):
        agree = n - p - q + 2 * common
        expected = (agree - mean) / (2 * law.std())
        assert sign_agreement(agree, n, p, q) == pytest.approx(expected, rel=1e-12)
    assert sign_agreement(10, 10, 10, 5) is None
    assert sign_agreement(1, 1, 1, 1) is None


def test_upper_tail():
    assert log10_upper_tail(3.0) == pytest.approx(stats.norm.logsf(3.0) / math.log(10))
