"""Accepts the family that names suggest for a live module, if a trace confirms it.

Names alone do not show what a module computes. A trace does, but it may not follow every operation,
and it splits and names the maps as the program does. If it contradicts nothing in the family, the
family's graph is the more complete one, and it is that of the module's state dict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from flagscope.arch.build import build_graph
from flagscope.arch.graph import Graph, Member, PairGroup
from flagscope.arch.reading import SIZES
from flagscope.arch.rules import load_families
from flagscope.errors import ArchitectureError

_BLOCKS = ("qk", "ov", "mlp")
UNFOLLOWED = (
    "the trace did not follow all that the family says lies between two maps: of these pairs no "
    "freedom is claimed"
)


def confirmed_family(
    traced: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None,
    *,
    heads: int | None,
    window: int,
    counted: int | None = None,
) -> Graph | None:
    """The graph of the family that tensor names suggest; None if the trace contradicts it.

    Every traced pair within a block must be one of the family's: between the same parts of the same
    tensors, with the same freedom. So must every traced pair along the stream between the family's
    blocks, with its norms. A pair that was not traced gets no freedom.

    Parameters
    ----------
    counted
        Number of heads from attributes of the modules; that of the trace takes precedence, and that
        of the config over both.
    """
    settings = dict(config or {})
    counts = {len(pair.members) for pair in traced.pairs if pair.kind == "qk"}
    count = counts.pop() if len(counts) == 1 else counted
    if heads is None and count and not any(key in settings for key in SIZES["h"]):
        settings[SIZES["h"][0]] = count
    try:
        named = build_graph(shapes, settings or None, heads=heads, window=window)
    except ArchitectureError:
        return None
    family = load_families().get(named.family)
    if family is None or not family.stacks or not any(p.kind in _BLOCKS for p in named.pairs):
        return None
    shown = Counter(key for pair in traced.pairs for key in _claims(pair))
    known = Counter(key for pair in named.pairs for key in _claims(pair))
    if not shown or shown - known or (window and not _same_stream(named, traced)):
        return None
    pairs, notes = _as_traced(named, traced)
    note = (
        f"tensors are named as in {family.title}, and the trace of the module contradicts nothing "
        "of that: it is mapped as that family, like its state dict"
    )
    notes += [text for text in named.notes if "inferred from tensor names" not in text]
    return replace(named, pairs=tuple(pairs), notes=(note, *notes))


def _as_traced(named: Graph, traced: Graph) -> tuple[list[PairGroup], list[str]]:
    """The pairs of a family, with the operations that the trace saw between them, and notes."""
    between = {key: pair.between for pair in traced.pairs for key in _claims(pair)}
    pairs: list[PairGroup] = []
    notes: list[str] = []
    for pair in named.pairs:
        keys = list(_claims(pair))
        if not keys:
            pairs.append(pair)
        elif all(key in between for key in keys):
            seen = between[keys[0]] if pair.kind == "mlp" else pair.between
            pairs.append(replace(pair, between=seen))
        else:
            weak = replace(pair, between="unknown", freedom="none", rotary=None)
            pairs.append(replace(weak, heads_alike=False))
            notes = [UNFOLLOWED]
    return pairs, notes


def _claims(pair: PairGroup) -> Iterator[tuple[object, ...]]:
    """The claim for each member of a pair within a block: parts of tensors, and the freedom."""
    turned = pair.rotary.layout if pair.rotary else None
    for member in pair.members if pair.kind in _BLOCKS else ():
        yield (*_ends(pair, member), pair.kind, pair.d, pair.freedom, turned)


def _ends(pair: PairGroup, member: Member) -> tuple[str, str, str, str]:
    write, read = pair.write.map, pair.read.map
    parts = write.slice_text(member.write_index), read.slice_text(member.read_index)
    return write.tensor, parts[0], read.tensor, parts[1]


def _same_stream(named: Graph, traced: Graph) -> bool:
    """Whether the traced pairs along the stream of the family's layers are in the family."""
    known = _stream_pairs(named)
    inner = {name for write, read, _ in known for name in (write, read)}
    traced_pairs = {pair for pair in _stream_pairs(traced) if inner.issuperset(pair[:2])}
    return traced_pairs <= known and (bool(traced_pairs) or not known)


def _stream_pairs(graph: Graph) -> set[tuple[str, str, str | None]]:
    """Set of (writer, reader, gain of the norm between them)."""
    return {
        (pair.write.map.tensor, pair.read.map.tensor, pair.read_norm and pair.read_norm.gain)
        for pair in graph.pairs if pair.kind == "residual"
    }  # fmt: skip
