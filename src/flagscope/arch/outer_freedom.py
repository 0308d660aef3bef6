"""Freedoms of residual pairs on the outer sides of their maps, inside their blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flagscope.arch.graph import PairGroup
from flagscope.arch.pair_side import Side
from flagscope.records import Freedom

_Key = tuple[str, tuple[tuple[str, int], ...], tuple[tuple[str, tuple[int, int]], ...]]


def with_outer_freedoms(pairs: Sequence[PairGroup]) -> tuple[PairGroup, ...]:
    """The pairs; residual ones get the freedoms that their neighbours inside the blocks allow.

    The stream fixes the space that a residual pair shares. But the freedom of V-O changes W_O,
    which writes to the stream, on its other side, and so do the maps before a convolution in its
    block. The freedom of such a pair is "outer"; it is "scale" if only the size of a map is free.

    Parameters
    ----------
    pairs
        All pairs of a network.

    Examples
    --------
    >>> with_outer_freedoms([])
    ()
    """
    inside: dict[_Key, set[Freedom]] = {}
    for pair in pairs:
        if not _fixed(pair):
            for side in (pair.write, pair.read):
                inside.setdefault(_key(side), set()).add(pair.freedom)
    return tuple(
        replace(pair, freedom=_outer(inside, pair)) if _fixed(pair) else pair for pair in pairs
    )


def _fixed(pair: PairGroup) -> bool:
    """Whether other maps read or write the space of a pair, which then has no freedom."""
    return pair.kind == "residual" or (pair.kind == "conv" and pair.freedom == "none")


def _outer(inside: dict[_Key, set[Freedom]], pair: PairGroup) -> Freedom:
    freedoms = inside.get(_key(pair.write), set()) | inside.get(_key(pair.read), set())
    if freedoms & {"gl", "rotary", "scaling"}:
        return "outer"
    return "scale" if "scale" in freedoms else pair.freedom


def _key(side: Side) -> _Key:
    map_ = side.map
    return map_.tensor, tuple(sorted(map_.select.items())), tuple(sorted(map_.window.items()))
