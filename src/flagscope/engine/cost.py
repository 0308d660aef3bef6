"""What tasks cost: operations and memory, known from the header alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from flagscope.arch import HeadGroup, LinearMap, LinkGroup, PairGroup, Side
from flagscope.diagnose import EIGH_FLOPS, spectra_cost

# Floating-point operations of the eigenvalues alone, in units of n³: tridiagonal form.
_EIGVALSH_FLOPS = 4 / 3

Cost = tuple[float, float]
"""Operations, and float64 numbers held at once."""


def share_read(map_: LinearMap) -> float:
    """The part of the stored tensor that `index` reads."""
    index = map_.index()
    if index is None:
        return 1.0
    return prod(
        len(range(*cut.indices(extent))) / extent
        for cut, extent in zip(index, map_.shape, strict=False)
    )


def pair_cost(pair: PairGroup) -> Cost:
    """Cost of a group of pairs within a block."""
    d, n = pair.d, len(pair.members)
    m1 = _entries(pair.write.map) // (pair.write.map.count * d)
    m2 = _entries(pair.read.map) // (pair.read.map.count * d)
    side = min(d, max(m1, m2))
    passes = 2 if pair.freedom in ("scaling", "rotary") else 1
    # The path is taken by time and counted by operations.
    shared_time, outer_time = spectra_cost(d, m1, m2)
    shared, outer = spectra_cost(d, m1, m2, eigh=EIGH_FLOPS / 2)
    flops = 2.0 * n * passes * (shared if shared_time <= outer_time else outer)
    return flops, n * (passes * d * (m1 + m2) + 6.0 * side * side)


def _entries(map_: LinearMap) -> int:
    """Entries of these maps alone, without others in the stored tensor (Q, K, V in a fused one)."""
    return prod(map_.extent(name) for name in map_.sizes if name not in map_.select)


def head_cost(head: HeadGroup) -> Cost:
    """Cost of the overlaps of a layer's heads."""
    h, r, d = head.count, head.rank, head.d
    gram = min(d, h * r)
    flops = 4 * h * d * r * r + min((h * r) ** 2 * d, d * d * h * (r + h))
    return 2.0 * (flops + d * h * r * gram) + EIGH_FLOPS * gram**3, 2.0 * h * r * d + 3.0 * gram**2


def stream_cost(pairs: Sequence[PairGroup]) -> Cost:
    """Cost of residual pairs that share maps: each map's eigenproblem once, then products."""
    if not pairs:
        return 0.0, 0.0
    sides = {_side_key(side): (pair.d, _other(side, pair.d))
             for pair in pairs for side in (pair.write, pair.read)}  # fmt: skip
    flops = sum(_system_flops(d, m) for d, m in sides.values())
    for pair in pairs:
        d, p, q = pair.d, *(min(pair.d, _other(side, pair.d)) for side in (pair.write, pair.read))
        short = min(p, q)
        flops += 2.0 * (d * p * q + p * p * q + p * q * short) + _EIGVALSH_FLOPS * short**3
    d = max(pair.d for pair in pairs)
    readers = {_side_key(pair.read) for pair in pairs}
    widest = max(m for _, m in sides.values())
    # The readers' eigenvectors and one writer's, the tables of one pair, and one map while its
    # Gram matrix is formed.
    return flops, (len(readers) + 1 + 6) * d * float(d) + d * float(widest)


def _side_key(side: Side) -> tuple[str, str, str, str]:
    one = side.map
    return one.tensor, one.role, repr(one.select), repr(one.window)


def _other(side: Side, d: int) -> int:
    return _entries(side.map) // (side.map.count * d)


def _system_flops(d: int, m: int) -> float:
    if m >= d:
        return 2.0 * d * d * m + EIGH_FLOPS * d**3
    return 6.0 * d * m * m + 2.0 * m**3 + EIGH_FLOPS * m**3


def link_cost(links: Iterable[LinkGroup]) -> Cost:
    """Cost of links between heads: two products of all bases of both sides a group."""
    flops, cells = 0.0, 0.0
    for link in links:
        if link.write.heads is None or link.read.heads is None:
            continue
        write, read = _entries(link.write.heads), _entries(link.read.heads)
        d = link.write.heads.outputs
        flops += 2.0 * 2.0 * write * (read / d)
        cells = max(cells, 4.0 * (write + read))
    return flops, cells
