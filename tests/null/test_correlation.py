from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flagscope.errors import InputError
from flagscope.null import CorrelationNull, correlation_null, spectrum_invariants
from flagscope.null.attainable import correlation_end
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


def two_sided(null: CorrelationNull):
    return lambda value: null.significance(min(1.0, max(-1.0, value))).p


@pytest.mark.parametrize("d", [2, 8, 16])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_size(d, first, second):
    a, b = spectra(d)[first], spectra(d)[second]
    rho = draws(20_000, a, b, seed=1 + d + 10 * first + second)
    for level, most in ((0.05, 1.2), (0.01, 1.3), (0.001, 2.0)):
        below, above = sampling.tail_shares(two_sided(null_of(a, b)), rho, level, center=0.0)
        least = 1.0 if d == 2 else 0.6
        sampling.assert_share(below + above, len(rho), least * level, most * level)


@pytest.mark.parametrize(
    ("first", "second"), [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (2.0, 0.5), (2.0, 0.0), (4.0, 4.0)]
)
@pytest.mark.parametrize("d", [8, 24, 64])
def test_size_of_either_tail_for_spectra_that_decay(d, first, second):
    # Power laws; 0.0 stands for flat, of rank d/4.
    a, b = (
        centred((1.0 + np.arange(d)) ** -power if power else (np.arange(d) < d // 4) * 1.0)
        for power in (first, second)
    )
    rho = draws(20_000 if d < 64 else 3_000, a, b, seed=d)
    for level in (0.05, 0.01):
        for share in sampling.tail_shares(two_sided(null_of(a, b)), rho, level, center=0.0):
            sampling.assert_share(share, len(rho), 0.25 * level, 0.56 * level)


@pytest.mark.parametrize(("rank", "d"), [(1, 8), (3, 8), (1, 48), (16, 48)])
def test_rank_one_against_a_projector_is_a_beta_law(rank, d):
    a, b = centred(np.eye(d)[0]), centred((np.arange(d) < rank) * 1.0)
    null, law = null_of(a, b), stats.beta(rank / 2, (d - rank) / 2)
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    for level in (1e-3, 0.01, 0.3):
        for x, p in ((law.ppf(level), 2 * level), (law.isf(level), 2 * level)):
            assert null.significance((x - rank / d) / scale).p == pytest.approx(p, rel=1e-5)


@pytest.mark.parametrize("d", [4, 48, 512])
def test_far_tails_are_finite_monotone_and_mirrored(d):
    for first, second in ((0, 0), (1, 1), (2, 2), (3, 3), (1, 4), (2, 0)):
        a, b = spectra(d)[first], spectra(d)[second]
        null, mirrored = null_of(a, b), null_of(a, -b)
        for side in (-1.0, 1.0):
            reach, _ = correlation_end(null.write, null.read, side)
            values = [null.significance(side * x).log10_p for x in np.linspace(0.1, 1.0, 8) * reach]
            assert all(map(math.isfinite, values))
            assert values == sorted(values, reverse=True)
            # and beyond what the spectra allow, as rounding may have it
            beyond = null.significance(side * (1.0 + 1e-6)).log10_p
            assert math.isfinite(beyond)
            assert beyond <= values[-1] + 1e-6
            across = mirrored.significance(-0.4 * side * reach).log10_p
            assert across == pytest.approx(null.significance(0.4 * side * reach).log10_p, abs=1e-6)


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
