"""Maps of layers and heads: how close each head is to another of its layer."""

from __future__ import annotations

from dataclasses import dataclass

from flagscope.records import HeadRecord, ScanResult
from flagscope.report.ratio_scale import ratio_heat, ratio_limit
from flagscope.report.spec import Spec, axis, layout
from flagscope.report.tracks import HeadTrack, head_tracks


@dataclass(frozen=True)
class HeadMap:
    """One space: a row for each layer and a cell for each head.

    Parameters
    ----------
    key, title
        Of the space, as of its track.
    layers
        Numbers of the layers.
    cells
        Overlap with the closest other head of the layer in units of chance; None where it is not
        known.
    """

    key: str
    title: str
    layers: tuple[int, ...]
    cells: tuple[tuple[float | None, ...], ...]

    @property
    def width(self) -> int:
        """The most heads of a layer."""
        return max(len(row) for row in self.cells)


def head_maps(result: ScanResult) -> list[HeadMap]:
    """The map of each space; empty without heads.

    The number of a head is the largest of its row of the matrix of its layer, as on the page. It is
    functional: no change of basis inside a head moves it.
    """
    return [_map(track) for track in head_tracks(result)]


def shade_limit(maps: list[HeadMap]) -> float:
    """The end of a colour scale that holds all of their numbers, at least 2, at most 32."""
    return ratio_limit(
        value for one in maps for row in one.cells for value in row if value is not None
    )


def head_map_spec(chosen: HeadMap, limit: float) -> Spec:
    """A heat map of layers and heads."""
    heat = ratio_heat(
        [str(layer) for layer in chosen.layers],
        [str(head) for head in range(chosen.width)],
        chosen.cells,
        limit,
        gap=1,
        hover="layer %{y}, head %{x}",
    )
    style = {"type": "category", "showgrid": False, "ticks": "", "nticks": 16}
    return {
        "data": [heat],
        "layout": layout(x=axis("head", **style), y=axis("layer", **style, autorange="reversed")),
    }


def _map(track: HeadTrack) -> HeadMap:
    rows = tuple(_row(group) for group in track.groups)
    return HeadMap(track.key, track.title, tuple(group.layer for group in track.groups), rows)


def _row(group: HeadRecord) -> tuple[float | None, ...]:
    closest = (closest_head(group, head) for head in range(group.count))
    return tuple(None if one is None else one[0] for one in closest)


def closest_head(group: HeadRecord, head: int) -> tuple[float, int] | None:
    """The largest overlap of a head with another of its group, in units of chance, and that head.

    None where it is not known: no overlap of two heads is kept, or there is only one.
    """
    if group.pairwise is None:
        return None
    others = [(ratio, i) for i, ratio in enumerate(group.pairwise[head]) if i != head]
    return max(others, default=None)
