"""Commutator ratio C and commutation defect ν of the write and the read Gram.

A and B are the write Gram W1 W1ᵀ and the read Gram W2ᵀ W2 of a pair, given by a `PairSpectra` of n
pairs. Where a number is undefined (a Gram matrix that is a multiple of the identity, or zero) the
value is NaN.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.correlation import centred_product
from flagscope.geometry.gram import centred_spectrum
from flagscope.geometry.spectra import PairSpectra


def commutator_ratio(s: PairSpectra) -> Float[Tensor, " n"]:
    """C = ‖[A,B]‖² (d-1)(d+2) / (2d ‖Ã‖² ‖B̃‖²): 0 if A and B commute, Haar mean 1.

    Invariant under orthogonal changes of the shared basis and under scalings. It vanishes for
    aligned and for orthogonal ranges alike, so read it with the gram correlation.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import commutator_ratio, pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    >>> float(commutator_ratio(pair_spectra(w, w)))
    0.0
    """
    a, b = centred_spectrum(s.alpha, s.d), centred_spectrum(s.beta, s.d)
    return s.commutator * ((s.d - 1) * (s.d + 2) / (2 * s.d)) / (a.square * b.square)


def commutation_defect(s: PairSpectra) -> Float[Tensor, " n"]:
    """ν = ‖[Ã,B̃]‖² / (2 ‖ÃB̃‖²), in [0, 2]: 0 if A and B commute, about 1 under the null.

    Unlike the commutator ratio it is normalised by the overlap that there is, so that a small value
    means a shared basis and not merely a small overlap.

    Examples
    --------
    >>> import torch
    >>> from flagscope.geometry import commutation_defect, pair_spectra
    >>> w = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))[None]
    >>> float(commutation_defect(pair_spectra(w, w)))
    0.0
    """
    a, b = centred_spectrum(s.alpha, s.d), centred_spectrum(s.beta, s.d)
    product = centred_product(s, 2)
    # ÃB̃ = 0 takes two spectra of many zeros after centring; what is left then is round-off.
    floor = (8 * s.d * torch.finfo(product.dtype).eps) ** 2 * a.square * b.square
    return torch.where(product > floor, s.commutator / (2 * product), torch.nan)
