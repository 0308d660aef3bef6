"""A summary of a scan for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from statistics import median
from typing import NamedTuple

from flagscope.observables import EXPLANATIONS
from flagscope.records import HeadRecord, PairRecord, ScanResult
from flagscope.report.dominant import stands_out
from flagscope.report.error_rate import ErrorRate
from flagscope.report.freedom import UNKNOWN, freedom_word, labels_of
from flagscope.report.links import beyond_chance, complete, tested
from flagscope.report.tracks import head_tracks, tracks
from flagscope.report.wording import MISSING, NONE_STANDS, joined, measured, share_of


class LegendLine(NamedTuple):
    """What a word or letter of a table says, and the heading of the column that it belongs to."""

    column: str
    word: str
    text: str


@dataclass(frozen=True)
class SummaryTable:
    """Rows of text for a terminal or a page.

    Parameters
    ----------
    columns
        ``(heading, alignment)`` with alignment ``"left"`` or ``"right"``.
    rows
        One text per column; not escaped.
    caption
        What all of its numbers are.
    legend
        What each column says; to be shown for the columns that are.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    legend: tuple[LegendLine, ...]


def summary_table(result: ScanResult) -> SummaryTable:
    """One row per track of pairs and per head space: medians, ranges and counts beyond chance.

    Returns
    -------
    SummaryTable
        Ten or fewer rows for the usual model; every number is a median with its range.
    """
    columns = (
        ("", "left"),
        ("n", "right"),
        ("overlap (chance 1)", "right"),
        ("beyond chance", "right"),
        ("C (chance 1)", "right"),
        ("ρ (chance 0)", "right"),
        ("ν (chance ≈ 1)", "right"),
        ("undefined", "right"),
    )
    rate = ErrorRate.of(result)
    rows: list[tuple[str, ...]] = []
    for track in tracks(result):
        rows.append(
            (
                track.title,
                f"{len(track.pairs):,}",
                _spread(track.pairs, "overlap_ratio") if _standing(track.pairs) else NONE_STANDS,
                rate.counted(track.pairs),
                *(
                    _spread(track.pairs, name)
                    for name in ("commutator_ratio", "gram_correlation", "commutation_defect")
                ),
                _undefined(track.pairs),
            )
        )
    for heads in head_tracks(result):
        title = heads.title.replace("space", "heads, R")
        ratio = _spread(heads.groups, "overlap_ratio")
        beyond, undefined = rate.counted(heads.groups), _undefined(heads.groups)
        count = f"{len(heads.groups):,}"
        rows.append((title, count, ratio, beyond, "", "", "", undefined))
    caption = "Medians [range]."
    quiet = sum(not stands_out(pair) for pair in result.pairs)
    if quiet:
        caption += (
            f" In {share_of(quiet, len(result.pairs), 'pair')} no direction stands out of the bulk "
            "of a map: there is no overlap of dominant spaces, and the test looks at other ranks."
        )
    if tested(result):
        rows.append(_links(result))
        if not complete(result):
            caption += f" Of the links, the {len(result.edges):,} furthest from chance are kept."
    return SummaryTable(columns, tuple(rows), caption, _legend(result, columns, rate))


def _legend(
    result: ScanResult, columns: Sequence[tuple[str, str]], rate: ErrorRate
) -> tuple[LegendLine, ...]:
    """What each column says, in the words of the glossary."""
    _, n, overlap, beyond, commutator, correlation, defect, undefined = (
        name for name, _ in columns
    )
    tested_here = joined(
        words
        for words, some in (("overlaps", result.pairs or tested(result)), ("R", result.heads))
        if some
    )
    counts = joined(
        words
        for words, some in (("pairs of maps", result.pairs), ("layers with heads", result.heads),
                            ("links", tested(result)))
        if some
    )  # fmt: skip
    lines = [LegendLine(n, "n", f"how many {counts}")]
    if result.pairs:
        lines.append(LegendLine(overlap, "overlap", EXPLANATIONS["overlap_ratio"].legend))
    if tested(result):
        legend = EXPLANATIONS["edge_overlap_ratio"].legend
        lines.append(LegendLine(overlap, "overlap of links", legend))
    if result.heads:
        lines.append(LegendLine(overlap, "R", EXPLANATIONS["head_overlap_ratio"].legend))
    return (
        *lines,
        LegendLine(
            beyond, beyond,
            f"how many {tested_here}, to either side (Benjamini-Hochberg over all tests at "
            f"{rate.level:.0%}); C and ρ: in the findings",
        ),
        LegendLine(commutator, "C", EXPLANATIONS["commutator_ratio"].legend),
        LegendLine(correlation, "ρ", EXPLANATIONS["gram_correlation"].legend),
        LegendLine(defect, "ν", EXPLANATIONS["commutation_defect"].legend),
        LegendLine(undefined, undefined, "how many have no number, or not all"),
        *(LegendLine(n, *line) for line in _basis_lines(result)),
    )  # fmt: skip


_SYMBOLS = {
    "overlap_ratio": "overlap", "commutator_ratio": "C", "gram_correlation": "ρ",
    "commutation_defect": "ν",
}  # fmt: skip


def _basis_lines(result: ScanResult) -> list[tuple[str, str]]:
    """Which numbers of which rows depend on the choice of basis, or may."""
    rows: dict[tuple[str, ...], list[str]] = {}
    open_ends = []
    for track in tracks(result):
        labels = labels_of(result, track.pairs[0])
        if freedom_word(track.pairs[0]) == UNKNOWN:
            open_ends.append(track.title)
        moved = tuple(word for name, word in _SYMBOLS.items() if labels.get(name) == "gauge")
        if moved:
            rows.setdefault(moved, []).append(track.title)
    lines = [
        ("gauge", f"{joined(moved)} of {joined(titles, limit=9)}: they depend on the choice of "
         "basis")
        for moved, titles in rows.items()
    ]  # fmt: skip
    if open_ends:
        lines.append(("not known", f"whether numbers of {joined(open_ends, limit=9)} are gauge"))
    return lines


def _links(result: ScanResult) -> tuple[str, ...]:
    """Links have no median: the ones that are kept are the ones that stand out."""
    largest = max((edge.overlap_ratio for edge in result.edges), default=None)
    far = sum(beyond_chance(result, "overlap"))
    if complete(result):
        beyond = f"{far:,} of {tested(result):,}"
    else:  # of the rest nothing is known but that they are nearer to chance
        beyond = f"{far:,}+ of {tested(result):,}" if far else f"none of {len(result.edges):,} kept"
    if not ErrorRate.of(result).held:
        beyond = MISSING
    ratio = "" if largest is None else f"up to {measured(largest)}"
    return ("Links between heads", f"{tested(result):,}", ratio, beyond, "", "", "", "")


def _spread(records: Sequence[PairRecord] | Sequence[HeadRecord], name: str) -> str:
    values = [value for record in records if (value := getattr(record, name)) is not None]
    if not values:
        return MISSING
    if len(values) == 1:
        return measured(values[0])
    low, high = _outward(min(values), ROUND_FLOOR), _outward(max(values), ROUND_CEILING)
    return f"{measured(median(values))} [{measured(low, 2)}, {measured(high, 2)}]"


def _outward(value: float, rounding: str) -> float:
    """The end of a range at two digits, rounded away from it, so that the range still holds all."""
    return float(Context(prec=2, rounding=rounding).create_decimal(repr(value)))


def _standing(pairs: Sequence[PairRecord]) -> bool:
    """Whether some pair has dominant spaces, or nothing is known of that."""
    return any(stands_out(pair) for pair in pairs)


def _undefined(records: Sequence[PairRecord] | Sequence[HeadRecord]) -> str:
    count = sum(record.status != "ok" for record in records)
    return f"{count:,}" if count else ""
