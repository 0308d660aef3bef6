"""Null of the Gram correlation: two spectra in independent orientation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from flagscope.errors import InputError
from flagscope.null.attainable import correlation_end
from flagscope.null.pearson import pearson_law
from flagscope.null.saddlepoint import log_lower_tail, tilted
from flagscope.null.significance import Significance
from flagscope.null.spectrum import Spectrum
from flagscope.null.validation import check_finite
from flagscope.null.zonal import correlation_fourth_moment

# Rounding may carry a correlation beyond ±1 by this much at most in float32 Grams.
_SLACK = 1e-4
# From this skewness on, Pearson's law ends too early on its thin side, and below this kurtosis on
# both; docs/nulls.md has the sizes.
_SKEWED, _FLAT = 0.3, 2.7
# A spectrum of two values has a distance from one of 0 but for rounding; rank one, the kurtosis
# (d² - 3d + 3)/(d(d-1)).
_TWO_VALUED = 1e-9
# Above the first tail no saddlepoint is needed, and above the second no care for the ends of ρ.
_CENTRAL, _SAFE = math.log(0.25), math.log(1e-4)
_BISECTIONS = 24
# Distance from what ρ can reach that float32 Grams can still resolve.
_RESOLUTION = 2.0**-24
# Step of a numerical slope, relative: half of the digits.
_STEP = 1e-6


@dataclass(frozen=True)
class CorrelationNull:
    """Null of ρ = ⟨Ã, QB̃Qᵀ⟩/(‖Ã‖‖B̃‖), Q Haar on O(d); its mean is 0.

    Attributes
    ----------
    d
        Dimension.
    sd
        Standard deviation.
    skewness, kurtosis
        Third and fourth standardised moment.
    write, read
        Both spectra.
    """

    d: int
    sd: float
    skewness: float
    kurtosis: float
    write: Spectrum = field(repr=False)
    read: Spectrum = field(repr=False)

    def significance(self, correlation: float) -> Significance:
        """Two-sided test of a correlation in [-1, 1].

        For d = 2 the exact arcsine law and for two spectra of rank one their exact Beta law;
        otherwise the law of Pearson's system with four exact moments, and a saddlepoint on the side
        on which it ends too early: below zero where both spectra decay. Near the ends of what ρ can
        reach no tail falls faster than the power with which the volume of rotations vanishes there.
        """
        check_finite(correlation=correlation)
        if abs(correlation) > 1.0 + _SLACK:
            raise InputError(
                f"correlation = {correlation} lies outside [-1, 1]",
                hint="divide by the Frobenius norms of the trace-centred Grams",
            )
        z = correlation / self.sd
        if self.d == 2:
            # ρ = cos 2θ with a uniform angle; a distance from ±1 below rounding counts as rounding.
            angle = max(math.acos(min(1.0, abs(correlation))), 1e-8)
            return Significance.two_sided(z, log_cdf=0.0, log_sf=math.log(angle / math.pi))
        # The law of ρ is that of z; for correlation matrices its sd is not that of Haar rotations.
        haar = z * math.sqrt(2.0 / ((self.d - 1) * (self.d + 2)))
        side = 1.0 if haar >= 0.0 else -1.0
        log_tail = self._log_tail(abs(haar), side)
        return Significance.two_sided(
            z,
            log_cdf=0.0 if side > 0.0 else log_tail,
            log_sf=log_tail if side > 0.0 else 0.0,
        )

    def _log_tail(self, distance: float, side: float) -> float:
        """Log P(side · ρ > distance) for Haar rotations."""
        sd = math.sqrt(2.0 / ((self.d - 1) * (self.d + 2)))
        law = pearson_law(abs(self.skewness), self.kurtosis)
        thick = (side > 0.0) == (self.skewness >= 0.0)

        def plain(x: float) -> float:
            return law.log_tails(x / sd)[1] if thick else law.log_tails(-x / sd)[0]

        tail, start = plain, plain(distance)
        short = self.kurtosis < _FLAT or (abs(self.skewness) > _SKEWED and not thick)
        if short and not self._exact and start <= _CENTRAL:
            prepared = tilted(self.write, self.read.negated if side > 0.0 else self.read)

            def tail(x: float) -> float:
                return log_lower_tail(-x, prepared)

            start = tail(distance)
        return start if start > _SAFE else self._continued(tail, distance, side)

    def _continued(self, tail: Callable[[float], float], distance: float, side: float) -> float:
        """The tail, from where it falls faster than the volume of rotations by that volume."""
        reach, power = correlation_end(self.write, self.read, side)
        distance = min(distance, max(reach - _RESOLUTION, 0.5 * reach))

        def too_fast(x: float) -> bool:
            before, there = tail(x * (1.0 - _STEP)), tail(x)
            return bool(there == -math.inf or (before - there) * (reach - x) > power * _STEP * x)

        if not too_fast(distance):
            return tail(distance)
        low, high = 0.0, distance
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if too_fast(middle) else (middle, high)
        return tail(low) + power * (math.log(reach - distance) - math.log(reach - low))

    @property
    def _exact(self) -> bool:
        """Whether ρ is an affine image of a Beta variable: rank one against two values."""
        distances = self.write.two_valued_distance, self.read.two_valued_distance
        line = (self.d**2 - 3 * self.d + 3) / (self.d * (self.d - 1))
        concentrated = max(self.write.kurtosis, self.read.kurtosis)
        return max(distances) < _TWO_VALUED and concentrated > line * (1.0 - _TWO_VALUED)


def correlation_null(
    write: Spectrum, read: Spectrum, *, unit_diagonal: bool = False
) -> CorrelationNull | None:
    """Null of the Gram correlation from two spectra.

    With Ã, B̃ the trace-free parts of the Grams and Q Haar on O(d),

        E ⟨Ã, QB̃Qᵀ⟩² = 2 ‖Ã‖²‖B̃‖² / ((d-1)(d+2)),
        E ⟨Ã, QB̃Qᵀ⟩³ = 8 d trÃ³ trB̃³ / ((d-1)(d-2)(d+2)(d+4)),

    and the fourth moment is that of `correlation_fourth_moment`.

    Parameters
    ----------
    write, read
        Of both Grams, by `spectrum_invariants`.
    unit_diagonal
        Whether the Grams are correlation matrices, 1 on their diagonals. The variance is then
        2/(d(d-1)), exact where the rows of one of the two maps have independent uniform directions;
        the form of the law is kept.

    Returns
    -------
    CorrelationNull or None
        None where ρ is undefined: d = 1 or a Gram that is a multiple of the identity.

    Raises
    ------
    InputError
        If the spectra have different lengths.

    References
    ----------
    As `haar_overlap` and `correlation_fourth_moment`; the law as `pearson_law`.

    Examples
    --------
    >>> import numpy as np
    >>> from flagscope.null import spectrum_invariants
    >>> spectrum = spectrum_invariants(1.0 / np.arange(1, 33))
    >>> null = correlation_null(spectrum, spectrum)
    >>> round(null.sd, 4), round(null.skewness, 3), round(null.significance(0.37).log10_p, 1)
    (0.0436, 1.055, -4.7)
    """
    if write.d != read.d:
        raise InputError(
            f"the Grams share one space, but have {write.d} and {read.d} eigenvalues",
            hint="pass all d eigenvalues of both, zeros included",
        )
    d = write.d
    if d == 1 or write.centred is None or read.centred is None:
        return None
    variance = 2.0 / ((d - 1) * (d + 2))
    sd = math.sqrt(2.0 / (d * (d - 1)) if unit_diagonal else variance)
    fourth = correlation_fourth_moment(d, write.kurtosis, read.kurtosis) / variance**2
    if d == 2:
        return CorrelationNull(d, sd, 0.0, fourth, write, read)
    third = 8.0 * d * write.skewness * read.skewness / ((d - 1) * (d - 2) * (d + 2) * (d + 4))
    return CorrelationNull(d, sd, third / variance**1.5, fourth, write, read)
