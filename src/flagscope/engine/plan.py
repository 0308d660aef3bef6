"""A scan as a list of independent tasks, and what each costs, known from the header alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from flagscope.arch import Graph, HeadGroup, LinearMap, LinkGroup, PairGroup
from flagscope.diagnose import EIGH_FLOPS, spectra_cost
from flagscope.engine.settings import Settings


@dataclass(frozen=True)
class Task:
    """Pairs and heads that read the same tensors: one attention block, one MLP, one pair.

    Attributes
    ----------
    name
        Common part of the names of what it computes.
    pairs, heads, links
        What to compute.
    flops
        Floating-point operations of its matrix products and eigenproblems.
    bytes_read
        Bytes that it reads from the checkpoint.
    bytes_peak
        Estimated peak of memory: the widened maps and their Gram matrices.
    """

    name: str
    pairs: tuple[PairGroup, ...]
    heads: tuple[HeadGroup, ...]
    flops: float
    bytes_read: int
    bytes_peak: int
    links: tuple[LinkGroup, ...] = ()


def plan(graph: Graph, settings: Settings, sizes: Mapping[str, int]) -> list[Task]:
    """The tasks of a scan, in the order of the graph.

    Parameters
    ----------
    graph
        The maps of the network.
    settings
        `only` chooses among pairs, heads and residual pairs.
    sizes
        Bytes of each stored tensor.
    """
    blocks: dict[str, tuple[list[PairGroup], list[HeadGroup]]] = {}
    for pair in graph.pairs:
        part = "residual" if pair.kind == "residual" else "pairs"
        if part in settings.only:
            blocks.setdefault(_pair_key(pair), ([], []))[0].append(pair)
    if "heads" in settings.only:
        for head in graph.heads:
            blocks.setdefault(_head_key(head), ([], []))[1].append(head)
    return [_task(name, *block, sizes) for name, block in blocks.items()]


def _pair_key(pair: PairGroup) -> str:
    if pair.kind in ("qk", "ov"):
        return f"{pair.stack}.{pair.layer}.{pair.attention}-attention"
    if pair.kind == "mlp" and pair.layer is not None:
        return f"{pair.stack}.{pair.layer}.mlp"
    return pair.name


def _head_key(head: HeadGroup) -> str:
    return f"{head.stack}.{head.layer}.{head.attention}-attention"


def _task(
    name: str, pairs: list[PairGroup], heads: list[HeadGroup], sizes: Mapping[str, int]
) -> Task:
    maps = [side.map for pair in pairs for side in (pair.write, pair.read)]
    maps += [head.map for head in heads]
    read = {(m.tensor, repr(m.index())): _share(m) * sizes[m.tensor] for m in maps}
    works = [_pair_cost(pair) for pair in pairs] + [_head_cost(head) for head in heads]
    return Task(
        name=name,
        pairs=tuple(pairs),
        heads=tuple(heads),
        flops=sum(flops for flops, _ in works),
        bytes_read=int(sum(read.values())),
        bytes_peak=int(sum(read.values()) + 8 * max((cells for _, cells in works), default=0)),
    )


def _share(map_: LinearMap) -> float:
    """The part of the stored tensor that `index` reads."""
    index = map_.index()
    if index is None:
        return 1.0
    return prod(
        len(range(*cut.indices(extent))) / extent
        for cut, extent in zip(index, map_.shape, strict=False)
    )


def _pair_cost(pair: PairGroup) -> tuple[float, float]:
    """Operations, and float64 numbers held at once."""
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


def _head_cost(head: HeadGroup) -> tuple[float, float]:
    h, r, d = head.count, head.rank, head.d
    gram = min(d, h * r)
    flops = 4 * h * d * r * r + min((h * r) ** 2 * d, d * d * h * (r + h))
    return 2.0 * (flops + d * h * r * gram) + EIGH_FLOPS * gram**3, 2.0 * h * r * d + 3.0 * gram**2
