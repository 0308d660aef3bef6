"""Attention heads with zero weights: those that write nothing, and those that look at nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flagscope.arch import Graph, LinearMap, PairGroup
from flagscope.engine.health.shown import Shown


@dataclass(frozen=True)
class Heads:
    """The heads of one attention block, or what is known of them.

    Attributes
    ----------
    pair
        Its Q-K or V-O pairs.
    parts
        Flags of the heads whose weights of a role ("q", "k", "v", "o") are all zero. Values count
        only where they are zero, or where it is known that nothing else acts on them.
    zeros
        Maps, and how many of their heads are zero.
    """

    pair: PairGroup
    parts: dict[str, np.ndarray]
    zeros: tuple[tuple[LinearMap, int], ...]


def heads_of(graph: Graph, shown: Shown) -> Iterator[Heads]:
    """Yield the Q-K and the V-O pairs of each attention block whose tensors were looked at."""
    for pair in graph.pairs:
        if pair.kind not in ("qk", "ov"):
            continue
        roles = ("q", "k") if pair.kind == "qk" else ("v", "o")
        parts: dict[str, np.ndarray] = {}
        zeros: list[tuple[LinearMap, int]] = []
        for role, side, index in (
            (roles[0], pair.write, [member.write_index for member in pair.members]),
            (roles[1], pair.read, [member.read_index for member in pair.members]),
        ):
            flags = shown.zero(side.map, "whole")
            if flags is not None and role == "v":
                flags = flags & _gives_nothing(pair, shown)
            if flags is not None:
                parts[role] = flags[index, 0]
                zeros.append((side.map, int(flags.sum())))
        if parts:
            yield Heads(pair, parts, tuple(zeros))


def _gives_nothing(pair: PairGroup, shown: Shown) -> np.ndarray:
    """Value maps without weights that give zero, or, where no one gates them, a fixed vector."""
    if pair.freedom in ("gl", "permutation"):
        return np.ones((pair.write.map.count, 1), dtype=bool)
    bias = shown.bias_is_zero(pair.write.map)
    none = np.zeros((pair.write.map.count, 1), dtype=bool)
    return none if bias is None else none | bias.all(axis=1, keepdims=True)
