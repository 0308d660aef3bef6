"""Eigensystems of large maps in single precision, with double precision where it matters.

An eigenproblem in float32 takes half the time and memory of one in float64, and its vectors are
good to the roundoff of float32 over the relative gap, as are the weights themselves: that is what
they were stored in at best. What it loses are small singular values, since a Gram matrix squares
them: those below a thirtieth of the largest are noise in part, and ranks and kernels hang on them.
They are few, so their space is corrected once in float64, and their values are taken from there.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.diagnose.spectra import Eigensystem, eigensystem
from flagscope.diagnose.symmetric import gram

# Size of eigenproblems from which those in mixed precision are solved in float32; smaller ones take
# little time, and none of the digits of float64 is given up.
SINGLE_FROM = 512
# Eigenvalues below this share of the largest are refined. Those above are good to u/_SMALL = 1e-4.
_SMALL = 1e-3
# If more than this share of them is small, refining them costs as much as float64 throughout.
_MOST = 0.25
# Columns that are widened to float64 at a time.
_COLUMNS = 1024


def single_eigensystem(w: Float[Tensor, "1 d m"]) -> Eigensystem:
    """Eigenvalues (in float64) and eigenvectors (in float32) of W Wᵀ that can differ from zero.

    Parameters
    ----------
    w
        One map in float32 with the shared space along the rows, finite.

    Returns
    -------
    Eigensystem
        Large eigenvalues are good to some unit roundoffs of float32 relative to the largest; those
        below 1e-3 of it are refined and good to the square of that, so that numerical ranks are
        those that float64 gives. A map with m < d, or of whose eigenvalues a quarter is small, is
        solved in float64.

    References
    ----------
    First-order correction of an invariant subspace, then Rayleigh-Ritz: G. W. Stewart, J. Sun,
    Matrix Perturbation Theory (1990), section V.2.

    Examples
    --------
    >>> w = torch.diag(torch.tensor([1.0, 0.5, 0.4, 0.4, 1e-5]))[None]
    >>> round(single_eigensystem(w).values.sqrt()[0, -1].item(), 12)
    1e-05
    """
    d, m = w.shape[1:]
    if m >= d:
        values, vectors = torch.linalg.eigh(gram(w[0]))
        small = int((values < _SMALL * values[-1]).sum())
        if small <= _MOST * d:
            values = values.double()
            if small:
                values[:small], vectors = _refined(w[0], values, vectors, small)
            floor = m * torch.finfo(torch.float64).eps * values[-1]
            values = torch.where(values > floor, values, 0).flip(-1)
            return Eigensystem(values[None], vectors.flip(-1)[None])
    system = eigensystem(w.double())
    return Eigensystem(system.values, system.vectors.to(w.dtype))


def _refined(
    w: Float[Tensor, "d m"],
    values: Float[Tensor, " d"],
    vectors: Float[Tensor, "d d"],
    small: int,
) -> tuple[Float[Tensor, " k"], Float[Tensor, "d d"]]:
    """The smallest eigenvalues of W Wᵀ, ascending, and all vectors, after one correction.

    A computed vector v_t holds of each large direction v_j a part of some u·λ_1/λ_j, of which the
    residual tells (v_jᵀ W Wᵀ v_t)/(λ_t - λ_j) to first order; what is left is of second order.
    """
    tail, large = vectors[:, :small].double(), vectors[:, small:]
    image = _applied(w, tail)
    outside = large.mT @ (image - tail @ (tail.mT @ image)).to(w.dtype)
    # Beside the edge of the two groups the gap is small, and mixing there does no harm.
    gap = (values[small:, None] - values[None, :small]).clamp_min(0.5 * values[small])
    turn = outside / gap.to(w.dtype)
    kept = torch.addmm(large, vectors[:, :small], turn.mT)
    tail = torch.linalg.qr(tail - (large @ turn).double()).Q
    inside = tail.mT @ _applied(w, tail)
    exact, turned = torch.linalg.eigh((inside + inside.mT) / 2)
    return exact.clamp_min(0), torch.cat([(tail @ turned).to(w.dtype), kept], dim=1)


def _applied(w: Float[Tensor, "d m"], x: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """W Wᵀ X in float64, a block of columns of W at a time."""
    total = torch.zeros_like(x)
    for block in w.split(_COLUMNS, dim=1):
        wide = block.double()
        total += wide @ (wide.mT @ x)
    return total
