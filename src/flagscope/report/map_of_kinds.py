"""Maps of pairs: each kind of pair over depth, by the pair furthest from chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from flagscope.observables import EXPLANATIONS, PAIR_OBSERVABLE, untestable
from flagscope.records import PairRecord, ScanResult
from flagscope.report.freedom import labels_of
from flagscope.report.maps import MapCell, MapScale, PageMap, scale_limit
from flagscope.report.spec import rounded
from flagscope.report.targets import pair_target
from flagscope.report.tracks import Track, tracks
from flagscope.report.wording import counted, number

_SHOWN: tuple[tuple[str, MapScale], ...] = (
    ("overlap_ratio", "ratio"),
    ("commutator_ratio", "ratio"),
    ("gram_correlation", "correlation"),
)
_DISTANCE: dict[MapScale, Callable[[float], float]] = {
    "ratio": lambda value: abs(math.log(max(value, 1e-9))),
    "correlation": abs,
    "count": abs,
}
_CHANCE: dict[MapScale, str] = {
    "ratio": "1 is chance.", "correlation": "0 is chance.", "count": "",
}  # fmt: skip


def kind_maps(result: ScanResult) -> list[PageMap]:
    """Maps of the kinds of pairs of a result, a diagnostic each; empty without pairs."""
    known = tracks(result)
    maps = (_map(result, known, name, scale) for name, scale in _SHOWN)
    return [one for one in maps if any(cell for row in one.cells for cell in row)]


def _map(result: ScanResult, known: Sequence[Track], name: str, scale: MapScale) -> PageMap:
    depths = sorted({position for track in known for position in track.positions})
    cells: list[list[MapCell]] = [_row(track, depths, name, scale) for track in known]
    labels = [labels_of(result, track.pairs[0]).get(name, "") for track in known]
    words = EXPLANATIONS[name]
    return PageMap(
        key=f"pairs/{name}",
        title=f"{words.title} of each kind of pair",
        group="Pairs",
        label=labels[0] if len(set(labels)) == 1 else "",
        words=f"{words.short} {_CHANCE[scale]} A cell is the pair furthest from that.",
        scale=scale,
        limit=scale_limit(scale, cells),
        row_title="kind of pair",
        column_title="layer" if all(track.by_layer for track in known) else "place in depth",
        rows=[track.title for track in known],
        row_labels=[str(label) for label in labels] if len(set(labels)) > 1 else [],
        columns=[str(depth) for depth in depths],
        cells=cells,
    )


def _row(track: Track, depths: Sequence[int], name: str, scale: MapScale) -> list[MapCell]:
    at: dict[int, list[tuple[float, PairRecord]]] = {}
    for position, pair in zip(track.positions, track.pairs, strict=True):
        value = getattr(pair, name)
        if value is None or (PAIR_OBSERVABLE[name].counts_meetings and untestable(pair)):
            continue
        at.setdefault(position, []).append((value, pair))
    return [_cell(at[depth], name, scale) if depth in at else None for depth in depths]


def _cell(here: Sequence[tuple[float, PairRecord]], name: str, scale: MapScale) -> MapCell:
    value, pair = max(here, key=lambda item: _DISTANCE[scale](item[0]))
    text = f"{pair.name}: {EXPLANATIONS[name].symbol} = {number(value)}"
    if len(here) > 1:
        text += f", the furthest from chance of {counted(len(here), 'pair')}"
    return [rounded(value, 3), text, pair_target(pair)]
