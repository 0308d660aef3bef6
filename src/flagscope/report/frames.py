"""Data frames of every pair, every head group and every link."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
from flagscope.report.error_rate import ErrorRate
from flagscope.report.freedom import freedom_word, labels_of
from flagscope.report.links import beyond_chance

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
