"""Gram correlation ρ: trace-centred correlation of the write and the read Gram.

A and B are the write Gram W1 W1ᵀ and the read Gram W2ᵀ W2 of a pair, given by a `PairSpectra` of n
pairs. Where a number is undefined (a Gram matrix that is a multiple of the identity, or zero) the
value is NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.gram import above_rounding, centred_spectrum
from flagscope.geometry.spectra import PairSpectra


def gram_correlation(s: PairSpectra) -> Float[Tensor, " n"]:
    """ρ = ⟨Ã, B̃⟩ / (‖Ã‖ ‖B̃‖), the trace-centred correlation of the two Gram matrices.

    1 if A and B are equal up to scale and a multiple of the identity, Haar mean 0, negative where
    the one writes mostly what the other does not read. It is not CKA: nothing is centred over
    samples.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import gram_correlation, pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    >>> round(float(gram_correlation(pair_spectra(w, w))), 12)
    1.0
    """
    a, b = centred_spectrum(s.alpha, s.d), centred_spectrum(s.beta, s.d)
    inner = centred_product(s, 1)
    return (inner / (a.square.sqrt() * b.square.sqrt())).clamp(-1, 1)


def centred_product(s: PairSpectra, power: int) -> Float[Tensor, " n"]:
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
    outside_b, outside_a = (above_rounding(1 - length, rounding) for length in (rows, columns))
    corner = above_rounding(s.d - known_a.sum(-1) - known_b.sum(-1) + rows.sum(-1), rounding)
    inside = (a[:, None, :] @ square @ b[:, :, None])[:, 0, 0]
    mixed = rest_b * (a * outside_b).sum(-1) + rest_a * (b * outside_a).sum(-1)
    return inside + mixed + rest_a * rest_b * corner
