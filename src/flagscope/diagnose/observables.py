"""The scalar observables of an adjacent pair, from its spectra (arXiv 2605.09861, section 3).

All take a `PairSpectra` of n pairs and return a tensor of n values in its dtype. Where a number is
undefined (a Gram matrix that is a multiple of the identity, or zero) the value is NaN; the record
that is made of it turns that into a null and a status.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.spectra import PairSpectra

# Where the squared difference of two Grams is this much smaller than their squares, it is summed
# entry by entry; above, the difference of sums loses two digits at most.
_CLOSE = 1e-2


@dataclass(frozen=True)
class CentredSpectrum:
    """Moments of Ã = A - (tr A/d) I, a d×d Gram matrix given by its nonzero eigenvalues.

    Attributes
    ----------
    mean
        tr A / d.
    square, cube
        tr Ã², tr Ã³.
    """

    mean: Float[Tensor, " n"]
    square: Float[Tensor, " n"]
    cube: Float[Tensor, " n"]


def centred_spectrum(eigenvalues: Float[Tensor, "n p"], d: int) -> CentredSpectrum:
    """Centred moments of a d×d matrix with these p eigenvalues and d - p zeros.

    Examples
    --------
    >>> import torch
    >>> c = centred_spectrum(torch.tensor([[4.0, 2.0]]), d=3)
    >>> float(c.mean), float(c.square)
    (2.0, 8.0)
    """
    mean = eigenvalues.sum(-1) / d
    centred = eigenvalues - mean[:, None]
    zeros = d - eigenvalues.shape[-1]
    square, cube = (centred.pow(k).sum(-1) + zeros * (-mean).pow(k) for k in (2, 3))
    return CentredSpectrum(mean, square, cube)


def _centred_product(s: PairSpectra, power: int) -> Float[Tensor, " n"]:
    """tr(Ã^k B̃^k) = Σ α̃_i^k β̃_j^k K_ij² over all of R^d × R^d, for k = 1, 2.

    Centred first, so that nearly isotropic Gram matrices do not cancel. The vectors of zero
    eigenvalues need not be known: what rows and columns of K lack to length 1 lies on them.
    """
    mean_a, mean_b = s.alpha.sum(-1) / s.d, s.beta.sum(-1) / s.d
    a, b = (s.alpha - mean_a[:, None]).pow(power), (s.beta - mean_b[:, None]).pow(power)
    rest_a, rest_b = (-mean_a).pow(power), (-mean_b).pow(power)
    square = s.squares
    rows, columns = square.sum(-1), square.sum(-2)
    # Unknown vectors of zero eigenvalues count among the rest.
    known_a, known_b = (rows > 0) | (s.alpha > 0), (columns > 0) | (s.beta > 0)
    a, b = a * known_a, b * known_b
    # Round-off of the sums; times the square of a mean it would swamp nearly isotropic spectra.
    rounding = 8 * s.d * torch.finfo(a.dtype).eps
    outside_b, outside_a = (_positive(1 - length, rounding) for length in (rows, columns))
    corner = _positive(s.d - known_a.sum(-1) - known_b.sum(-1) + rows.sum(-1), rounding)
    inside = (a[:, None, :] @ square @ b[:, :, None])[:, 0, 0]
    mixed = rest_b * (a * outside_b).sum(-1) + rest_a * (b * outside_a).sum(-1)
    return inside + mixed + rest_a * rest_b * corner


def _positive(values: Tensor, rounding: float | Tensor) -> Tensor:
    return torch.where(values > rounding, values, 0)


def commutator_ratio(s: PairSpectra) -> Float[Tensor, " n"]:
    """C = ‖[A,B]‖² (d-1)(d+2) / (2d ‖Ã‖² ‖B̃‖²): 0 if A and B commute, Haar mean 1.

    Invariant under orthogonal changes of the shared basis and under scalings. It vanishes for
    aligned and for orthogonal ranges alike, so read it with the gram correlation.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import commutator_ratio, pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    >>> float(commutator_ratio(pair_spectra(w, w)))
    0.0
    """
    a, b = centred_spectrum(s.alpha, s.d), centred_spectrum(s.beta, s.d)
    return s.commutator * ((s.d - 1) * (s.d + 2) / (2 * s.d)) / (a.square * b.square)


def gram_correlation(s: PairSpectra) -> Float[Tensor, " n"]:
    """ρ = ⟨Ã, B̃⟩ / (‖Ã‖ ‖B̃‖), the trace-centred correlation of the two Gram matrices.

    1 if A and B are equal up to scale and a multiple of the identity, Haar mean 0, negative where
    the one writes mostly what the other does not read. It is not CKA: nothing is centred over
    samples.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import gram_correlation, pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    >>> round(float(gram_correlation(pair_spectra(w, w))), 12)
    1.0
    """
    a, b = centred_spectrum(s.alpha, s.d), centred_spectrum(s.beta, s.d)
    inner = _centred_product(s, 1)
    return (inner / (a.square.sqrt() * b.square.sqrt())).clamp(-1, 1)


def commutation_defect(s: PairSpectra) -> Float[Tensor, " n"]:
    """ν = ‖[Ã,B̃]‖² / (2 ‖ÃB̃‖²), in [0, 2]: 0 if A and B commute, about 1 under the null.

    Unlike the commutator ratio it is normalised by the overlap that there is, so that a small value
    means a shared basis and not merely a small overlap.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import commutation_defect, pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    >>> float(commutation_defect(pair_spectra(w, w)))
    0.0
    """
    a, b = centred_spectrum(s.alpha, s.d), centred_spectrum(s.beta, s.d)
    product = _centred_product(s, 2)
    # ÃB̃ = 0 takes two spectra of many zeros after centring; what is left then is round-off.
    floor = (8 * s.d * torch.finfo(product.dtype).eps) ** 2 * a.square * b.square
    return torch.where(product > floor, s.commutator / (2 * product), torch.nan)


def imbalance(
    s: PairSpectra, *, weights: tuple[Float[Tensor, " n"], Float[Tensor, " n"]] | None = None
) -> Float[Tensor, " n"]:
    """‖A - B‖ / (‖A‖ + ‖B‖): 0 if balanced, 1/√2 at orthogonal ranges of equal norm.

    Conserved, up to decay, by gradient flow of linear pairs; changed by any gauge transformation
    that is not orthogonal. Where A and B both have the size of the shared space it is good to a few
    unit roundoffs, otherwise to their root, and 0 below that.

    Parameters
    ----------
    s
        Of n pairs.
    weights
        Factors of A and of B, where those of `s` are not to scale.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import imbalance, pair_spectra
    >>> e = torch.eye(2, dtype=torch.float64)
    >>> round(float(imbalance(pair_spectra(e[None, :, :1], e[None, 1:, :]))), 4)
    0.7071
    """
    one = s.alpha.new_ones(len(s.alpha))
    of_a, of_b = (one, one) if weights is None else weights
    alpha, beta = s.alpha * of_a[:, None], s.beta * of_b[:, None]
    norm_a, norm_b = alpha.square().sum(-1), beta.square().sum(-1)
    inner = s.product_square * of_a * of_b
    # The difference of equal sums of squares ends at the roundoff of those sums.
    floor = 16 * torch.finfo(alpha.dtype).eps * (norm_a + norm_b)
    difference = _positive(norm_a + norm_b - 2 * inner, floor)
    close = bool((difference < _CLOSE * (norm_a + norm_b)).any())
    if close and alpha.shape[-1] == beta.shape[-1] == s.d:
        # Where every eigenvector is known there are no sums to subtract.
        square = s.squares
        gaps = (alpha[:, :, None] - beta[:, None, :]).square()
        known = (square.sum(-1) > 0).all(-1) & (square.sum(-2) > 0).all(-1)
        difference = torch.where(known, (gaps * square).sum((-2, -1)), difference)
    return difference.sqrt() / (norm_a.sqrt() + norm_b.sqrt())
