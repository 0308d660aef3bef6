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

from flagscope.geometry.gram import gram
from flagscope.geometry.spectra import (
    Eigensystem,
    PairSpectra,
    Remembered,
    eigensystem,
    pair_spectra,
    small_gram_eigensystem,
    spectra_cost,
    spectra_from_eigensystems,
    spectra_from_product,
)

# Size of eigenproblems from which those in mixed precision are solved in float32; smaller ones take
# little time, and none of the digits of float64 is given up.
SINGLE_FROM = 512
# Eigenvalues below this share of the largest are refined. Those above are good to u/_SMALL = 1e-4.
_SMALL = 1e-3
# If more than this share of them is small, refining them costs as much as float64 throughout.
_MOST = 0.25
# Singular values of a map with m < d that may be divided by, in that of the largest.
_LEAST = 2e-3
# Columns that are widened to float64 at a time.
_COLUMNS = 1024


def single_eigensystem(w: Float[Tensor, "n d m"]) -> Eigensystem:
    """Eigenvalues (in float64) and eigenvectors (in float32) of W Wᵀ that can differ from zero.

    Parameters
    ----------
    w
        Maps in float32 with the shared space along the rows, finite.

    Returns
    -------
    Eigensystem
        Large eigenvalues are good to some unit roundoffs of float32 relative to the largest; those
        below 1e-3 of it are refined and good to the square of that, so that numerical ranks are
        those that float64 gives. For m < d the vectors are those of WᵀW times W, normalised, and
        orthonormal to 1e-4 at worst, as those near the edge of 1e-3 are. A map of whose eigenvalues
        a quarter is small, or of a condition above 500 with m < d, is solved in float64.

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
    return _completed_eigensystems(w, *torch.linalg.eigh(gram(w if m >= d else w.mT)))


def single_pair_spectra(
    w1: Float[Tensor, "n d m1"],
    w2: Float[Tensor, "n m2 d"],
    *,
    composite: Float[Tensor, "n m2 m1"] | None = None,
    remembered: Remembered | None = None,
) -> tuple[PairSpectra, tuple[Tensor, Tensor]]:
    """`pair_spectra` of maps in float32, whatever their condition.

    Well-conditioned maps are measured by W2 W1 and the small Grams, where those are cheaper. The
    cosines of others would err by u κ1 κ2 that way; they are taken from the singular vectors
    themselves and err by u (κ1 + κ2).

    Returns
    -------
    tuple
        The spectra, and the singular values of both maps, descending, shapes (n, p) and (n, q): in
        float64, those too small for float32 refined.
    """
    d, m1, m2 = w1.shape[1], w1.shape[2], w2.shape[1]
    in_shared, in_outer = spectra_cost(d, m1, m2)
    remembered = remembered or Remembered()
    if in_shared <= in_outer:
        sides = single_eigensystem(w1), remembered.of(w2, single_eigensystem)
    else:
        write, read = small_gram_eigensystem(w1), remembered.of(w2, small_gram_eigensystem)
        if _clear(write[0][:, :d], max(d, m1)) and _clear(read[0][:, :d], max(d, m2)):
            spectra = spectra_from_product(w1, w2, write, read, composite=composite)
            return spectra, (spectra.sigma_write.double(), spectra.sigma_read.double())
        sides = _of_small(w1, *write), _of_small(w2.mT, *read)
    return spectra_from_eigensystems(*sides), (sides[0].values.sqrt(), sides[1].values.sqrt())


def spectra_in_precision(
    w1: Tensor,
    w2: Tensor,
    *,
    composite: Tensor | None = None,
    remembered: Remembered | None = None,
) -> tuple[PairSpectra, tuple[Tensor, Tensor]]:
    """The spectra of pairs, and the singular values of both maps as well as they are known.

    Maps in float32 go by `single_pair_spectra`, those in float64 by `pair_spectra`.
    """
    if w1.dtype == torch.float32:
        return single_pair_spectra(w1, w2, composite=composite, remembered=remembered)
    spectra = pair_spectra(w1, w2, composite=composite, remembered=remembered)
    return spectra, (spectra.sigma_write, spectra.sigma_read)


def _of_small(
    w: Float[Tensor, "n d m"], values: Float[Tensor, "n m"], vectors: Float[Tensor, "n m m"]
) -> Eigensystem:
    if w.shape[2] >= w.shape[1]:
        return single_eigensystem(w)
    return _completed_eigensystems(w, values.flip(-1), vectors.flip(-1))


def _clear(values: Float[Tensor, "n p"], size: int) -> bool:
    """Whether all singular values stand clear of what the roundoff of their Gram matrix hides."""
    floor = 4 * size * torch.finfo(values.dtype).eps
    return bool((values[:, -1] > floor * values[:, 0]).all())


def _completed_eigensystems(
    w: Float[Tensor, "n d m"], values: Float[Tensor, "n p"], vectors: Float[Tensor, "n p p"]
) -> Eigensystem:
    """The eigensystems of W Wᵀ from those of its smaller Gram matrix in float32, ascending."""
    systems = [_completed_eigensystem(*one) for one in zip(w, values, vectors, strict=True)]
    return Eigensystem(
        torch.stack([one for one, _ in systems]), torch.stack([one for _, one in systems])
    )


def _completed_eigensystem(
    w: Float[Tensor, "d m"], values: Float[Tensor, " p"], vectors: Float[Tensor, "p p"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, "d p"]]:
    d, m = w.shape
    small = int((values < _SMALL * values[-1]).sum())
    if small <= _MOST * min(d, m):
        exact = values.double()
        if small:
            exact[:small], vectors = _refined(w if m >= d else w.mT, values, vectors, small)
        floor = max(d, m) * torch.finfo(torch.float64).eps * exact[-1]
        exact = torch.where(exact > floor, exact, 0)
        if m >= d:
            return exact.flip(-1), vectors.flip(-1)
        if exact[0] > _LEAST**2 * exact[-1]:
            # Over their norms, which are closer to σ than roots of eigenvalues of float32 are.
            outer = w @ vectors
            outer /= torch.linalg.vector_norm(outer, dim=0)
            return exact.flip(-1), outer.flip(-1)
    system = eigensystem(w.double()[None])
    return system.values[0], system.vectors[0].to(w.dtype)


def _refined(
    w: Float[Tensor, "d m"],
    values: Float[Tensor, " d"],
    vectors: Float[Tensor, "d d"],
    small: int,
) -> tuple[Float[Tensor, " k"], Float[Tensor, "d d"]]:
    """The smallest eigenvalues of W Wᵀ, ascending, and all vectors, after one correction.

    A computed vector v_t holds of each large direction v_j a part of some u·λ_1/λ_j, of which the
    residual shows (v_jᵀ W Wᵀ v_t)/(λ_t - λ_j) to first order; what is left is of second order.
    """
    tail, large = vectors[:, :small].double(), vectors[:, small:]
    image = _applied(w, tail)
    outside = large.mT @ (image - tail @ (tail.mT @ image)).to(w.dtype)
    # Near the edge of the two groups the gap is small, and mixing there does no harm.
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
