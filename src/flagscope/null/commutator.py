"""Null of the commutator ratio: two spectra in independent orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from flagscope.errors import InputError
from flagscope.null.defect import defect_variance
from flagscope.null.draws import haar_draws, log_tails_of_draws
from flagscope.null.significance import Significance
from flagscope.null.spectrum import Spectrum, spectrum_invariants
from flagscope.null.tails import (
    log_gamma_tails,
    log_normal_tails,
    log_pearson3_tails,
)
from flagscope.null.validation import check_finite

# Normal quantile of a central 95 % interval.
_Z95 = 1.959963984540054
# Where the closed-form lower tail is too light: a spectrum of nearly two values, in few dimensions
# or against another in which few eigenvalues dominate (by its excess of kurtosis), or two that are
# nearly of rank one (by the product of theirs).
_TWO_VALUED, _FEW, _DOMINATED, _CONCENTRATED = 0.5, 24, 0.05, 0.3


@dataclass(frozen=True)
class CommutatorNull:
    """Null of C = ‖[A, B]‖²(d-1)(d+2)/(2d‖Ã‖²‖B̃‖²) and of ν = ‖[Ã, B̃]‖²/(2‖ÃB̃‖²).

    Attributes
    ----------
    d
        Dimension.
    variance
        Exact variance of C over its mean.
    mean
        Of C; 1 but for correlation matrices.
    calibrated
        Whether the lower tail is known, in closed form or by draws.
    interval
        Central 95 % of C; begins at 0 where the lower tail is not known.
    defect_mean, defect_sd
        Ratio of means and standard deviation of ν; None where they are not known.
    draws
        Number of Haar draws behind both tails, 0 for closed forms.
    """

    d: int
    variance: float
    calibrated: bool
    interval: tuple[float, float]
    defect_mean: float | None
    defect_sd: float | None
    draws: int = 0
    mean: float = 1.0
    _skewness: float = field(default=0.0, repr=False, compare=False)
    _sample: NDArray[np.float64] | None = field(default=None, repr=False, compare=False)

    def interval_of_estimate(self, error: float) -> tuple[float, float]:
        """Central 95 % of an estimate of C that has this standard error."""
        low, high = self.interval
        reach = _Z95 * error
        return (
            max(0.0, self.mean - math.hypot(self.mean - low, reach)),
            self.mean + math.hypot(high - self.mean, reach),
        )

    def significance(self, ratio: float, *, error: float = 0.0, degrees: int = 0) -> Significance:
        """Two-sided test of a commutator ratio.

        Parameters
        ----------
        ratio
            C.
        error, degrees
            Standard error of an estimated C, and its degrees of freedom (`sketched_commutator`).

        Notes
        -----
        An estimate is compared with the law of C plus its error, which is Student's: each tail of C
        is averaged over it.

        Upper tail: lognormal; lower tail: gamma, or a reflected gamma law where one spectrum is
        two-valued and the other dominated by few; all with the exact variance. With draws, both
        tails are theirs (`log_tails_of_draws`). Status "lower tail not calibrated" and no p where
        the ratio is below its mean and its tail not known.
        """
        check_finite(ratio=ratio)
        if ratio < 0.0:
            raise InputError(f"ratio = {ratio} is negative", hint="pass a commutator ratio")
        ratio = ratio / self.mean
        z = (ratio - 1.0) / math.sqrt(self.variance + (error / self.mean) ** 2)
        if not self.calibrated and ratio < 1.0:
            return Significance(z, None, None, "lower tail not calibrated")
        if degrees == 0:
            tails = self._log_tails(ratio)
        else:
            points, log_weights = _student_nodes(degrees)
            values = [self._log_tails(ratio - error / self.mean * t) for t in points]
            tails = np.logaddexp.reduce(np.asarray(values) + log_weights[:, None], axis=0)
        log_cdf, log_sf = (float(tail) for tail in tails)
        # In closed form the lower tail is that below the mean.
        if self._sample is None and ratio >= 1.0:
            log_cdf = 0.0
        return Significance.two_sided(z, log_cdf=log_cdf, log_sf=log_sf)

    def _log_tails(self, ratio: float) -> tuple[float, float]:
        """Log of the lower and upper tail of C over its mean, the former where it is known."""
        # Commuting exactly has a logarithm of no use; rounding stands in for it.
        positive = max(ratio, float(np.finfo(np.float64).eps))
        if self._sample is not None:
            return log_tails_of_draws(self._sample, positive)
        spread = math.log1p(self.variance)
        log_sf = log_normal_tails((math.log(positive) + 0.5 * spread) / math.sqrt(spread))[1]
        if self._skewness < 0.0:
            z = (positive - 1.0) / math.sqrt(self.variance)
            return log_pearson3_tails(z, self._skewness)[0], log_sf
        return log_gamma_tails(1.0 / self.variance, positive - 1.0)[0], log_sf


@lru_cache(maxsize=256)
def _student_nodes(degrees: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points and logarithms of weights for averages over Student's law, its far tails included.

    The trapezoidal rule in u, t = sinh u.
    """
    u = np.linspace(-8.0, 8.0, 81)
    t = np.sinh(u)
    # Student's density up to a factor; the weights are brought to the sum 1.
    log_weights = np.log(np.cosh(u)) - 0.5 * (degrees + 1) * np.log1p(t * t / degrees)
    return t, log_weights - special.logsumexp(log_weights)


def commutator_null(
    write: ArrayLike | Spectrum,
    read: ArrayLike | Spectrum,
    *,
    draws: int = 0,
    seed: int = 0,
    unit_diagonal: bool = False,
) -> CommutatorNull | None:
    """Null of the commutator ratio and of the commutation defect from two spectra.

    Parameters
    ----------
    write, read
        All d eigenvalues of A and of B, zeros included, in any order, centred or not; or their
        invariants by `spectrum_invariants`.
    draws
        Largest number of Haar draws where the closed forms do not hold (nearly two-valued spectra
        with d < 24 or against a spectrum that few eigenvalues dominate, or nearly rank-one pairs);
        0 for none. The work is bounded: fewer are made in high dimension, and none where fewer than
        999 would be.
    seed
        Of the draws.
    unit_diagonal
        Whether the Grams are correlation matrices, 1 on their diagonals. The mean of C is then
        (d-2)(d+2)/d², exact where the rows of one map have independent uniform directions; the law
        of C over its mean is kept.

    Returns
    -------
    CommutatorNull or None
        None where C is undefined: d = 1 or a spectrum without spread; d = 2 for correlation
        matrices, which commute there.

    Raises
    ------
    InputError
        If the spectra are not finite vectors of equal length.

    Notes
    -----
    About 50 µs without draws. Two-sided sizes are in docs/nulls.md. For concentrated spectra (a few
    eigenvalues dominate both) the lower tail is conservative. Where a two-valued spectrum meets a
    dominated one and draws cost too much, the lower tail has the skewness of half a space against
    the latter, -4 (Σβ⁶ + (Σβ³)²)/(1 + Σβ⁴)^{3/2} of the normalised β: right for d/2 equal values in
    high dimension, conservative for fewer.

    References
    ----------
    Own derivation; the moments are polynomial invariants of O(d): B. Collins and P. Śniady, Comm.
    Math. Phys. 264 (2006) 773-795.

    Examples
    --------
    >>> null = commutator_null(np.arange(32), np.arange(32) ** 2)
    >>> round(null.variance, 5), null.calibrated, round(null.significance(0.74).log10_p, 1)
    (0.00576, True, -3.8)
    """
    write = write if isinstance(write, Spectrum) else spectrum_invariants(write)
    read = read if isinstance(read, Spectrum) else spectrum_invariants(read)
    if write.d != read.d:
        raise InputError(
            f"the Grams share one space, but have {write.d} and {read.d} eigenvalues",
            hint="pass all d eigenvalues of both, zeros included",
        )
    if write.centred is None or read.centred is None:
        return None
    d = write.d
    variance = commutator_variance(d, write.kurtosis, read.kurtosis)
    concentrated = write.excess * read.excess > _CONCENTRATED
    two_valued = min(write.two_valued_distance, read.two_valued_distance) < _TWO_VALUED
    defect_mean, defect_sd = None, None
    if not (concentrated and two_valued):
        defect_mean = d * d / ((d - 1) * (d + 2))
        defect_sd = math.sqrt(defect_variance(d, write.kurtosis, read.kurtosis))
    mean = (d - 2) * (d + 2) / (d * d) if unit_diagonal else 1.0
    if mean == 0.0:
        return None

    def null(calibrated: bool, low: float, high: float, skewness: float = 0.0) -> CommutatorNull:
        return CommutatorNull(
            d, variance, calibrated, (mean * low, mean * high), defect_mean, defect_sd,
            mean=mean, _skewness=skewness,
        )  # fmt: skip

    spread = math.log1p(variance)
    high = math.exp(_Z95 * math.sqrt(spread) - 0.5 * spread)
    dominated = max(write.excess, read.excess) > _DOMINATED
    if not (two_valued and (concentrated or d < _FEW or dominated)):
        return null(True, variance * float(special.gammaincinv(1.0 / variance, 0.025)), high)
    sample = haar_draws(write.centred, read.centred, draws=draws, seed=seed)
    if sample is not None:
        ratios = np.sort(sample.ratio)
        low, high = (float(np.quantile(ratios, level)) for level in (0.025, 0.975))
        return replace(
            null(True, low, high),
            defect_mean=float(sample.defect.mean()),
            defect_sd=float(sample.defect.std()),
            draws=len(ratios),
            _sample=ratios,
        )
    if concentrated or d < _FEW:
        return null(False, 0.0, high)
    other = read if write.two_valued_distance < read.two_valued_distance else write
    skewness = _skewness_against_half(other)
    return null(True, _pearson3_quantile(variance, skewness), high, skewness)


def _skewness_against_half(spectrum: Spectrum) -> float:
    """Skewness of C between this spectrum and half a space, in high dimension.

    ‖[A, B]‖² is then a constant less tr(SBSB) for the reflection S at the half space, whose entries
    are nearly independent normal ones.
    """
    if spectrum.centred is None:
        return 0.0
    sixth = float((spectrum.centred**6).sum())
    return -4.0 * (sixth + spectrum.skewness**2) / (1.0 + spectrum.kurtosis) ** 1.5


def _pearson3_quantile(variance: float, skewness: float) -> float:
    """Point of C with a lower tail of 2.5 %, for a negative skewness."""
    shape = 4.0 / skewness**2
    z = (shape - float(special.gammainccinv(shape, 0.025))) / math.sqrt(shape)
    return max(0.0, 1.0 + z * math.sqrt(variance))


def commutator_variance(d: int, write_kurtosis: float, read_kurtosis: float) -> float:
    """Exact variance of the commutator ratio C between Grams in Haar-random orientation.

    C = ‖[A, QBQᵀ]‖_F² (d-1)(d+2) / (2 d ‖Ã‖²‖B̃‖²) has mean 1. E C² is bilinear in the invariants of
    degree four of the trace-free parts, Σα⁴ and (Σα²)², because no others of that degree exist. The
    three coefficients are fixed by two cases that are elementary: A of rank one, and A Gaussian.

    Parameters
    ----------
    d
        Dimension, at least 2.
    write_kurtosis, read_kurtosis
        k = Σα⁴/(Σα²)² of the eigenvalues α of each trace-free part, 1/d to 1.

    Returns
    -------
    float
        Var C = m_1 k_A k_B + m_2 (k_A + k_B) + m_3 - 1, about 2 x y + 4 (1 + x + y)/d² at large
        d, with x = k_A - 1/d and y = k_B - 1/d.

    References
    ----------
    Moments of this kind are polynomial invariants of O(d): B. Collins and P. Śniady, Comm. Math.
    Phys. 264 (2006) 773-795.

    Examples
    --------
    >>> round(commutator_variance(2, 0.5, 0.5), 12)  # C = 2 sin²2θ, uniform angle
    0.5
    """
    if d <= 3:
        # Trace-free spectra then have Σα⁴ = ½(Σα²)², and the general coefficients a pole.
        quartic = 3.0 * d**4 + 23.0 * d**3 + 68.0 * d**2 + 108.0 * d + 144.0
        return (d - 1) * (d + 2) * quartic / (2.0 * d**3 * (d + 1) * (d + 4) * (d + 6)) - 1.0
    both, one, none = _quartic_coefficients(d)
    # As a function of x = k - 1/d, free of the cancellation that m_3 - 1 has at large d.
    x, y = write_kurtosis - 1.0 / d, read_kurtosis - 1.0 / d
    return both * x * y + one * (x + y) + none


@lru_cache(maxsize=4096)
def _quartic_coefficients(d: int) -> tuple[float, float, float]:
    """Coefficients of xy, x + y and 1 in Var C, d ≥ 4."""
    common = d**3 * (d - 3) * (d - 2) * (d + 1) * (d + 4) * (d + 6)
    both = d**8 + 3 * d**7 - 5 * d**6 - 19 * d**5 + 24 * d**4 + 44 * d**3 - 48 * d**2
    one = 2 * d**6 - 6 * d**5 - 52 * d**4 + 72 * d**3 + 176 * d**2 - 192 * d
    none = 2 * d**6 + 12 * d**5 - 28 * d**4 - 184 * d**3 + 192 * d**2 + 704 * d - 768
    return 2 * both / common, 2 * one / common, 2 * none / common
