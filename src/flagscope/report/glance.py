"""The overview table of the page: every track and head space, and its numbers over depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from flagscope.observables import (
    AT_A_GLANCE,
    EXPLANATIONS,
    PAIR_OBSERVABLE,
    UNTESTABLE,
    Band,
    null_band,
    untestable,
)
from flagscope.records import ScanResult
from flagscope.report.dominant import stands_out
from flagscope.report.error_rate import ErrorRate
from flagscope.report.freedom import labels_of
from flagscope.report.sparkline import sparkline
from flagscope.report.tracks import HeadTrack, Track, head_tracks, tracks
from flagscope.report.wording import MISSING, NONE_STANDS, counted, number

HEAD_OBSERVABLES = ("overlap_ratio", "shared_directions")


@dataclass(frozen=True)
class GlanceCell:
    """One diagnostic of one row: median, range, line over depth, null."""

    value: str
    range: str
    chance: str
    label: str
    spark: Markup


@dataclass(frozen=True)
class GlanceRow:
    """One track or head space."""

    title: str
    size: str
    beyond: str
    target: str
    cells: tuple[GlanceCell, ...]


def pair_rows(result: ScanResult) -> list[GlanceRow]:
    """One row per track of pairs."""
    rate = ErrorRate.of(result)
    return [
        GlanceRow(
            title=track.title,
            size=_size(track),
            beyond=rate.counted(track.pairs),
            target=f"track/{track.key}",
            cells=(
                _product_cell(result, track),
                *(_pair_cell(result, track, name) for name in AT_A_GLANCE),
            ),
        )
        for track in tracks(result)
    ]


def pair_columns(rows: Sequence[GlanceRow]) -> list[tuple[str, str, bool]]:
    """Title and symbol of each column of pairs, and whether all of its numbers are gauge."""
    words = [("Effective rank of W2 W1", "r(M)")]
    words += [(EXPLANATIONS[name].title, EXPLANATIONS[name].symbol) for name in AT_A_GLANCE]
    labels = ({row.cells[i].label for row in rows if row.cells[i].label} for i in range(len(words)))
    return [(*pair, known == {"gauge"}) for pair, known in zip(words, labels, strict=True)]


def head_rows(result: ScanResult) -> list[GlanceRow]:
    """One row per head space."""
    rate = ErrorRate.of(result)
    return [
        GlanceRow(
            title=track.title,
            size=_head_size(track),
            beyond=rate.counted(track.groups),
            target=f"heads/{result.heads.index(track.groups[0])}",
            cells=tuple(_head_cell(track, name) for name in HEAD_OBSERVABLES),
        )
        for track in head_tracks(result)
    ]


def _size(track: Track) -> str:
    dims = sorted({pair.d for pair in track.pairs})
    d = f"{dims[0]:,}" if len(dims) == 1 else f"{dims[0]:,}–{dims[-1]:,}"
    return f"{counted(len(track.pairs), 'pair')}, d = {d}"


def _head_size(track: HeadTrack) -> str:
    first = track.groups[0]
    layers = counted(len(track.groups), "layer")
    return f"{layers} × {counted(first.count, 'head')}, rank {number(first.rank)} in {first.d:,}"


def _cell(
    values: Sequence[float | None],
    every: Sequence[float],
    bands: Sequence[Band | None],
    *,
    label: str,
    title: str,
    missing: str = MISSING,
) -> GlanceCell:
    if not every:
        return GlanceCell(missing, "", "", "", Markup(""))
    known = [band for band in bands if band is not None]
    chance = ""
    if known:
        mean = median(band.mean for band in known)
        low, high = median(b.low for b in known), median(b.high for b in known)
        interval = f" [{number(low)}, {number(high)}]" if low != high else ""
        chance = f"chance {number(mean)}{interval}"
    ends = f"{number(min(every))} to {number(max(every))}" if len(every) > 1 else ""
    more = "; ".join(part for part in (ends, chance) if part)
    spoken = f"{title}: median {number(median(every))}, {more}"
    spark = sparkline(values, bands, title=spoken) if len(values) > 1 else Markup("")
    return GlanceCell(number(median(every)), ends, chance, label, spark)


def _pair_cell(result: ScanResult, track: Track, name: str) -> GlanceCell:
    at: dict[int, list[float]] = {position: [] for position in track.depths}
    nulls: dict[int, Band | None] = dict.fromkeys(track.depths)
    for position, pair in zip(track.positions, track.pairs, strict=True):
        value = getattr(pair, name)
        if PAIR_OBSERVABLE[name].counts_meetings and untestable(pair):
            value = None
        if value is not None:
            at[position].append(value)
            nulls[position] = nulls[position] or null_band(pair, name)
    return _cell(
        [median(here) if here else None for here in at.values()],
        [value for here in at.values() for value in here],
        list(nulls.values()),
        label=labels_of(result, track.pairs[0]).get(name, ""),
        title=EXPLANATIONS[name].title,
        missing=_missing(track, name),
    )


def _product_cell(result: ScanResult, track: Track) -> GlanceCell:
    """The one number of a pair that stays the same under any rewriting of a linear pair."""
    at: dict[int, list[float]] = {position: [] for position in track.depths}
    for position, pair in zip(track.positions, track.pairs, strict=True):
        value = None if pair.functional is None else pair.functional.product_effective_rank
        if value is not None:
            at[position].append(value)
    return _cell(
        [median(here) if here else None for here in at.values()],
        [value for here in at.values() for value in here],
        [None for _ in at],
        label=labels_of(result, track.pairs[0]).get("product_effective_rank", ""),
        title="Effective rank of W2 W1",
    )


def _missing(track: Track, name: str) -> str:
    """Reason why a whole track has no number, in two words."""
    shown = PAIR_OBSERVABLE[name]
    if shown.dominant and not any(stands_out(pair) for pair in track.pairs):
        return NONE_STANDS
    if shown.counts_meetings and all(untestable(pair) for pair in track.pairs):
        return UNTESTABLE
    return MISSING


def _head_cell(track: HeadTrack, name: str) -> GlanceCell:
    values = [getattr(group, name) for group in track.groups]
    if name == "overlap_ratio":
        sds = [group.overlap_ratio_sd or 0.0 for group in track.groups]
        bands: list[Band | None] = [Band(1 - 2 * sd, 1.0, 1 + 2 * sd) for sd in sds]
    else:
        bands = [Band(0.0, 0.0, 0.0) for _ in values]
    key = "head_overlap_ratio" if name == "overlap_ratio" else name
    return _cell(
        values,
        [value for value in values if value is not None],
        bands,
        label="functional",
        title=EXPLANATIONS[key].title,
    )
