"""Plans a scan: independent tasks and their costs, from the header alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flagscope.arch import Graph, HeadGroup, LinkGroup, PairGroup
from flagscope.engine.plan.cost import (
    Cost,
    head_cost,
    link_cost,
    pair_cost,
    single_from,
    stream_cost,
)
from flagscope.engine.plan.depth import is_sharp
from flagscope.engine.plan.every_map import every_map
from flagscope.engine.plan.experts import experts_at_once, in_parts
from flagscope.engine.plan.look import Look
from flagscope.engine.plan.pieces import Piece, piece_bytes
from flagscope.engine.plan.sharp_cost import sharp_pair_cost, sharp_stream_cost
from flagscope.engine.plan.work import Work, total
from flagscope.engine.settings import Settings
from flagscope.errors import InputError
from flagscope.guard import guarded


@dataclass(frozen=True)
class Task:
    """Pairs and heads that read the same tensors: one attention block, one MLP, one pair.

    Attributes
    ----------
    name
        Common part of the names of its pairs and heads.
    pairs, heads, links
        What to compute.
    work
        Amount of work, by kind.
    pieces
        Pieces that it reads, in that order, and the bytes of each.
    bytes_working
        Estimated memory of its widened maps, Gram matrices and eigenvectors, without what it reads.
    sharp
        Whether some of its pairs are measured by products and leading directions alone.
    looks
        Tensors whose health it checks.
    bytes_streamed
        Bytes that it reads in blocks which the cache does not keep.
    """

    name: str
    pairs: tuple[PairGroup, ...]
    heads: tuple[HeadGroup, ...]
    work: Work
    pieces: Mapping[Piece, int]
    bytes_working: int
    links: tuple[LinkGroup, ...] = ()
    sharp: bool = False
    looks: tuple[Look, ...] = ()
    bytes_streamed: int = 0

    @property
    def flops(self) -> float:
        """Floating-point operations of its matrix products and eigenproblems."""
        return self.work.flops

    @property
    def bytes_read(self) -> int:
        """Bytes that it reads from the checkpoint."""
        return sum(self.pieces.values()) + self.bytes_streamed

    @property
    def bytes_peak(self) -> int:
        """Estimated peak memory: the pieces that it reads and its working memory."""
        return sum(self.pieces.values()) + self.bytes_working


@guarded("planning the scan", hint="--only may leave a part out; report it with what --debug shows")
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

    Raises
    ------
    InputError
        If a layer is asked for that is not there.
    """
    _check_layers(graph, settings)
    blocks: defaultdict[str, _Block] = defaultdict(_Block)
    for pair in in_parts(graph.pairs, sizes):
        if is_chosen(pair, settings):
            blocks[_pair_key(pair, sizes)].pairs.append(pair)
    if "heads" in settings.only:
        for head in graph.heads:
            if _are_chosen((head.layer,), settings):
                blocks[_head_key(head)].heads.append(head)
    if "residual" in settings.only and settings.edges:
        for link in graph.links:
            if _are_chosen((link.layer_from, link.layer_to), settings):
                blocks[_stream_key(link.stack, link.layer_to)].links.append(link)
    return [_task(name, block, sizes, settings) for name, block in blocks.items()]


def _check_layers(graph: Graph, settings: Settings) -> None:
    groups = [*graph.pairs, *graph.heads]
    known = sorted({group.layer for group in groups if group.layer is not None})
    missing = sorted({*(settings.layers or ())} - {*known})
    if missing:
        raise InputError(
            f"there is no layer {', '.join(map(str, missing))}",
            hint=f"give some from {known[0]} to {known[-1]}" if known else "leave the layers out",
        )


def is_chosen(pair: PairGroup, settings: Settings) -> bool:
    """Whether a pair's part, kind and layers are asked for."""
    part = "residual" if pair.kind == "residual" else "pairs"
    if part not in settings.only or (settings.kinds and pair.kind not in settings.kinds):
        return False
    write = pair.layer if pair.write_layer is None else pair.write_layer
    return _are_chosen((write, pair.layer), settings)


def _are_chosen(layers: Iterable[int | None], settings: Settings) -> bool:
    return settings.layers is None or all(layer in settings.layers for layer in layers)


@dataclass(frozen=True)
class _Block:
    pairs: list[PairGroup] = field(default_factory=list)
    heads: list[HeadGroup] = field(default_factory=list)
    links: list[LinkGroup] = field(default_factory=list)


def _pair_key(pair: PairGroup, sizes: Mapping[str, int]) -> str:
    if pair.kind in ("qk", "ov"):
        return f"{pair.stack}.{pair.layer}.{pair.attention}-attention"
    if pair.kind == "mlp" and pair.layer is not None:
        return f"{pair.stack}.{pair.layer}.mlp{_part_key(pair, sizes)}"
    if pair.kind == "residual" and pair.write.map.role in ("o", "down"):
        return _stream_key(pair.stack, pair.layer)
    return pair.name


def _part_key(pair: PairGroup, sizes: Mapping[str, int]) -> str:
    """Key of one of the tasks that share the experts of a layer: its first expert."""
    most, first = experts_at_once(pair, sizes), pair.members[0].expert or 0
    if most is not None and len(pair.members) == 1:
        first = first // most * most
    return f".expert.{first}" if first else ""


def _stream_key(stack: str, layer: int | None) -> str:
    return f"{stack}.{layer}.stream"


def _head_key(head: HeadGroup) -> str:
    return f"{head.stack}.{head.layer}.{head.attention}-attention"


def _task(name: str, block: _Block, sizes: Mapping[str, int], settings: Settings) -> Task:
    edges, single = settings.edges, single_from(settings.precision)
    along = [pair for pair in block.pairs if pair.kind == "residual"]
    inside = [pair for pair in block.pairs if pair.kind != "residual"]
    costs: list[Cost] = []
    for i, pair in enumerate(inside):
        cost = sharp_pair_cost if is_sharp(pair, settings.depth) else pair_cost
        costs.append(cost(pair, single=single, before=inside[i - 1] if i else None))
    costs += [head_cost(head, single=single) for head in block.heads]
    sharp = [pair for pair in along if is_sharp(pair, settings.depth)]
    whole = [pair for pair in along if not is_sharp(pair, settings.depth)]
    costs += [stream_cost(whole, single=single), sharp_stream_cost(sharp, single=single)]
    costs += [link_cost(block.links, edges, single=single)]
    return Task(
        name=name,
        pairs=tuple(block.pairs),
        heads=tuple(block.heads),
        links=tuple(block.links),
        work=total(cost.work for cost in costs),
        pieces=piece_bytes(every_map(block), sizes),
        bytes_working=int(8 * max((cost.cells for cost in costs), default=0)),
        sharp=any(is_sharp(pair, settings.depth) for pair in block.pairs),
    )
