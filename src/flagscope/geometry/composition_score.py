"""Composition score of two attention heads: how far one circuit reads what another writes.

‖W_QK W_OV‖ / (‖W_QK‖ ‖W_OV‖) of Elhage et al., "A Mathematical Framework for Transformer Circuits"
(2021), W_QK transposed for queries, W_OV of the reading head for values. Rotary embeddings, which
turn W_QK with the distance of two tokens, are left out of it.

A circuit of H heads is held as Y of shape (H, r, d), ‖Y‖ = 1, such that YᵀY is its Gram matrix on
the stream: of W_OV W_OVᵀ for a writer, of W_QKᵀ W_QK for a reader. The score is then ‖X Yᵀ‖.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry.overlaps import cross_overlaps


def circuit_factors(
    facing: Float[Tensor, "H r d"], partner: Float[Tensor, "H r s"]
) -> Float[Tensor, "H k d"]:
    """Y = R X with YᵀY = Xᵀ P Pᵀ X, k = min(r, s) or r: the Gram on the stream of circuits Xᵀ P.

    Parameters
    ----------
    facing
        X, the factors that face the stream: W_Q, W_K or W_V as they are, W_O transposed.
    partner
        P, the other factor of each circuit.

    Examples
    --------
    >>> facing, partner = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    >>> circuit_factors(facing, partner)
    tensor([[[6., 0.]]])
    """
    # Of the partner only P Pᵀ = RᵀR counts, which a small triangle R knows.
    return _gram_factor(partner) @ facing


def of_unit_norm(circuits: Float[Tensor, "H r d"]) -> Float[Tensor, "H r d"]:
    """Circuits over their Frobenius norms; those that are zero stay."""
    norms = torch.linalg.matrix_norm(circuits)
    return circuits / torch.where(norms > 0, norms, 1)[:, None, None]


def squared_composition(
    writers: Float[Tensor, "m r d"], readers: Float[Tensor, "n s d"]
) -> Float[Tensor, "m n"]:
    """Squares of the composition scores of all writers with all readers, in [0, 1].

    Of mean 1/d for circuits at a Haar-random position in R^d.

    Parameters
    ----------
    writers, readers
        Factors of their circuits, of norm 1.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 0.0]]])
    >>> squared_composition(x, torch.tensor([[[0.6, 0.8]]]))
    tensor([[0.3600]])
    """
    return cross_overlaps(writers, readers)


def _gram_factor(partner: Float[Tensor, "H r s"]) -> Float[Tensor, "H k r"]:
    """R with RᵀR = P Pᵀ, by Cholesky where that goes through, and else by QR."""
    wide = partner.double()
    triangle, info = torch.linalg.cholesky_ex(wide @ wide.mT)
    if bool((info == 0).all()):
        return triangle.mT.to(partner.dtype)
    return torch.linalg.qr(partner.mT, mode="r").R
