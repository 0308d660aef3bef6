from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.null import (
    CommutatorNull,
    commutator_null,
    commutator_variance,
    defect_variance,
    spectrum_invariants,
)
from flagscope.null.draws import _draws_of, haar_draws
from null import sampling


def spectra(d: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(d)
    full, low = generator.standard_normal((d, 2 * d)), generator.standard_normal((d, d // 2))
    return {
        "full": np.linalg.eigvalsh(full @ full.T),
        "low": np.linalg.eigvalsh(low @ low.T),
        "steep": 0.6 ** np.arange(d),
        "line": np.eye(d)[0],
        "half": (np.arange(d) < d // 2) * 1.0,
        "quarter": (np.arange(d) < max(1, d // 4)) * 1.0,
    }


def draws(n: int, a: np.ndarray, b: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Commutator ratios and commutation defects by their definitions."""
    d = len(a)
    alpha, beta = torch.from_numpy(a - a.mean()), b - b.mean()
    rotated = sampling.rotated(n, beta, seed=seed).square()
    difference = (alpha[:, None] - alpha[None, :]).square()
    commutator = (difference * rotated).sum((-1, -2)).numpy()
    product = (alpha.square()[:, None] * rotated).sum((-1, -2)).numpy()
    norms = float(alpha.square().sum()) * (beta**2).sum()
    return commutator * (d - 1) * (d + 2) / (2 * d * norms), commutator / (2 * product)


PAIRS = [("full", "full"), ("full", "steep"), ("low", "low"), ("line", "full"), ("half", "half"),
         ("quarter", "half"), ("steep", "steep"), ("line", "line")]  # fmt: skip


@pytest.mark.parametrize("d", [2, 3, 4, 5, 9])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_mean_and_variance_are_exact(d, first, second):
    a, b = spectra(d)[first], spectra(d)[second]
    ratio, _ = draws(15_000, a, b, seed=d)
    variance = commutator_variance(
        d, spectrum_invariants(a).kurtosis, spectrum_invariants(b).kurtosis
    )
    sampling.assert_mean(ratio, 1.0)
    sampling.assert_mean((ratio - 1) ** 2, variance)


def test_variance_of_two_lines_by_beta_moments():
    for d in (2, 3, 4, 17, 4096):
        # c² is Beta(½, (d-1)/2) and ‖[A, B]‖² = 2c²(1 - c²)
        m2 = 3 / (d * (d + 2))
        m3, m4 = m2 * 5 / (d + 4), m2 * 5 / (d + 4) * 7 / (d + 6)
        square = 4 * (m2 - 2 * m3 + m4)
        norm = (d - 1) * (d + 2) / (2 * d) / (1 - 1 / d) ** 2
        k = ((1 - 1 / d) ** 4 + (d - 1) / d**4) / (1 - 1 / d) ** 2
        assert commutator_variance(d, k, k) == pytest.approx(square * norm**2 - 1, rel=1e-9)


def test_large_dimension_limit():
    d, x, y = 10**4, 0.3, 0.05
    limit = 2 * x * y + 4 * (1 + x + y) / d**2
    assert commutator_variance(d, x + 1 / d, y + 1 / d) == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("d", [8, 24, 32])
@pytest.mark.parametrize(
    ("first", "second"),
    [("full", "full"), ("full", "steep"), ("low", "low"), ("half", "quarter"), ("half", "line"),
     ("quarter", "steep"), ("line", "line")],
)  # fmt: skip
def test_size(d, first, second):
    a, b = spectra(d)[first], spectra(d)[second]
    n = 12_000 if d < 32 else 6_000
    ratio, _ = draws(n, a, b, seed=1 + d)
    null = commutator_null(a, b, draws=9999, seed=3)
    assert null is not None
    # The draws behind a null have an error of their own, of 6 % at 2.5 %.
    for level, most in ((0.05, 1.15), (0.01, 1.3)):
        shares = sampling.tail_shares(
            lambda value: null.significance(max(value, 0.0)).p, ratio, level, center=1.0
        )
        sampling.assert_share(sum(shares), n, 0.3 * level, most * level)
    inside = (ratio > null.interval[0]) & (ratio < null.interval[1])
    sampling.assert_size(~inside, 0.02, 0.06)


@pytest.mark.parametrize("relative", [1e-3, 0.02])
@pytest.mark.parametrize("second", ["full", "decaying"])
def test_size_of_estimates(second, relative):
    """Where few eigenvalues dominate, the tails of C are far from those of its error."""
    d, n = 32, 5_000
    a = spectra(d)["full"] if second == "full" else 1.0 / np.arange(1, d + 1) ** 0.7
    null, (ratio, _) = commutator_null(a, a), draws(n, a, a, seed=11)
    noise = relative * np.random.default_rng(4).standard_t(63, n)
    p = np.array([
        null.significance(x, error=relative * x, degrees=63).p for x in ratio * (1 + noise)
    ])  # fmt: skip
    for level, most in ((0.05, 1.15), (0.01, 1.3), (0.001, 2.0)):
        sampling.assert_share((p < level).mean(), n, 0.1 * level, most * level)


def test_a_small_error_leaves_the_significance():
    a = spectra(32)["full"]
    null = commutator_null(a, a)
    for ratio in (0.3, 0.8, 0.99, 1.01, 1.3, 4.0):
        known = null.significance(ratio)
        found = null.significance(ratio, error=1e-6 * ratio, degrees=63)
        assert found.log10_p == pytest.approx(known.log10_p, rel=1e-4)
        wide = null.significance(ratio, error=0.1 * ratio, degrees=63)
        assert known.log10_p < wide.log10_p or known.p > 0.3


def test_lower_tail_against_half_a_space_without_draws():
    d, n = 48, 6_000
    a, b = (np.arange(d) < d // 2) * 1.0, 1.0 / np.arange(1, d + 1) ** 2
    null, (ratio, _) = commutator_null(a, b), draws(n, a, b, seed=5)
    assert null is not None
    assert null.calibrated
    assert null.draws == 0
    skewness = ((ratio - 1) ** 3).mean() / null.variance**1.5
    assert null._skewness == pytest.approx(skewness, rel=0.2)
    for level in (0.05, 0.01):
        below, _ = sampling.tail_shares(
            lambda value: null.significance(max(value, 0.0)).p, ratio, level, center=1.0
        )
        sampling.assert_share(below, n, 0.25 * level, 0.6 * level)
    assert (ratio < null.interval[0]).mean() == pytest.approx(0.025, abs=0.01)


@pytest.mark.parametrize("d", [4, 8, 32])
def test_mean_between_correlation_matrices(d):
    generator = torch.Generator().manual_seed(d)
    rows = [torch.randn(4_000, d, k, generator=generator, dtype=torch.float64) for k in (d, 2 * d)]
    one, other = ((x / x.norm(dim=-1, keepdim=True)) for x in rows)
    a, b = (x @ x.mT - torch.eye(d, dtype=torch.float64) for x in (one, other))
    difference = (a @ b - b @ a).square().sum((-1, -2))
    norms = (a.square().sum((-1, -2)) * b.square().sum((-1, -2))) * (2 * d) / ((d - 1) * (d + 2))
    ratio = (difference / norms).numpy()
    a_null = commutator_null(np.arange(d), np.arange(d) ** 2, unit_diagonal=True)
    assert a_null is not None
    assert a_null.mean == pytest.approx((d - 2) * (d + 2) / d**2)
    sampling.assert_mean(ratio, a_null.mean)
    assert a_null.significance(a_null.mean).z == pytest.approx(0.0, abs=1e-12)


def test_correlation_matrices_of_two_rows_commute():
    assert commutator_null([1.2, 0.8], [1.5, 0.5], unit_diagonal=True) is None


def test_draws_stand_in_where_the_closed_form_fails():
    a = spectra(12)["line"]
    bare, drawn = commutator_null(a, a), commutator_null(a, a, draws=1999, seed=1)
    assert isinstance(bare, CommutatorNull)
    assert isinstance(drawn, CommutatorNull)
    assert not bare.calibrated
    assert bare.interval[0] == 0.0
    assert bare.defect_sd is None
    missing = bare.significance(0.3)
    assert missing.p is None
    assert "not calibrated" in missing.status
    assert drawn.draws == 1999
    ratio, defect = draws(20_000, a, a, seed=9)
    assert drawn.significance(0.1).p == pytest.approx(2 * (ratio < 0.1).mean(), rel=0.25)
    assert drawn.significance(2.5).p == pytest.approx(2 * (ratio > 2.5).mean(), rel=0.25)
    # Far below every draw the tail goes on falling.
    far = [drawn.significance(value).log10_p for value in (1e-6, 1e-9, 0.0)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < -4
    assert drawn.interval[0] == pytest.approx(np.quantile(ratio, 0.025), abs=0.01)
    assert drawn.defect_mean == pytest.approx(defect.mean(), abs=0.04)
    assert drawn.defect_sd == pytest.approx(defect.std(), rel=0.1)


@pytest.mark.parametrize(
    ("first", "second"), [("line", "quarter"), ("low", "full"), ("half", "low")]
)
def test_drawn_block_has_the_law_of_the_definition(first, second):
    d, n = 10, 8_000
    a, b = (spectrum_invariants(spectra(d)[name]).centred for name in (first, second))
    sample = haar_draws(a, b, draws=n, seed=4)
    ratio, defect = draws(n, a, b, seed=5)
    for ours, direct in ((sample.ratio, ratio), (sample.defect, defect)):
        for power in (1, 2):
            x, y = ours**power, direct**power
            error = math.hypot(x.std(), y.std()) / math.sqrt(n)
            assert abs(x.mean() - y.mean()) < 4 * error


def test_draws_are_seeded_and_bounded():
    a = spectrum_invariants(spectra(12)["low"]).centred
    first = haar_draws(a, a, draws=1200, seed=8)
    assert haar_draws(a, a, draws=1200, seed=8) is first
    _draws_of.cache_clear()
    again = haar_draws(a, a, draws=1200, seed=8)
    assert again is not first
    assert (first.ratio == again.ratio).all()
    assert (first.ratio != haar_draws(a, a, draws=1200, seed=9).ratio).any()
    assert haar_draws(a, a, draws=50, seed=8) is None
    wide = spectrum_invariants(np.arange(1500.0)).centred
    assert haar_draws(wide, wide, draws=999, seed=8) is None
    # Nearly rank one stays cheap in any dimension: only the block that matters is drawn.
    line = spectrum_invariants(np.eye(3000)[0]).centred
    assert len(haar_draws(line, line, draws=999, seed=8).ratio) == 999


@pytest.mark.parametrize("d", [6, 12, 24])
@pytest.mark.parametrize(
    ("first", "second"), [("full", "full"), ("low", "full"), ("half", "half"), ("full", "steep")]
)
def test_defect_mean_and_sd(d, first, second):
    a, b = spectra(d)[first], spectra(d)[second]
    _, defect = draws(4_000, a, b, seed=2 + d)
    null = commutator_null(a, b)
    assert null is not None
    assert null.draws == 0  # in closed form, so that these draws are others
    assert null.defect_mean == pytest.approx(defect.mean(), abs=0.2 / d)
    assert defect.std() == pytest.approx(null.defect_sd, rel=0.15)


@pytest.mark.parametrize("d", [2, 3, 4, 7])
def test_defect_variance_is_exact_for_the_linearised_statistic(d):
    a, b = spectra(d)["steep"], spectra(d)["full"]
    ratio, defect = draws(20_000, a, b, seed=d)
    mean = d * d / ((d - 1) * (d + 2))
    # f and g in units of E g: f/(2 E g) = C ν_0 and g/E g = C ν_0/ν
    linear = ratio * mean - mean * ratio * mean / defect
    variance = defect_variance(d, spectrum_invariants(a).kurtosis, spectrum_invariants(b).kurtosis)
    sampling.assert_mean(linear, 0.0)
    sampling.assert_mean(linear**2, variance)


def test_extremes_are_finite():
    a = spectra(32)["full"]
    null = commutator_null(a, a)
    for ratio in (0.0, 1e-30, 1.0, 15.3, 1e6):
        assert math.isfinite(null.significance(ratio).log10_p)
    assert null.significance(0.0).log10_p < -50
    assert null.significance(15.3).log10_p < -50


def test_invariances():
    a, b = spectra(16)["low"], spectra(16)["steep"]
    reference = commutator_null(a, b)
    for other in (
        commutator_null(b, a),
        commutator_null(1e-200 * a, 1e150 * b),
        commutator_null(a[::-1] + 3 * a.max(), -b),
    ):
        assert other.variance == pytest.approx(reference.variance, rel=1e-8)


def test_undefined_and_refused():
    assert commutator_null(np.ones(8), np.arange(8)) is None
    assert commutator_null([2.0], [1.0]) is None
    assert commutator_null(np.zeros(8), np.arange(8)) is None
    assert commutator_null(1 + 1e-15 * np.arange(8), np.arange(8)) is None
    with pytest.raises(InputError, match="eigenvalues"):
        commutator_null(np.arange(8), np.arange(7))
    with pytest.raises(InputError, match="NaN"):
        commutator_null([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(InputError, match="vector"):
        commutator_null(np.eye(3), np.arange(3))
    null = commutator_null(np.arange(8), np.arange(8) ** 2)
    with pytest.raises(InputError, match="negative"):
        null.significance(-0.1)
    with pytest.raises(InputError, match="finite"):
        null.significance(math.nan)


def test_two_valued_distance_is_zero_for_projectors_only():
    for rank in (1, 3, 7):
        assert spectrum_invariants(np.arange(8) < rank).two_valued_distance < 1e-12
    assert spectrum_invariants(np.arange(8)).two_valued_distance > 0.5
