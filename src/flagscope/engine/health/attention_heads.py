"""Attention heads with zero weights, and heads of one attention that hold the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flagscope.arch import Graph, LinearMap, PairGroup
from flagscope.engine.health.map_flags import End
from flagscope.engine.health.shown import Shown
from flagscope.records import HeadSpace


@dataclass(frozen=True)
class HeadPart:
    """One part of the heads of one attention: the queries, keys, values or output.

    Attributes
    ----------
    part, map
        Which, and its maps: fewer than heads where several heads share one.
    index
        The map of each head.
    zero
        By map, whether all weights are zero. Values count only where they are zero, or where it is
        known that nothing else acts on them.
    biased
        By map, whether the bias is not all zero; None where that is not known.
    keys
        By map, equal for maps with equal weights and biases, bit for bit; None where the weights
        are zero. None where no two are equal, or that is not known.
    """

    part: HeadSpace
    map: LinearMap
    index: np.ndarray
    zero: np.ndarray
    biased: np.ndarray | None
    keys: list[bytes | None] | None

    @property
    def is_shared(self) -> bool:
        """Whether several heads share a map."""
        return self.map.count < len(self.index)


@dataclass(frozen=True)
class Heads:
    """The heads of one attention, or what is known of them.

    Attributes
    ----------
    pair
        Its Q-K or V-O pairs.
    parts
        Those whose tensors were looked at.
    even
        Whether scores are products of queries and keys alone, so that zero ones attend evenly.
    """

    pair: PairGroup
    parts: tuple[HeadPart, ...]
    even: bool


def heads_of(graph: Graph, shown: Shown) -> Iterator[Heads]:
    """Yield the Q-K and the V-O pairs of each attention block whose tensors were looked at."""
    for pair in graph.pairs:
        if pair.kind not in ("qk", "ov"):
            continue
        roles: tuple[HeadSpace, HeadSpace] = ("q", "k") if pair.kind == "qk" else ("v", "o")
        written = np.array([member.write_index for member in pair.members])
        read = np.array([member.read_index for member in pair.members])
        parts = (
            _part(roles[0], pair, pair.write.map, written, shown),
            _part(roles[1], pair, pair.read.map, read, shown),
        )
        known = tuple(part for part in parts if part is not None)
        if known:
            yield Heads(pair, known, _attends_by_scores(pair))


def _attends_by_scores(pair: PairGroup) -> bool:
    """Whether no term of the position is added to the scores, as far as the family is known."""
    return (
        pair.kind == "qk"
        and pair.between in ("linear", "rope")
        and pair.freedom in ("gl", "rotary")
        and pair.heads_alike
        and pair.query_norm is None
        and pair.key_norm is None
    )


def _part(
    part: HeadSpace, pair: PairGroup, map_: LinearMap, index: np.ndarray, shown: Shown
) -> HeadPart | None:
    flags = shown.zero(map_, "whole")
    if flags is None:
        return None
    zero = flags[:, 0]
    if part == "v":
        zero = zero & _gives_nothing(pair, shown)[:, 0]
    biased = None
    if part == "o":  # one bias for all heads
        biased = np.zeros(map_.count, dtype=bool)
    else:
        bias = shown.bias_is_zero(map_)
        if bias is not None:
            biased = np.zeros(map_.count, dtype=bool) | ~bias.all(axis=1)
    return HeadPart(part, map_, index, zero, biased, _keys(part, map_, flags[:, 0], shown))


def _gives_nothing(pair: PairGroup, shown: Shown) -> np.ndarray:
    """Value maps without weights that give zero, or, where no one gates them, a fixed vector."""
    if pair.freedom in ("gl", "permutation"):
        return np.ones((pair.write.map.count, 1), dtype=bool)
    bias = shown.bias_is_zero(pair.write.map)
    none = np.zeros((pair.write.map.count, 1), dtype=bool)
    return none if bias is None else none | bias.all(axis=1, keepdims=True)


def _keys(
    part: HeadSpace, map_: LinearMap, zero: np.ndarray, shown: Shown
) -> list[bytes | None] | None:
    """By map, a key that is equal for equal weights and biases; None where there are no equals."""
    if map_.count < 2 or not shown.has_copies(map_):
        return None
    end: End = "inp" if part == "o" else "out"
    labels, rows = shown.labels(map_, end), shown.zero(map_, end)
    if labels is None or rows is None or labels.shape != rows.shape:
        return None
    # Copies are listed without rows of zeros, which are equal too.
    parts = [np.where(rows, -1, labels).astype(np.float64)]
    if part != "o" and map_.bias is not None:
        bias = shown.bias(map_)
        if bias is None:
            return None
        parts.append(np.broadcast_to(bias, (map_.count, bias.shape[1])) + 0.0)
    keys = np.concatenate(parts, axis=1)
    return [None if zero[at] else keys[at].tobytes() for at in range(map_.count)]
