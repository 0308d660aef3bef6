from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flagscope.errors import InputError
from flagscope.null import CorrelationNull, correlation_null, spectrum_invariants
from null import sampling


def centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


def spectra(d: int) -> list[np.ndarray]:
    generator = np.random.default_rng(d)
    full = generator.standard_normal((d, 2 * d))
    return [
        centred(np.linalg.eigvalsh(full @ full.T)),
        centred(0.6 ** np.arange(d)),
        centred(np.eye(d)[0]),
        centred((np.arange(d) < d // 2) * 1.0),
        centred(-(0.7 ** np.arange(d))),
    ]


def null_of(a: np.ndarray, b: np.ndarray) -> CorrelationNull:
    null = correlation_null(spectrum_invariants(a), spectrum_invariants(b))
    assert null is not None
    return null


def draws(n: int, a: np.ndarray, b: np.ndarray, *, seed: int) -> np.ndarray:
    rotated = sampling.rotated(n, b, seed=seed)
    inner = (torch.diagonal(rotated, dim1=-2, dim2=-1) * torch.from_numpy(a)).sum(-1).numpy()
    return inner / (np.linalg.norm(a) * np.linalg.norm(b))


PAIRS = [(0, 0), (0, 1), (1, 1), (2, 0), (2, 2), (3, 3), (3, 1), (1, 4), (4, 4)]


@pytest.mark.parametrize("d", [2, 3, 4, 12])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_moments_agree_with_haar_draws(d, first, second):
    a, b = spectra(d)[first], spectra(d)[second]
    rho = draws(15_000, a, b, seed=d + 10 * first + second)
    null = null_of(a, b)
    sampling.assert_mean(rho, 0.0)
    sampling.assert_mean(rho**2, null.sd**2)
    sampling.assert_mean(rho**3, null.skewness * null.sd**3)
    sampling.assert_mean(rho**4, null.kurtosis * null.sd**4)


@pytest.mark.parametrize("d", [2, 8, 16])
@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 1), (1, 1), (2, 0), (3, 3), (1, 4)])
def test_size(d, first, second):
    a, b = spectra(d)[first], spectra(d)[second]
    rho = draws(8_000, a, b, seed=1 + d + 10 * first + second)
    null = null_of(a, b)
    p = np.array([null.significance(value).p for value in rho.tolist()])
    sampling.assert_size(p < 0.05, 0.05 if d == 2 else 0.038, 0.05 if d == 2 else 0.058)
    sampling.assert_size(p < 0.01, 0.01 if d == 2 else 0.007, 0.01 if d == 2 else 0.015)


def test_far_tails_are_finite_on_both_sides():
    a = spectra(64)[2]
    null = null_of(a, a)
    for rho in (-1.0, -0.5, 0.5, 1.0, 1.0 + 1e-6):
        result = null.significance(rho)
        assert math.isfinite(result.log10_p)
        assert result.log10_p < -1
    assert null_of(a, -a).significance(-0.5).log10_p == pytest.approx(
        null.significance(0.5).log10_p, rel=1e-9
    )


@pytest.mark.parametrize("scale", [1e-80, 1e-15, 1e30])
def test_scale_does_not_matter(scale):
    a, b = spectra(8)[0], spectra(8)[1]
    assert null_of(a, scale * b).skewness == pytest.approx(null_of(a, b).skewness, rel=1e-9)


def test_undefined_and_refused():
    line, flat = (spectrum_invariants(values) for values in (np.eye(8)[0], np.ones(8)))
    assert correlation_null(spectrum_invariants([1.0]), spectrum_invariants([2.0])) is None
    assert correlation_null(line, flat) is None
    with pytest.raises(InputError, match="eigenvalues"):
        correlation_null(line, spectrum_invariants(np.eye(7)[0]))
    null = correlation_null(line, line)
    with pytest.raises(InputError, match="finite"):
        null.significance(math.nan)
    with pytest.raises(InputError, match="outside"):
        null.significance(1.5)


def unit_rows(n: int, d: int, columns: int, *, seed: int) -> torch.Tensor:
    """Correlation matrices of n maps whose d rows are independent uniform directions."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, columns, generator=generator, dtype=torch.float64)
    rows /= rows.norm(dim=-1, keepdim=True)
    return rows @ rows.mT


@pytest.mark.parametrize(("d", "columns"), [(4, 3), (8, 16), (16, 4), (64, 32)])
def test_variance_between_correlation_matrices(d, columns):
    n = 6_000 if d < 64 else 1_500
    one = unit_rows(n, d, columns, seed=d) - torch.eye(d)
    # The other may be any: here one with equal correlations and a few negative ones.
    other = torch.ones(d, d, dtype=torch.float64) - torch.eye(d)
    other[0, 1:] = other[1:, 0] = -0.5
    rho = ((one * other).sum((-1, -2)) / (one.norm(dim=(-1, -2)) * other.norm())).numpy()
    spectrum = spectrum_invariants(np.arange(d))
    null = correlation_null(spectrum, spectrum, unit_diagonal=True)
    sampling.assert_mean(rho, 0.0)
    sampling.assert_mean(rho**2, null.sd**2)
    assert null.sd > correlation_null(spectrum, spectrum).sd
