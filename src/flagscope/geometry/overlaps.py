"""T_ij = ‖Q_i Q_jᵀ‖_F² for all pairs of H subspaces, in bounded memory.

Two forms of the same number. *Grams*: all products Q_i Q_jᵀ by one blocked GEMM, H² r² d
operations. *Projectors*: with P = QᵀQ, T_ij = vec(P_i)·vec(P_j), d² r H operations to form them and
d² H² to multiply, P being symmetric; fewer where d is below r² and there are many heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Form = Literal["projectors", "grams"]
Rows = Callable[[int, int], Float[Tensor, "H r s"]]

# Bytes of the one large temporary: what the caches of a processor hold.
SLAB_BYTES = 1 << 24
# Side of the largest tile: longer sums in float32 lose digits (at 512, 1e-5 of the ranks).
_WIDEST = 128
# Rows of all bases from which on the heads are taken in parts, each two multiplied once, and parts.
_LARGE, _PARTS = 512, 4
# Heads of a block of the product, whose lower triangle of blocks is left out.
_BLOCK = 256


def cheaper_form(count: int, r: int, d: int) -> Form:
    """The form that takes fewer operations.

    Examples
    --------
    >>> cheaper_form(144, 64, 768), cheaper_form(12, 64, 8192)
    ('projectors', 'grams')
    """
    projectors = count * d * d * (r + count)
    return "projectors" if projectors < count * count * r * r * d else "grams"


def squared_overlaps(
    bases: Float[Tensor, "H r d"], *, form: Form | None = None, slab: int = SLAB_BYTES
) -> Float[Tensor, "H H"]:
    """T_ij = ‖Q_i Q_jᵀ‖_F² for all pairs; the diagonal holds the ranks.

    Parameters
    ----------
    bases
        Orthonormal rows; rows beyond a subspace's dimension are zero.
    form
        How; by default whichever takes fewer operations.
    slab
        Bytes of the temporaries beyond the bases and two tables of the result's size.

    Returns
    -------
    Tensor
        Symmetric, float64: products in the dtype of the bases, added up in float64. From float32
        bases T errs by some 1e-6, and by 1e-7 of its value near its largest; by chance its standard
        deviation is 0.04 to 0.1 at r = 64, 128 and d = 768 … 4096.

    Examples
    --------
    >>> squared_overlaps(torch.eye(4, dtype=torch.float64).reshape(2, 2, 4))
    tensor([[2., 0.],
            [0., 2.]], dtype=torch.float64)
    """
    count, r, d = bases.shape
    if (form or cheaper_form(count, r, d)) == "grams":
        return _by_grams(bases, slab)
    return overlaps_by_projectors(
        lambda start, stop: bases[:, :, start:stop],
        count=count, d=d, width=d, slab=slab, device=bases.device,
    )  # fmt: skip


def overlaps_by_projectors(
    rows: Rows, *, count: int, d: int, width: int, slab: int = SLAB_BYTES, device: torch.device
) -> Float[Tensor, "H H"]:
    """As `squared_overlaps`, from bases of which two blocks of coordinates are held at a time.

    Parameters
    ----------
    rows
        Called with (start, stop): these coordinates of all bases, shape (H, r, stop - start).
    count, d
        Number of subspaces, and dimension of the space.
    width
        Coordinates of a block. With n = ⌈d/width⌉ blocks, about n(n-1)/2 + 1 are asked for.
    slab
        Bytes of the temporaries.
    device
        Where to compute.
    """
    total = torch.zeros(count, count, dtype=torch.float64, device=device)
    spans = [(start, min(start + width, d)) for start in range(0, d, width)]
    kept: dict[int, Tensor] = {}
    for one, two in _tour(len(spans)):
        for block in (one, two):
            if block not in kept:
                while len(kept) > 1:
                    del kept[min(set(kept) - {one, two})]
                kept[block] = rows(*spans[block])
        # P is symmetric: what lies above its diagonal counts twice.
        if one == two:
            _add_triangle(total, kept[one], slab)
        else:
            _add_tiles(total, kept[one], kept[two], slab, weight=2)
    return _mirrored(total)


def cross_overlaps(
    one: Float[Tensor, "m r d"], two: Float[Tensor, "n s d"]
) -> Float[Tensor, "m n"]:
    """T_ij = ‖X_i Y_jᵀ‖_F² for all i and j: one product of matrices, a block of rows at a time.

    Parameters
    ----------
    one, two
        m and n matrices with d columns; for overlaps of subspaces orthonormal rows, and zeros
        beyond a subspace's dimension.

    Examples
    --------
    >>> x = torch.eye(4, dtype=torch.float64).reshape(2, 2, 4)
    >>> cross_overlaps(x, x[:1])
    tensor([[2.],
            [0.]], dtype=torch.float64)
    """
    (m, r, d), (n, s, _) = one.shape, two.shape
    flat = two.reshape(n * s, d).mT
    rows = [((x @ flat).square().sum(0).reshape(n, s).sum(-1)) for x in one.reshape(m, r, d)]
    return torch.stack(rows)


def _tour(blocks: int) -> Iterator[tuple[int, int]]:
    """All pairs i ≤ j, most of them next to one with which they share a block."""
    for i in range(blocks):
        yield i, i
        others = range(i + 1, blocks)
        for j in reversed(others) if i % 2 else others:
            yield i, j


def _tile(count: int, cell: int, slab: int) -> int:
    """Side of a square tile of coordinates."""
    side = min(_WIDEST, max(1, isqrt(slab // (cell * count))))
    # Whole cache lines, where that is not a large part of it.
    return side - side % 16 if side >= 16 else side


def _add_triangle(total: Tensor, block: Tensor, slab: int) -> None:
    step = _tile(len(block), block.element_size(), slab)
    for start in range(0, block.shape[-1], step):
        tile, rest = block[..., start : start + step], block[..., start + step :]
        _add_tiles(total, tile, tile, slab, weight=1)
        _add_tiles(total, tile, rest, slab, weight=2)


def _add_tiles(total: Tensor, one: Tensor, two: Tensor, slab: int, *, weight: int) -> None:
    """Add what the entries P[I, J] of all projectors contribute."""
    step = _tile(len(one), one.element_size(), slab)
    for a in one.split(step, dim=-1):
        for b in two.split(step, dim=-1):
            if b.shape[-1]:
                _add_product(total, (a.mT @ b).flatten(1), weight)


def _add_product(total: Tensor, entries: Float[Tensor, "H n"], weight: int) -> None:
    for start in range(0, len(entries), _BLOCK):
        stop = start + _BLOCK
        total[start:stop, start:].add_(entries[start:stop] @ entries[start:].mT, alpha=weight)


def _by_grams(bases: Float[Tensor, "H r d"], slab: int) -> Float[Tensor, "H H"]:
    count, r, d = bases.shape
    total = torch.zeros(count, count, dtype=torch.float64, device=bases.device)
    side = max(1, isqrt(slab // (bases.element_size() * r * r)))
    if count * r >= _LARGE:
        side = min(side, -(-count // _PARTS))
    for i in range(0, count, side):
        one = bases[i : i + side].reshape(-1, d)
        for j in range(i, count, side):
            product = one @ bases[j : j + side].reshape(-1, d).mT
            squares = product.square_().reshape(-1, r, product.shape[1])
            sums = squares.sum(1).reshape(len(squares), -1, r).sum(-1, dtype=torch.float64)
            total[i : i + side, j : j + side] = sums
    return _mirrored(total)


def _mirrored(total: Float[Tensor, "H H"]) -> Float[Tensor, "H H"]:
    """The upper triangle on both sides, in place."""
    for start in range(0, len(total), _BLOCK):
        stop = start + _BLOCK
        corner = total[start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).mT)
        total[stop:, start:stop] = total[start:stop, stop:].mT
    return total
