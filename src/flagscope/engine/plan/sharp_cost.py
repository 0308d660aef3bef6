"""Cost of pairs that are measured by products and leading directions alone: `diagnose.sharp_pairs`.

The same conventions as in `cost`. How many directions lead, and so the Krylov spaces, is not known
ahead; they are taken to be those of `dominant_share`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from flagscope.arch import PairGroup, Side
from flagscope.engine.plan.cost import SECOND_LOOKS, Cost, other_dimension
from flagscope.engine.plan.work import Work, gram, passes, product, records, stored, total
from flagscope.geometry import PRODUCT_UP_TO

# Time of products in float32, in that of float64.
_SINGLE = 0.55
# Numbers that the equilibration of a map touches, an entry.
_EQUILIBRATION = 10.0
# Vectors of a Krylov space beyond the leading ones, and in units of them.
_KRYLOV, _PER_DIRECTION = 256, 3
# Part of the directions that lead, of trained maps.
_LEADING = 0.03
# Factorisations of a map's Gram matrices, each in time a quarter of a product of their size.
_FACTORISATIONS = 3
# Maps whose Gram matrices are formed within their own block.
_INSIDE = ("up", "gate", "down")
# Vectors that a sketch takes, and products of each.
_SKETCHED, _APPLIED = 128, 4


def sharp_pair_cost(
    pair: PairGroup, *, single: float, before: PairGroup | None = None, repeats: bool = True
) -> Cost:
    """A group of pairs within a block. Arguments as for `pair_cost`."""
    d, n = pair.d, len(pair.members)
    m1, m2 = other_dimension(pair.write, d), other_dimension(pair.read, d)
    share = _SINGLE if min(d, max(m1, m2)) >= single else 1.0
    known = before is not None and (before.read, before.read_norm) == (pair.read, pair.read_norm)
    looks = 1 + SECOND_LOOKS if repeats else 1
    work = [_map(d, m, share, repeats=repeats) for m in ((m1,) if known else (m1, m2))]
    work += [_meeting(d, m1, m2).times(looks * share), records("pair", 1)]
    side = min(d, max(m1, m2))
    cells = 3.0 * d * (m1 + m2) + 8.0 * side * side
    return Cost(total(work).times(n), cells * (1.0 if share == 1 else 0.5))


def sharp_stream_cost(pairs: Sequence[PairGroup], *, single: float, repeats: bool = True) -> Cost:
    """Residual pairs that share maps, each prepared once."""
    if not pairs:
        return Cost()
    share = _SINGLE if min(pair.d for pair in pairs) >= single else 1.0
    sides: dict[Hashable, tuple[int, int, bool]] = {
        side.map.place: (pair.d, other_dimension(side, pair.d), _is_known(pair, side))
        for pair in pairs for side in (pair.write, pair.read)
    }  # fmt: skip
    looks = 1 + SECOND_LOOKS if repeats else 1
    work = [_map(d, m, share, repeats=repeats, known=known) for d, m, known in sides.values()]
    for pair in pairs:
        one, two = _others(pair)
        work += [_meeting(pair.d, one, two).times(looks * share), records("pair", 1)]
    d = max(pair.d for pair in pairs)
    widest = max(m for _, m, _ in sides.values())
    readers = {pair.read.map.place for pair in pairs}
    # Gram matrices of the readers and of one writer, as they are and without profiles; one map
    # and its equilibrated copy.
    cells = (2 * (len(readers) + 1) + 4) * float(d) * d + 2.0 * d * widest
    return Cost(total(work), cells * (1.0 if share == 1 else 0.5))


def _is_known(pair: PairGroup, side: Side) -> bool:
    """Whether a Gram matrix is at hand from the block: a LayerNorm's mean asks for another one."""
    centred = pair.read_norm is not None and pair.read_norm.kind == "layernorm"
    return side.map.role in _INSIDE and not centred


def _others(pair: PairGroup) -> tuple[int, int]:
    def other(side: Side) -> int:
        return other_dimension(side, pair.d)

    return other(pair.write), other(pair.read)


def _map(d: int, m: int, share: float, *, repeats: bool, known: bool = False) -> Work:
    """`sharp_map`: its Gram matrices, their square, what is counted and what leads.

    Of a map that is `known` the Gram matrices are, the equilibrated one too.
    """
    n, k = min(d, m), max(d, m)
    krylov = min(n, round(_KRYLOV + _PER_DIRECTION * _LEADING * n))
    work = [stored(d * m), gram(n, n).times(share), product(n, n, 2 * krylov).times(share)]
    if not known:
        work += [passes(_EQUILIBRATION * d * m), gram(n, k).times(2 * share)]
        work += [product(n, n, n).times(0.25 * _FACTORISATIONS * share)]
    if repeats:
        # Without the scale profile: of a thin map the Gram matrix anew.
        work += [part.times(share) for part in (gram(n, n), product(n, n, krylov))]
        work += [gram(n, k).times(share)] if d > m else []
    return total(work)


def _meeting(d: int, m1: int, m2: int) -> Work:
    """⟨A, B⟩, the commutator and the overlap of the leading spaces of one pair."""
    thin = [m for m in (m1, m2) if m < d]
    work = [passes(4.0 * d * d)] if not thin else [product(m2, d, m1)]
    if len(thin) == 1:
        work = [product(d, d, thin[0])]
    if d <= PRODUCT_UP_TO:
        work += [product(d, d, d), *(gram(d, m) for m in thin)]
    else:
        for m in (m1, m2):
            applied = product(d, m, _SKETCHED).times(2) if m < d else product(d, d, _SKETCHED)
            work += [applied.times(_APPLIED / 2)]
    lead = [max(1, round(_LEADING * min(d, m))) for m in (m1, m2)]
    return total([*work, product(lead[0], d, lead[1])])
