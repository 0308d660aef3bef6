"""Tables: a summary for a terminal, and data frames of every pair and every head group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from flagscope.observables import EXPLANATIONS
from flagscope.records import (
    Balanced,
    EdgeRecord,
    Functional,
    HeadRecord,
    MapReference,
    NullValues,
    OverlapTest,
    PairRecord,
    Record,
    ScanResult,
)
from flagscope.report.dominant import stands_out
from flagscope.report.error_rate import ErrorRate
from flagscope.report.freedom import UNKNOWN, freedom_word, labels_of
from flagscope.report.links import beyond_chance, complete, tested
from flagscope.report.tracks import head_tracks, tracks
from flagscope.report.wording import MISSING, NONE_STANDS, joined, measured, share_of

if TYPE_CHECKING:
    import pandas

# Arrays stay in the JSON; a frame holds one value a cell.
_PAIR_ARRAYS = ("cosines", "profile", "incidence")
_HEAD_ARRAYS = (
    "shared", "spectrum", "clusters", "cluster_tests", "order", "near_copies", "pairwise"
)  # fmt: skip
_NESTED_ARRAYS = ("functional_product_spectrum",)
MAIN_PAIR_COLUMNS = (
    "name", "kind", "layer", "head", "freedom", "overlap_ratio", "overlap_z", "gram_correlation",
    "commutator_ratio", "log10_p", "p_familywise", "status",
)  # fmt: skip
"""Columns of the frame of pairs that fit a screen."""
MAIN_HEAD_COLUMNS = (
    "stack", "attention", "layer", "space", "count", "rank", "overlap_ratio", "z", "p_familywise",
    "shared_directions", "near_copies_count", "status",
)  # fmt: skip
"""Columns of the frame of head groups that fit a screen."""
# Schema 1 held balanced numbers against the null of others, which does not fit them.
_BALANCED_Z = ("balanced_gram_correlation_z", "balanced_overlap_z")


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


def pairs_frame(result: ScanResult) -> pandas.DataFrame:
    """All pairs as a data frame, one row a pair.

    Nested records become prefixed columns (``write_tensor``, ``balanced_commutator_ratio``,
    ``null_overlap_ratio_sd``); labels become ``label_<observable>``. Arrays (cosines, profile,
    incidence surface, product spectrum) are in the result and its JSON, not here. Integers are
    nullable (``Int64``), missing floats are NaN next to a ``status`` that says why; so are the z of
    balanced numbers of schema 1, which had no null of their own. ``freedom`` is "unknown", and
    labels are missing, where it is not known what lies between the maps. All results have the same
    columns in the same order.

    Returns
    -------
    pandas.DataFrame
        In the order of the scan.
    """
    rows, held = [], ErrorRate.of(result).held
    for pair in result.pairs:
        row = _flat(pair.model_dump(exclude=set(_PAIR_ARRAYS)))
        labels = labels_of(result, pair)
        row["freedom"] = freedom_word(pair)
        row |= {f"label_{name}": label for name, label in labels.items() if name in row}
        if not held:
            row |= dict.fromkeys(_BALANCED_Z)
        rows.append(row)
    names = [*_columns(PairRecord, _PAIR_ARRAYS), *_nested_columns()]
    return _frame(rows, names, PairRecord)


def heads_frame(result: ScanResult) -> pandas.DataFrame:
    """All head groups as a data frame, one row a layer and space.

    Arrays (pairwise matrix, spectrum, clusters, shared directions) are in the result and its JSON;
    ``clusters_count`` and ``near_copies_count`` say how many there are.

    Returns
    -------
    pandas.DataFrame
        In the order of the scan.
    """
    rows = []
    for group in result.heads:
        row = _flat(group.model_dump(exclude=set(_HEAD_ARRAYS)))
        row["clusters_count"] = None if group.clusters is None else len(group.clusters)
        row["near_copies_count"] = len(group.near_copies)
        rows.append(row)
    names = [*_columns(HeadRecord, _HEAD_ARRAYS), "clusters_count", "near_copies_count"]
    return _frame(rows, names, HeadRecord)


def edges_frame(result: ScanResult) -> pandas.DataFrame:
    """The links from head to head as a data frame, one row a link.

    Columns are named as in the JSON (``from``, ``to``, ``overlap_ratio``, …);
    ``beyond_chance_overlap`` and ``beyond_chance_composition`` say which of them remain at the
    scan's false-discovery rate, over all tests of the report. The scan keeps the links
    that stand out: their distribution is not that of all links.

    Returns
    -------
    pandas.DataFrame
        In the order of the scan.
    """
    flags = {
        f"beyond_chance_{measure}": beyond_chance(result, measure)
        for measure in ("overlap", "composition")
    }
    rows = [
        edge.model_dump(by_alias=True) | {name: far[index] for name, far in flags.items()}
        for index, edge in enumerate(result.edges)
    ]
    names = [field.alias or name for name, field in EdgeRecord.model_fields.items()]
    return _frame(rows, [*names, *flags], EdgeRecord)


_PARTS: dict[str, type[Record]] = {
    "write": MapReference,
    "read": MapReference,
    "functional": Functional,
    "balanced": Balanced,
    "null": NullValues,
    "overlap_test": OverlapTest,
}


def _nested_columns() -> dict[str, Any]:
    """Names and types of the prefixed columns, which a result without such a record has too."""
    columns: dict[str, Any] = {}
    for key, part in _PARTS.items():
        for name, field in part.model_fields.items():
            full = f"{key}_{name}"
            if full == "null_commutator_ratio_interval":
                columns |= {f"null_commutator_ratio_{end}": float | None for end in ("low", "high")}
            elif full not in _NESTED_ARRAYS:
                columns[full] = field.annotation
    return columns


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries as prefixed keys, lists of names as text."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict) and key in _PARTS:
            flat |= {f"{key}_{name}": item for name, item in value.items()}
        elif key not in _PARTS:
            flat[key] = ", ".join(value) if isinstance(value, list) else value
    for key in _NESTED_ARRAYS:
        flat.pop(key, None)
    interval = flat.pop("null_commutator_ratio_interval", None)
    if interval is not None:
        flat["null_commutator_ratio_low"], flat["null_commutator_ratio_high"] = interval
    return flat


def _columns(record: type[PairRecord] | type[HeadRecord], arrays: Sequence[str]) -> list[str]:
    return [name for name in record.model_fields if name not in (*arrays, *_PARTS)]


def _frame(
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    record: type[PairRecord] | type[HeadRecord] | type[EdgeRecord],
) -> pandas.DataFrame:
    import pandas  # half a second that the command line need not pay

    further = [name for row in rows for name in row if name not in names]
    frame = pandas.DataFrame(list(rows), columns=list(dict.fromkeys([*names, *further])))
    nested = _nested_columns()
    for name in frame.columns:
        field = record.model_fields.get(name)
        annotation = nested.get(name) if field is None else field.annotation
        if annotation in (int | None, int) or str(name).endswith("_count"):
            frame[name] = frame[name].astype("Int64")
        elif annotation in (float | None, float) or _numbers(frame[name].tolist()):
            frame[name] = frame[name].astype("float64")
    return frame


def _numbers(column: Sequence[Any]) -> bool:
    known = [value for value in column if value is not None and not isinstance(value, bool)]
    return len(known) > 0 and all(isinstance(value, int | float) for value in known)
