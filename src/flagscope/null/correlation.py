"""Null of the Gram correlation: two spectra in independent orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flagscope.errors import InputError
from flagscope.null.pearson import PearsonLaw, pearson_law
from flagscope.null.significance import Significance
from flagscope.null.spectrum import Spectrum
from flagscope.null.tails import log_normal_tails
from flagscope.null.validation import check_finite
from flagscope.null.zonal import correlation_fourth_moment

# Rounding may carry a correlation beyond ±1 by this much at most in float32 Grams.
_SLACK = 1e-4


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
    """

    d: int
    sd: float
    skewness: float
    kurtosis: float
    _law: PearsonLaw | None = field(default=None, repr=False, compare=False)

    def significance(self, correlation: float) -> Significance:
        """Two-sided test of a correlation in [-1, 1].

        For d = 2 the exact arcsine law, otherwise the law of Pearson's system with four exact
        moments.
        """
        check_finite(correlation=correlation)
        if abs(correlation) > 1.0 + _SLACK:
            raise InputError(
                f"correlation = {correlation} lies outside [-1, 1]",
                hint="divide by the Frobenius norms of the trace-centred Grams",
            )
        z = correlation / self.sd
        if self._law is None:
            # ρ = cos 2θ with a uniform angle; a distance from ±1 below rounding counts as rounding.
            angle = max(math.acos(min(1.0, abs(correlation))), 1e-8)
            return Significance.two_sided(z, log_cdf=0.0, log_sf=math.log(angle / math.pi))
        thick = z if self.skewness >= 0.0 else -z
        # Where a law ends before ρ does, p stays finite; the normal tail is heavier there.
        floor = log_normal_tails(4.0 * max(1.0, abs(z)))[1]
        log_cdf, log_sf = (max(tail, floor) for tail in self._law.log_tails(thick))
        return Significance.two_sided(z, log_cdf=log_cdf, log_sf=log_sf)


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
        return CorrelationNull(d, sd, 0.0, fourth)
    third = 8.0 * d * write.skewness * read.skewness / ((d - 1) * (d - 2) * (d + 2) * (d + 4))
    skewness = third / variance**1.5
    law = pearson_law(abs(skewness), fourth)
    return CorrelationNull(d, sd, skewness, fourth, law)
