"""A scan as a list of independent tasks, and what each costs, known from the header alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flagscope.arch import Graph, HeadGroup, LinearMap, LinkGroup, PairGroup
from flagscope.engine.cost import head_cost, link_cost, pair_cost, share_read, stream_cost
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
    blocks: defaultdict[str, _Block] = defaultdict(_Block)
    for pair in graph.pairs:
        part = "residual" if pair.kind == "residual" else "pairs"
        if part in settings.only:
            blocks[_pair_key(pair)].pairs.append(pair)
    if "heads" in settings.only:
        for head in graph.heads:
            blocks[_head_key(head)].heads.append(head)
    if "residual" in settings.only and settings.edges:
        for link in graph.links:
            blocks[_stream_key(link.stack, link.layer_to)].links.append(link)
    return [_task(name, block, sizes) for name, block in blocks.items()]


@dataclass(frozen=True)
class _Block:
    pairs: list[PairGroup] = field(default_factory=list)
    heads: list[HeadGroup] = field(default_factory=list)
    links: list[LinkGroup] = field(default_factory=list)

    def maps(self) -> Iterator[LinearMap]:
        """All maps that are read."""
        for pair in self.pairs:
            yield from (pair.write.map, pair.read.map)
        for head in self.heads:
            yield head.map
        for link in self.links:
            for face in (link.write, link.read):
                yield from (one for one in (face.heads, face.partner) if one is not None)


def _pair_key(pair: PairGroup) -> str:
    if pair.kind in ("qk", "ov"):
        return f"{pair.stack}.{pair.layer}.{pair.attention}-attention"
    if pair.kind == "mlp" and pair.layer is not None:
        return f"{pair.stack}.{pair.layer}.mlp"
    if pair.kind == "residual" and pair.write.map.role in ("o", "down"):
        return _stream_key(pair.stack, pair.layer)
    return pair.name


def _stream_key(stack: str, layer: int | None) -> str:
    return f"{stack}.{layer}.stream"


def _head_key(head: HeadGroup) -> str:
    return f"{head.stack}.{head.layer}.{head.attention}-attention"


def _task(name: str, block: _Block, sizes: Mapping[str, int]) -> Task:
    read = {(m.tensor, repr(m.index())): share_read(m) * sizes[m.tensor] for m in block.maps()}
    along = [pair for pair in block.pairs if pair.kind == "residual"]
    works = [pair_cost(pair) for pair in block.pairs if pair.kind != "residual"]
    works += [head_cost(head) for head in block.heads]
    works += [stream_cost(along), link_cost(block.links)]
    return Task(
        name=name,
        pairs=tuple(block.pairs),
        heads=tuple(block.heads),
        links=tuple(block.links),
        flops=sum(flops for flops, _ in works),
        bytes_read=int(sum(read.values())),
        bytes_peak=int(sum(read.values()) + 8 * max((cells for _, cells in works), default=0)),
    )
