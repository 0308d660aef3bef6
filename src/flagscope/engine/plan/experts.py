"""Splits the experts of a layer into tasks that fit in memory, whether in one tensor or many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from flagscope.arch import LinearMap, Member, PairGroup, Side
from flagscope.engine.plan.cost import pair_cost
from flagscope.engine.plan.pieces import piece_bytes

# Bytes of experts that a task reads, or of their matrices that it holds, if it has several.
_MOST = 256_000_000


def in_parts(pairs: Iterable[PairGroup], sizes: Mapping[str, int]) -> Iterator[PairGroup]:
    """The groups, with those of many large experts in one tensor cut along the axis of experts.

    Parameters
    ----------
    pairs
        Of a graph.
    sizes
        Bytes of each stored tensor.
    """
    for pair in pairs:
        most = experts_at_once(pair, sizes)
        if most is None or most >= len(pair.members) or not _can_be_cut(pair):
            yield pair
            continue
        for start in range(0, len(pair.members), most):
            yield _part(pair, start, min(most, len(pair.members) - start))


def experts_at_once(pair: PairGroup, sizes: Mapping[str, int]) -> int | None:
    """Number of experts of a group that one task takes; None for a group without experts."""
    if pair.kind != "mlp" or any(member.expert is None for member in pair.members):
        return None
    count = len(pair.members)
    read = sum(piece_bytes((pair.write.map, pair.read.map), sizes).values())
    # Experts in one tensor are measured together, separately stored ones one after the other.
    held = 8 * pair_cost(pair).cells if count > 1 else 0.0
    return max(1, int(_MOST * count / max(read, held, 1)))


def _can_be_cut(pair: PairGroup) -> bool:
    in_turn = all(
        member.write_index == member.read_index == i for i, member in enumerate(pair.members)
    )
    return in_turn and all(
        len(side.map.batch_axes) == 1
        and side.map.batch_axes[0] not in side.map.window
        and side.map.count == len(pair.members)
        for side in (pair.write, pair.read)
    )


def _part(pair: PairGroup, start: int, count: int) -> PairGroup:
    members = tuple(
        Member(member.name, i, i, member.head, member.kv_head, member.expert)
        for i, member in enumerate(pair.members[start : start + count])
    )
    write, read = (
        Side(_cut(side.map, start, count), side.transposed) for side in (pair.write, pair.read)
    )
    return replace(pair, write=write, read=read, members=members)


def _cut(map_: LinearMap, start: int, count: int) -> LinearMap:
    (axis,) = map_.batch_axes
    return replace(map_, window={**map_.window, axis: (start, count)}, count=count)
