"""Blocks whose neurons or heads have zero weights, put together over the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from flagscope.arch import Graph, PairGroup
from flagscope.engine.health.accounted import Accounted
from flagscope.engine.health.attention_heads import Heads, heads_of
from flagscope.engine.health.faulty_heads import equal_heads, zero_heads
from flagscope.engine.health.neurons import Neurons, neurons_of
from flagscope.engine.health.shown import Shown
from flagscope.engine.plan.name_patterns import index_text
from flagscope.records import FaultyBlock, UnitCheck, UnitFaults

_LISTED, _STACKS = 12, 8
_COUNTS = (
    "dead", "no_output", "no_input", "no_factor", "no_query", "no_key", "copies", "copied_parts",
)  # fmt: skip


@dataclass
class Units:
    """Faults of neurons and heads, and the rows and columns that they account for."""

    accounted: Accounted
    faults: list[UnitFaults] = field(default_factory=list)


def unit_faults(graph: Graph, shown: Shown) -> Units:
    """Neurons and heads with zero weights, and copies of them, over the whole network."""
    units = Units(Accounted(shown))
    neurons = list(neurons_of(graph, shown))
    heads = list(heads_of(graph, shown))
    blocks = [_neuron_block(one) for one in neurons]
    for one in neurons:
        for map_, end, count in one.zeros:
            units.accounted.add(map_, end, count, "zero")
        for map_ in one.writers:
            units.accounted.add(map_, "out", int(one.copies.sum()), "copies")
    for one in heads:
        for part in one.parts:
            units.accounted.add(part.map, "whole", int(part.zero.sum()), "zero")
    kinds: tuple[tuple[UnitCheck, bool], ...] = (("neurons", True), ("unclear-neurons", False))
    for check, is_known in kinds:
        some = [block for one, block in zip(neurons, blocks, strict=True)
                if one.is_known is is_known]  # fmt: skip
        if some:
            units.faults.append(_faults(check, some))
    if heads:
        units.faults.append(_faults("heads", _head_blocks(heads, units.accounted)))
    return units


def _neuron_block(one: Neurons) -> FaultyBlock:
    flags = next((f for f in (one.dead, one.unread | one.unfed, one.copies) if f.any()), one.dead)
    return _block(
        one.pair, one.count, np.flatnonzero(flags).tolist(), dead=int(one.dead.sum()),
        no_output=int(one.unread.sum()), no_input=int(one.unfed.sum()),
        no_factor=int(one.unfactored.sum()), copies=int(one.copies.sum()),
        no_path=int((one.unread & one.unfed).sum()),
        biased=None if one.biased is None else int((one.biased & one.unfed & ~one.unread).sum()),
    )  # fmt: skip


def _head_blocks(heads: Sequence[Heads], accounted: Accounted) -> list[FaultyBlock]:
    """All attentions; the Q-K and the V-O pairs of one make one block."""
    attentions: dict[tuple[object, ...], list[Heads]] = {}
    for one in heads:
        name = one.pair.name.removesuffix(".qk").removesuffix(".ov")
        attentions.setdefault((name, one.pair.stack, one.pair.layer), []).append(one)
    blocks: list[FaultyBlock] = []
    for (name, _, _), some in attentions.items():
        pair = some[0].pair
        count = len(pair.members)
        parts = {part.part: part for one in some for part in one.parts}
        zero = {name: part.zero[part.index] for name, part in parts.items()}
        none = np.zeros(count, dtype=bool)
        o, v = zero.get("o", none), zero.get("v", none)
        q, k = zero.get("q", none), zero.get("k", none)
        flags = next((f for f in (o | v, q, k) if f.any()), none)
        equal = equal_heads(some)
        for part, copied in equal.copied.items():
            accounted.add(parts[part].map, "whole", copied, "copies")
        blocks.append(
            _block(
                pair, count, np.flatnonzero(flags).tolist(), name=str(name),
                dead=int((o | v).sum()), no_output=int(o.sum()), no_input=int(v.sum()),
                no_query=int(q.sum()), no_key=int(k.sum()), copies=equal.whole,
                copied_parts=equal.partial, zero=zero_heads(some), equal=equal.groups,
            )
        )  # fmt: skip
    return blocks


def _block(
    pair: PairGroup, units: int, indices: list[int], *, name: str = "", **counts: object
) -> FaultyBlock:
    expert = pair.members[0].expert if len(pair.members) == 1 else None
    return FaultyBlock(
        name=name or pair.name, stack=pair.stack, kind=pair.kind, attention=pair.attention,
        layer=pair.layer, expert=expert, write=pair.write.map.tensor,
        read=pair.read.map.tensor, units=units, where=index_text(indices),
        **counts,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip


def _faults(check: UnitCheck, blocks: Sequence[FaultyBlock]) -> UnitFaults:
    """All blocks together; the faulty ones with dead units and the largest share first."""
    faulty = sorted(
        filter(_most, blocks), key=lambda block: (not block.dead, -_most(block) / block.units)
    )
    return UnitFaults(
        check=check, blocks=len(blocks), units=sum(block.units for block in blocks),
        stacks=list(dict.fromkeys(block.stack for block in blocks))[:_STACKS],
        faulty_blocks=len(faulty),
        **{name: sum(getattr(block, name) for block in faulty) for name in _COUNTS},
        no_path=_sum_of_known([block.no_path for block in faulty]),
        biased=_sum_of_known([block.biased for block in faulty if block.no_input]),
        listed=faulty[:_LISTED],
    )  # fmt: skip


def _sum_of_known(counts: Sequence[int | None]) -> int | None:
    """The sum, or None where one is not known or there is none."""
    known = [count for count in counts if count is not None]
    return sum(known) if known and len(known) == len(counts) else None


def _most(block: FaultyBlock) -> int:
    """How many of its units share the most frequent fault."""
    return max(getattr(block, name) for name in _COUNTS)
