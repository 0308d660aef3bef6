"""Fourth moment of ⟨Ã, QB̃Qᵀ⟩ between two trace-free spectra in independent orientation."""

from __future__ import annotations

from functools import lru_cache

# Zonal polynomials of degree 4 of a trace-free matrix: partition, dimension of the representation
# of S_8 belonging to its double, coefficients of (Σα²)² and of Σα⁴ (James's normalisation, in
# which the coefficient of (Σα)⁴ is 1).
_ZONAL = (
    ((4,), 1, 12, 48),
    ((3, 1), 20, -2, -8),
    ((2, 2), 14, 7, -2),
    ((2, 1, 1), 56, -2, 4),
    ((1, 1, 1, 1), 14, 3, -6),
)
# Σ of those dimensions, 8!/(2⁴ 4!).
_TOTAL = 105


def correlation_fourth_moment(d: int, write_kurtosis: float, read_kurtosis: float) -> float:
    """Exact E ρ⁴ of ρ = ⟨Ã, QB̃Qᵀ⟩/(‖Ã‖‖B̃‖), Q Haar on O(d).

    E (tr A Q B Qᵀ)⁴ = Σ_κ C_κ(A) C_κ(B)/C_κ(I) over the partitions κ of 4 with at most d parts, C_κ
    the zonal polynomials.

    Parameters
    ----------
    d
        Dimension, at least 2.
    write_kurtosis, read_kurtosis
        Σα⁴/(Σα²)² of the eigenvalues α of each trace-free part.

    Returns
    -------
    float
        About 12/d⁴ + 48 k_A k_B/d⁴ at large d.

    References
    ----------
    A. T. James, "Distributions of matrix variates and latent roots derived from normal samples",
    Ann. Math. Stat. 35 (1964) 475-501, equations 18, 21 and 23 and table 1.

    Examples
    --------
    >>> round(correlation_fourth_moment(2, 0.5, 0.5), 12)  # ρ = cos 2θ, uniform angle
    0.375
    """
    both, one, none = fourth_moment_coefficients(d)
    return both * write_kurtosis * read_kurtosis + one * (write_kurtosis + read_kurtosis) + none


@lru_cache(maxsize=4096)
def fourth_moment_coefficients(d: int) -> tuple[float, float, float]:
    """Coefficients of k_A k_B, k_A + k_B and 1 in `correlation_fourth_moment`."""
    both = one = none = 0.0
    for partition, dimension, square, fourth in _ZONAL:
        if len(partition) > d:
            continue
        identity = 1.0
        for row, length in enumerate(partition):
            for column in range(length):
                identity *= d - row + 2 * column
        weight = dimension / (_TOTAL * identity)
        both += weight * fourth * fourth
        one += weight * fourth * square
        none += weight * square * square
    return both, one, none
