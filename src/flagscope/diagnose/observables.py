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


@dataclass(frozen=True)
class CentredSpectrum:
    """Moments of Ã = A - (tr A/d) I, a d×d Gram matrix given by its nonzero eigenvalues.

    Attributes
    ----------
    mean
        tr A / d.
    square, cube, fourth
        tr Ã², tr Ã³, tr Ã⁴.
    """

    mean: Float[Tensor, " n"]
    square: Float[Tensor, " n"]
    cube: Float[Tensor, " n"]
    fourth: Float[Tensor, " n"]


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
    moments = (centred.pow(k).sum(-1) + zeros * (-mean).pow(k) for k in (2, 3, 4))
    return CentredSpectrum(mean, *moments)


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
    inner = s.cross.square().sum((-2, -1)) - s.d * a.mean * b.mean
    return (inner / (a.square * b.square).sqrt()).clamp(-1, 1)


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
    p, q = s.alpha.shape[-1], s.beta.shape[-1]
    # ‖ÃB̃‖² = Σ α̃_i² β̃_j² K_ij² over all of R^d × R^d, written so that only α_i β_j K_ij² = N_ij²
    # occurs: the vectors of zero eigenvalues need not be known.
    product = (
        (s.alpha - 2 * a.mean[:, None])[:, :, None]
        * s.cross.square()
        * (s.beta - 2 * b.mean[:, None])[:, None, :]
    ).sum((-2, -1))
    product = product + b.mean.square() * (s.alpha - a.mean[:, None]).square().sum(-1)
    product = product + a.mean.square() * (s.beta - b.mean[:, None]).square().sum(-1)
    product = product + a.mean.square() * b.mean.square() * (s.d - p - q)
    return s.commutator / (2 * product)


def imbalance(s: PairSpectra) -> Float[Tensor, " n"]:
    """‖A - B‖ / (‖A‖ + ‖B‖): 0 if balanced, 1/√2 at orthogonal ranges of equal norm.

    Conserved, up to decay, by gradient flow of linear pairs; changed by any gauge transformation
    that is not orthogonal.

    Examples
    --------
    >>> import torch
    >>> from flagscope.diagnose import imbalance, pair_spectra
    >>> e = torch.eye(2, dtype=torch.float64)
    >>> round(float(imbalance(pair_spectra(e[None, :, :1], e[None, 1:, :]))), 4)
    0.7071
    """
    norm_a, norm_b = s.alpha.square().sum(-1), s.beta.square().sum(-1)
    difference = norm_a + norm_b - 2 * s.cross.square().sum((-2, -1))
    # The difference of equal sums of squares ends at the roundoff of those sums.
    floor = 4 * torch.finfo(s.alpha.dtype).eps * (norm_a + norm_b)
    difference = torch.where(difference > floor, difference, 0)
    return difference.sqrt() / (norm_a.sqrt() + norm_b.sqrt())
