"""Gram matrices A = W Wᵀ by symmetric blocks, at 9/16 of a product's cost; the trace-free Ã."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

# Numbers of rows from which on they are taken in so many blocks: one product of few rows takes less
# time than several of parts of it.
_BLOCKS = ((2048, 8), (512, 4))


def symmetric_share(d: int) -> float:
    """The part of a full product that `gram` takes for d rows."""
    blocks = _blocks(d)
    return (blocks + 1) / (2 * blocks)


def _blocks(d: int) -> int:
    return next((count for least, count in _BLOCKS if d >= least), 1)


def gram(w: Float[Tensor, "*n d m"]) -> Float[Tensor, "*n d d"]:
    """W Wᵀ, each product of two blocks of rows once; for WᵀW give the transposed view.

    Parameters
    ----------
    w
        Floating point; any number of leading axes.

    Returns
    -------
    Tensor
        Exactly symmetric for d of 512 and more.

    Examples
    --------
    >>> import torch
    >>> gram(torch.tensor([[3.0, 4.0]]))
    tensor([[25.]])
    """
    d = w.shape[-2]
    blocks = _blocks(d)
    if blocks == 1:
        return w @ w.mT
    whole = w.new_empty(*w.shape[:-1], d)
    start = 0
    for block in w.chunk(blocks, dim=-2):
        stop = start + block.shape[-2]
        corner = block @ block.mT
        whole[..., start:stop, start:stop] = (corner + corner.mT) / 2
        if stop < d:
            right = block @ w[..., stop:, :].mT
            whole[..., start:stop, stop:] = right
            whole[..., stop:, start:stop] = right.mT
        start = stop
    return whole


def gram_singular_values(w: Float[Tensor, "*n d m"]) -> Float[Tensor, "*n k"]:
    """Singular values, descending, by the smaller Gram matrix, in float64 whatever the type of W.

    A third of the work of a singular value decomposition; they err by √u of the largest.

    Examples
    --------
    >>> gram_singular_values(torch.tensor([[3.0, 4.0]]))
    tensor([5.], dtype=torch.float64)
    """
    wide = w.double()
    squares = gram(wide if wide.shape[-2] <= wide.shape[-1] else wide.mT)
    return torch.linalg.eigvalsh(squares).clamp_min(0).sqrt().flip(-1)


def trace_free(a: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Ã = A - (tr A/d) I, the trace-free part of a square matrix.

    Examples
    --------
    >>> import torch
    >>> trace_free(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
    tensor([[ 1.,  1.],
            [ 1., -1.]])
    """
    centred = a.clone()
    centred.diagonal().sub_(a.trace() / len(a))
    return centred


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


def above_rounding(
    values: Float[Tensor, "*n"], rounding: float | Float[Tensor, "*n"]
) -> Float[Tensor, "*n"]:
    """The values beyond their rounding error, and 0 in place of the others."""
    return torch.where(values > rounding, values, 0)
