from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from flagscope.errors import InputError
from flagscope.null import false_discovery_adjustment


@pytest.mark.parametrize("method", ["bh", "by"])
@pytest.mark.parametrize("n", [1, 2, 17, 400])
def test_agrees_with_scipy(method, n):
    p = np.random.default_rng(n).uniform(size=n) ** 3
    p[n // 2 :] = np.round(p[n // 2 :], 1) + 1e-3  # ties
    p = np.minimum(p, 1.0)
    ours = false_discovery_adjustment(np.log10(p).tolist(), method=method)
    np.testing.assert_allclose(ours.p, stats.false_discovery_control(p, method=method), rtol=1e-12)
    np.testing.assert_allclose(np.power(10.0, ours.log10_p), ours.p, rtol=1e-12)


def test_underflowing_p_and_missing_tests():
    values = [-21961.4, None, -400.0, -0.3, None, 0.0]
    adjusted = false_discovery_adjustment(values)
    assert adjusted.log10_p[0] == pytest.approx(-21961.4 + math.log10(4))
    assert adjusted.log10_p[2] == pytest.approx(-400 + math.log10(2))
    assert adjusted.p[0] == 0.0
    assert adjusted.p[1] is adjusted.log10_p[4] is None
    assert adjusted.p[5] == 1.0


def test_nothing_tested():
    assert false_discovery_adjustment([]).p == ()
    assert false_discovery_adjustment([None, None]).log10_p == (None, None)


def test_false_discoveries_are_kept():
    generator = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        p = generator.uniform(size=60)
        p[:10] *= 1e-4
        adjusted = np.array(false_discovery_adjustment(np.log10(p).tolist()).p)
        found = adjusted <= 0.1
        shares.append(found[10:].sum() / max(1, found.sum()))
    shares = np.array(shares)
    assert shares.mean() < 0.1 * 50 / 60 + 4 * shares.std() / 20


@pytest.mark.parametrize("bad", [[0.1], [math.nan]])
def test_what_is_no_log_probability_is_refused(bad):
    with pytest.raises(InputError):
        false_discovery_adjustment(bad)


def test_unknown_method_is_refused():
    with pytest.raises(InputError, match="method"):
        false_discovery_adjustment([-1.0], method="holm")  # type: ignore[arg-type]
