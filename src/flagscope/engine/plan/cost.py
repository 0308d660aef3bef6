"""Cost model: work and memory of each kernel, counted from the header alone.

One function per kernel counts the steps of that kernel, in their order. Work in single precision
is counted as the equivalent fraction of work in double precision; its memory counts half.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from flagscope.arch import HeadGroup, LinearMap, LinkGroup, PairGroup, Side
from flagscope.engine.plan.work import (
    Work,
    eigenproblem,
    gram,
    passes,
    product,
    records,
    singular_values,
    stored,
    total,
    triangular,
)
from flagscope.geometry import SINGLE_FROM, spectra_cost
from flagscope.records import Precision

# Share of the directions of a trained map that stand out of its bulk: in all-MiniLM-L6-v2 a median
# of 3 % in heads, up to 18 % in MLPs.
_DOMINANT = 0.15


# Number of times that fitting a scale profile computes the bases: for the heads, and in each pass.
_SCALE_PASSES = 4
# Part of the pairs of a trained network that are measured a second time without scale profiles, as
# there are some and a p-value is small. Random networks need none.
SECOND_LOOKS = 2 / 3
# Lanczos steps to the largest eigenvalue, each of two passes over the bases.
_LANCZOS = 64

# Time of products and eigenproblems in float32, relative to float64.
_SINGLE = 0.55

# Numbers that the equilibration of a map touches, per entry: five passes, each of which squares the
# entries in float64 and takes two products, and scalings before and after; 50 ns where a plain
# pass over float64 takes 0.6 ns.
_EQUILIBRATION = 80.0
# Size up to which signal ranks are computed in float64: `geometry.signal_rank_of`.
_SIGNAL_DOUBLE = 1024


@dataclass(frozen=True)
class Cost:
    """Work, and number of float64 values held at once."""

    work: Work = field(default_factory=Work)
    cells: float = 0.0


def single_from(precision: Precision) -> float:
    """Size of the eigenproblem from which a kernel works in float32."""
    return {"mixed": SINGLE_FROM, "float32": 0, "float64": float("inf")}[precision]


def pair_cost(
    pair: PairGroup,
    *,
    single: float = SINGLE_FROM,
    before: PairGroup | None = None,
    repeats: bool = True,
) -> Cost:
    """Cost of a group of pairs within a block: `diagnose.pair_records`.

    `single` comes from `single_from`; in float32, maps are assumed to be well-conditioned. `before`
    is the preceding group, which may share the read maps. Here and below, `repeats` is False for a
    network in which nothing is measured a second time without its scales.
    """
    d, n = pair.d, len(pair.members)
    m1, m2 = other_dimension(pair.write, d), other_dimension(pair.read, d)
    side = min(d, max(m1, m2))
    balanced = pair.freedom in ("scaling", "rotary")
    share = _SINGLE if side >= single else 1.0
    short = min(d, m1, m2)
    product_values = (
        singular_values(min(d, m1), min(d, m2))
        if share == 1
        else gram(short, min(d, max(m1, m2))) + eigenproblem(short, vectors=False)
    )
    known = before is not None and (before.read, before.read_norm) == (pair.read, pair.read_norm)
    work = [
        stored(d * (m1 + m2)),
        _spectra(d, m1, m2, single=share < 1, read_known=known).times(share),
        product_values,
        _position(d, m1, m2),
        _signal(d, m1, share) + _signal(d, m2, share),
    ]
    if repeats:
        # Rows are measured, divided and copied.
        again = [_spectra(d, m1, m2, single=share < 1), passes(6.0 * d * (m1 + m2))]
        work += [total(again).times(share * SECOND_LOOKS)]
    work += [records("pair", 1)]
    if balanced:
        again = _spectra(d, m1, m2, single=share < 1, composite_known=True)
        work += [again.times(share), passes(6.0 * d * (m1 + m2)).times(share)]
        work += [_signal(d, m1, share), _signal(d, m2, share)]
    # Both maps, their copies (gauge-fixed or without profiles) and their singular vectors, one
    # temporary, six tables of one pair and three of it without profiles, W2 W1 and the reader's
    # eigenvectors.
    cells = n * (3 * d * (m1 + m2) + d * max(m1, m2) + 11.0 * side * side)
    return Cost(total(work).times(n), cells * (1.0 if share == 1 else 0.5))


def head_cost(head: HeadGroup, *, single: float = SINGLE_FROM, repeats: bool = True) -> Cost:
    """Cost of the overlaps of a layer's heads: `diagnose.head_record`."""
    h, r, d = head.count, head.rank, head.d
    share = _SINGLE if d >= single else 1.0
    side = min(d, h * r)
    by_projectors = d * d * r * h + d * d * h * h < d * (h * r) ** 2
    pairwise = (
        product(d, r, d).times(h) + product(h, d * d, h)
        if by_projectors
        else gram(h * r, d) + passes(float(h * r) ** 2)
    )
    work = [stored(h * r * d), _bases(h, r, d), pairwise.times(share), records("head", h)]
    # In single precision, including the eigenvectors of shared directions.
    work += [(gram(side, max(d, h * r)) + eigenproblem(side)).times(_SINGLE)]
    if repeats:
        # The second look that trained heads get: their scales, and the overlaps without them.
        work += [_bases(h, r, d).times(_SCALE_PASSES), pairwise.times(share)]
        work += [passes(4.0 * _LANCZOS * h * r * d).times(_SINGLE)]
    # The maps and their bases in float64, and the bases of all spaces of the layer in their own
    # precision.
    return Cost(total(work), (2.0 + 4.0 * share) * h * r * d + 3.0 * side**2)


def stream_cost(
    pairs: Sequence[PairGroup], *, single: float = SINGLE_FROM, repeats: bool = True
) -> Cost:
    """Cost of residual pairs that share maps; each map is decomposed once: `stream_pairs`."""
    if not pairs:
        return Cost()
    share = _SINGLE if min(pair.d for pair in pairs) >= single else 1.0
    sides = {side.map.place: (pair.d, other_dimension(side, pair.d))
             for pair in pairs for side in (pair.write, pair.read)}  # fmt: skip
    work = [stored(d * m) for d, m in sides.values()]
    # With their scale profiles, and most of them without.
    looks = 1 + SECOND_LOOKS if repeats else 1
    work += [
        (passes(3.0 * d * m) + _system(d, m, single=share < 1)).times(looks * share)
        for d, m in sides.values()
    ]
    work += [_signal(d, m, share) for d, m in sides.values()]
    for pair in pairs:
        d, m1, m2 = pair.d, other_dimension(pair.write, pair.d), other_dimension(pair.read, pair.d)
        work += [_meeting(d, m1, m2).times(looks * share), _position(d, m1, m2), records("pair", 1)]
        if share == 1:
            work += [singular_values(min(d, m1), min(d, m2))]
    d = max(pair.d for pair in pairs)
    readers = {pair.read.map.place for pair in pairs}
    widest = max(m for _, m in sides.values())
    # The eigenvectors of the readers and of one writer, with profiles and without, the tables of
    # one pair, and one map while its Gram matrix is formed.
    cells = (2 * (len(readers) + 1) + 6) * d * float(d) + d * float(widest)
    return Cost(total(work), cells * (1.0 if share == 1 else 0.5))


def link_cost(
    links: Iterable[LinkGroup], edges: int, *, single: float = SINGLE_FROM, repeats: bool = True
) -> Cost:
    """Cost of links between heads, of which those that stand out are recorded: `stream_links`."""
    work: list[Work] = []
    most = 0
    cells, widest, depth, ends = 0.0, 0, 0, set()
    for link in links:
        if link.write.heads is None or link.read.heads is None:
            continue
        write, read = link.write.heads, link.read.heads
        d = write.outputs
        for face, heads in ((link.write, write), (link.read, read)):
            if (face.label, face.role) in ends:
                continue
            ends.add((face.label, face.role))
            h, r = heads.count, _entries(heads) // (heads.count * d)
            work += [stored(2 * h * r * d), _bases(h, r, d), product(r, d, r).times(h)]
            work += [_circuit(r, d).times(h)]
            if repeats:
                work += [_bases(h, r, d).times(_SCALE_PASSES)]
            if repeats and link.read.norm is not None and link.read.norm.kind == "layernorm":
                # A second time with the mean left in, since the scales act there.
                work += [stored(2 * h * r * d), _bases(h, r, d), _circuit(r, d).times(h)]
            widest = max(widest, r)
        wide = _entries(write) // d, _entries(read) // d
        share = _SINGLE if d >= single else 1.0
        work += [product(wide[0], d, wide[1]).times(2 * share)]
        work += [passes(4.0 * wide[0] * wide[1] * share)]
        most += write.count * read.count
        depth = max(depth, d)
        cells = max(cells, 6.0 * (_entries(write) + _entries(read)))
    listed = min(edges, most)
    # A second look at each listed link: both ends without the scales, and their overlap.
    again = (_bases(1, widest, depth) + _circuit(widest, depth)).times(2)
    again += product(widest, depth, widest).times(2)
    return Cost(total([*work, again.times(listed), records("link", listed)]), cells)


def _spectra(
    d: int,
    m1: int,
    m2: int,
    *,
    single: bool,
    read_known: bool = False,
    composite_known: bool = False,
) -> Work:
    """`pair_spectra`, which uses the larger or the smaller Gram matrices, whichever is faster."""
    in_shared, in_outer = spectra_cost(d, m1, m2)
    if in_shared <= in_outer:
        sides = [_system(d, m, single=single) for m in ((m1,) if read_known else (m1, m2))]
        return total([*sides, _meeting(d, m1, m2)])
    work = [gram(m1, d), eigenproblem(m1)]
    if not read_known:
        work += [gram(m2, d), eigenproblem(m2)]
    if not composite_known:
        work += [product(m2, d, m1)]
    p, q = min(d, m1), min(d, m2)
    work += [product(p, m1, m2), product(p, m2, q), gram(p, q), passes(12.0 * p * q)]
    return total(work)


def _system(d: int, m: int, *, single: bool = False) -> Work:
    """`eigensystem` or `single_eigensystem` of one map on a space of d dimensions."""
    if m >= d:
        return gram(d, m) + eigenproblem(d) + passes(2.0 * d * d)
    if single:
        return gram(m, d) + eigenproblem(m) + product(d, m, m)
    return triangular(d, m) + gram(m, m) + eigenproblem(m) + product(d, m, m)


def _meeting(d: int, m1: int, m2: int) -> Work:
    """`meeting` of two eigensystems."""
    p, q = min(d, m1), min(d, m2)
    work = [product(p, d, q), gram(p, q), passes(12.0 * p * q)]
    if p < d:
        work += [product(d, q, p), product(d, p, p), passes(4.0 * d * p)]
    return total(work)


def _signal(d: int, m: int, share: float) -> Work:
    """`signal_rank_of` one map: its equilibration and eigenvalues of its smaller Gram matrix."""
    short = min(d, m)
    counted = gram(short, max(d, m)) + eigenproblem(short, vectors=False)
    return passes(_EQUILIBRATION * d * m) + counted.times(1 if short <= _SIGNAL_DOUBLE else share)


def _position(d: int, m1: int, m2: int) -> Work:
    """`dominant_position`, from the complement of the larger dominant space if that is known."""
    p, q = (max(1, round(_DOMINANT * min(d, m))) for m in (m1, m2))
    short = min(p, q)
    if short >= 192 and min(m1, m2) >= d:
        short = min(short, d - max(p, q))
        return gram(short, p) + eigenproblem(short, vectors=False)
    if short < 192:
        return singular_values(p, q)
    return gram(short, max(p, q)) + eigenproblem(short, vectors=False)


def _bases(h: int, r: int, d: int) -> Work:
    """`head_spaces` of well-conditioned heads: Gram matrices, their triangles, a product."""
    return (product(r, d, r) + product(r, r, r) + product(r, r, d)).times(h)


def _circuit(r: int, d: int) -> Work:
    """The circuit of one head and its spectrum: `ends_of`."""
    return product(r, r, d) + product(r, d, r) + eigenproblem(r, vectors=False)


def _entries(map_: LinearMap) -> int:
    """Number of entries of these maps, without others in the same stored tensor (fused Q, K, V)."""
    return prod(map_.extent(name) for name in map_.sizes if name not in map_.select)


def other_dimension(side: Side, d: int) -> int:
    """Dimension of the other side of one map."""
    return _entries(side.map) // (side.map.count * d)
