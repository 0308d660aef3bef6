"""Fields of the composed map M = W2 W1 of a pair: spectrum, rank, lost write directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from flagscope.diagnose.position import Noisy
from flagscope.diagnose.values import array_values, number
from flagscope.geometry import PairSpectra, kernel_intersection
from flagscope.records import Functional


def product_fields(
    sigma: Tensor,
    sides: tuple[Noisy, Noisy],
    rank_write: int,
    exponent: int,
    resolution: float,
) -> dict[str, Any]:
    """Spectrum of M = W2 W1, and what of the write space it loses.

    M is 2^exponent times what has the singular values `sigma`.

    The storage noise of M is bounded by δ1‖W2‖ + δ2‖W1‖ + δ1δ2, and the round-off of its singular
    values by `resolution` times the norms of the factors. A singular value between the two may or
    may not be zero in truth: the kernel intersection is then left open.
    """
    write, read = sides
    top1, top2 = float(write.sigma[0]), float(read.sigma[0])
    floor = resolution * top1 * top2
    noise = write.delta * top2 + read.delta * top1 + write.delta * read.delta
    certain = int((sigma > max(noise, floor)).sum())
    # What a Gram matrix lost may be small and not zero.
    lost = resolution > max(write.shape + read.shape) * torch.finfo(sigma.dtype).eps
    possible = len(sigma) if lost else int((sigma > floor).sum())
    kernel = None
    if min(certain, rank_write) == min(possible, rank_write):
        kernel = kernel_intersection(rank_write=rank_write, rank_product=min(certain, rank_write))
    square = sigma.square()
    total = float(square.sum())
    effective = total**2 / float(square.square().sum()) if total > 0 else None
    # In double precision, whatever the weights: only a product beyond 1e308 has no number.
    with np.errstate(over="ignore"):
        true = np.ldexp(sigma.cpu().double().numpy(), exponent)
    functional = Functional(
        product_spectrum=array_values(torch.from_numpy(true)) if np.isfinite(true).all() else None,
        product_rank=certain,
        product_effective_rank=number(effective),
    )
    beyond = functional.product_spectrum is None
    return {"functional": functional, "kernel_intersection": kernel, "beyond_range": beyond}


def bounded_product_fields(
    spectra: PairSpectra,
    sides: tuple[Noisy, Noisy],
    ranks: tuple[int, int],
    i: int,
    resolution: float,
) -> dict[str, Any]:
    """What is known of M = W2 W1 without its singular values.

    The participation ratio follows from sums. M loses nothing of the smaller range if its least
    singular value there, at least σ_r1(W1) σ_r2(W2) times the least cosine between the ranges, is
    above the noise of M; where it is not, the rank and the kernel intersection are left open.
    """
    write, read = sides
    square, fourth = float(spectra.product_square[i]), float(spectra.product_fourth[i])
    rank = None
    if all(ranks):
        cosine = _least_cosine(spectra.cosines[i], *ranks, spectra.d)
        least = float(write.sigma[ranks[0] - 1]) * float(read.sigma[ranks[1] - 1]) * cosine
        top1, top2 = float(write.sigma[0]), float(read.sigma[0])
        noise = write.delta * top2 + read.delta * top1 + write.delta * read.delta
        if least > max(noise, resolution * top1 * top2):
            rank = min(ranks)
    functional = Functional(
        product_spectrum=None,
        product_rank=rank,
        product_effective_rank=number(square**2 / fourth if fourth > 0 else None),
    )
    kernel = None if rank is None else kernel_intersection(rank_write=ranks[0], rank_product=rank)
    return {"functional": functional, "kernel_intersection": kernel, "beyond_range": False}


def _least_cosine(cosines: Tensor, r1: int, r2: int, d: int) -> float:
    """A lower bound of the cosines between two leading spaces, by what the larger one lacks.

    Of use where that is little: the sines are at most the norm of the overlaps with it.
    """
    if r1 > r2:
        cosines, r1, r2 = cosines.mT, r2, r1
    if r2 == d:
        return 1.0
    if cosines.shape[1] < d:
        return 0.0
    return max(0.0, 1 - float(cosines[:r1, r2:].double().square().sum())) ** 0.5
