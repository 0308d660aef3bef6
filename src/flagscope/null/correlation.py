"""Null of the Gram correlation: two spectra in independent orientation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flagscope.errors import InputError
from flagscope.null.significance import Significance
from flagscope.null.tails import log_pearson3_tails
from flagscope.null.validation import check_dimensions, check_finite

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
    skewness
        Third standardised moment.
    """

    d: int
    sd: float
    skewness: float

    def significance(self, correlation: float) -> Significance:
        """Two-sided test of a correlation in [-1, 1].

        For d = 2 the exact arcsine law, otherwise Pearson's type III with three exact moments.
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
        log_cdf, log_sf = log_pearson3_tails(z, self.skewness)
        return Significance.two_sided(z, log_cdf=log_cdf, log_sf=log_sf)


def correlation_null(
    d: int,
    *,
    write_norm: float,
    read_norm: float,
    write_cube: float,
    read_cube: float,
) -> CorrelationNull | None:
    """Null of the Gram correlation from two invariants of each trace-centred Gram.

    With Ã, B̃ the trace-free parts of the Grams and Q Haar on O(d),

        E ⟨Ã, QB̃Qᵀ⟩² = 2 ‖Ã‖²‖B̃‖² / ((d-1)(d+2)),
        E ⟨Ã, QB̃Qᵀ⟩³ = 8 d trÃ³ trB̃³ / ((d-1)(d-2)(d+2)(d+4)).

    Parameters
    ----------
    d
        Dimension.
    write_norm, read_norm
        ‖Ã‖_F and ‖B̃‖_F.
    write_cube, read_cube
        tr Ã³ and tr B̃³.

    Returns
    -------
    CorrelationNull or None
        None where ρ is undefined: d = 1 or a Gram that is a multiple of the identity.

    Raises
    ------
    InputError
        If an argument is not finite or a norm is negative.

    References
    ----------
    As `haar_overlap`, of which this is the general form. Pearson's type III law: K. Pearson,
    Phil. Trans. R. Soc. A 186 (1895) 343-414.

    Examples
    --------
    >>> null = correlation_null(32, write_norm=1.0, read_norm=1.0, write_cube=0.5, read_cube=0.5)
    >>> round(null.sd, 4), round(null.skewness, 3), round(null.significance(0.37).log10_p, 1)
    (0.0436, 0.68, -6.8)
    """
    check_dimensions(d)
    check_finite(
        write_norm=write_norm, read_norm=read_norm, write_cube=write_cube, read_cube=read_cube
    )
    if write_norm < 0.0 or read_norm < 0.0:
        raise InputError(
            f"norms must not be negative, got {write_norm} and {read_norm}",
            hint="pass Frobenius norms",
        )
    if d == 1 or write_norm == 0.0 or read_norm == 0.0:
        return None
    sd = math.sqrt(2.0 / ((d - 1) * (d + 2)))
    if d == 2:
        return CorrelationNull(d, sd, 0.0)
    # Norms first: cubes of tiny or huge Grams leave the range of floating point.
    cubes = (write_cube / write_norm / write_norm / write_norm) * (
        read_cube / read_norm / read_norm / read_norm
    )
    third = 8.0 * d * cubes / ((d - 1) * (d - 2) * (d + 2) * (d + 4))
    return CorrelationNull(d, sd, third / sd**3)
