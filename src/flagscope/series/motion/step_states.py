"""The maps of one step, measured one after the other, and their form in a store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flagscope.checkpoint import Checkpoint
from flagscope.comparison.change.pairing import NamedMap
from flagscope.comparison.change.reading import map_in_piece, one_side
from flagscope.engine import return_freed_memory
from flagscope.engine.cache.stored_tensor import read_piece
from flagscope.engine.plan.pieces import Piece
from flagscope.records import Freedom
from flagscope.series.motion.state import MapState, map_state

# Bytes that measuring a map takes for each of its entries.
_BYTES = 28


@dataclass(frozen=True)
class MapPlace:
    """Which map it is: what does not change over a series."""

    name: str
    role: str
    stack: str
    layer: int | None
    expert: int | None
    tensor: str
    shape: tuple[int, int]
    write_freedom: Freedom
    read_freedom: Freedom
    unknown: bool


States = Mapping[MapPlace, MapState | None]
"""The maps of a step; None where one is not finite, or beyond double precision."""


def measured_states(
    checkpoint: Checkpoint, maps: Iterable[NamedMap]
) -> dict[MapPlace, MapState | None]:
    """Read each map of a checkpoint once and keep what its motion takes.

    Parameters
    ----------
    checkpoint
        As the graph takes it.
    maps
        Maps of its graph; those that share the rows of a tensor are cut out of one reading.

    Raises
    ------
    SourceError
        If a tensor cannot be read.
    """
    groups: dict[Piece, list[NamedMap]] = {}
    found: dict[MapPlace, MapState | None] = {}
    for named in maps:
        found[_place(named)] = None  # in the order of the graph
        groups.setdefault(map_in_piece(named).piece, []).append(named)
    for piece, members in groups.items():
        stored = read_piece(checkpoint, piece)
        for named in members:
            place = _place(named)
            if 0 not in place.shape:
                side = one_side(map_in_piece(named).cut(stored))
                found[place] = None if side is None else map_state(side)
            return_freed_memory(_BYTES * place.shape[0] * place.shape[1])
    return found


def _place(named: NamedMap) -> MapPlace:
    map_ = named.map
    kernel = math.prod(map_.extent(axis) for axis in map_.spatial)
    return MapPlace(
        name=named.title,
        role=map_.role,
        stack=named.stack,
        layer=None if named.in_sequence else named.layer,
        expert=named.expert,
        tensor=map_.tensor,
        shape=(map_.outputs, map_.inputs * kernel),
        write_freedom=named.write_freedom,
        read_freedom=named.read_freedom,
        unknown=named.unknown,
    )
