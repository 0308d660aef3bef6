"""Pieces of tensors: the units in which tasks read them and the cache keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flagscope.arch import LinearMap


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows start … stop of a stored tensor; the rows of a vector are its entries.

    Rows are contiguous in a file, so whole rows are read whichever columns a map takes, and maps
    that lie side by side in one tensor share a piece.
    """

    tensor: str
    start: int
    stop: int


def piece_of(map_: LinearMap) -> Piece:
    """The piece that contains the maps."""
    index = map_.index()
    rows = map_.shape[0]
    if index is None:
        return Piece(map_.tensor, 0, rows)
    start, stop, _ = index[0].indices(rows)
    return Piece(map_.tensor, start, stop)


def rest_of(map_: LinearMap) -> tuple[slice, ...]:
    """Index of the maps within their piece: columns and further axes."""
    index = map_.index()
    return () if index is None else (slice(None), *index[1:])


def piece_bytes(maps: Iterable[LinearMap], sizes: Mapping[str, int]) -> dict[Piece, int]:
    """The pieces that contain the maps, and the bytes of each.

    Parameters
    ----------
    maps
        In the order in which they are read.
    sizes
        Bytes of each stored tensor.
    """
    sizes_of: dict[Piece, int] = {}
    for map_ in maps:
        piece = piece_of(map_)
        rows = max(1, map_.shape[0])
        sizes_of[piece] = sizes[map_.tensor] * (piece.stop - piece.start) // rows
    return sizes_of
