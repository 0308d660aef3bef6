"""Frames of a comparison: tensors, maps and circuits of heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flagscope.records.comparison import Comparison

if TYPE_CHECKING:
    import pandas

# Records inside a record stay in the JSON; a frame holds one value a cell.
_MAP_COLUMNS = (
    "name", "role", "stack", "layer", "expert", "tensor_a", "tensor_b", "slice", "norm_a", "norm_b",
    "change", "relative_a", "relative_b", "spectral_norm", "signal_rank", "participation",
    "rounding_share", "status",
)  # fmt: skip
_TENSOR_COLUMNS = (
    "name_a", "name_b", "by", "part", "layer_a", "layer_b", "type_a", "type_b", "content", "status",
)  # fmt: skip
_DIFFERENCE = (
    "entries",
    "equal",
    "relative_a",
    "relative_b",
    "cosine",
    "cosine_log10_p",
    "scale_b",
)
_HEAD_COLUMNS = (
    "name", "kind", "stack", "layer", "head", "freedom", "norm_a", "norm_b", "change", "relative_a",
    "relative_b", "raw_relative_a", "raw_relative_b", "floor", "rank", "status",
)  # fmt: skip


def tensors_frame(comparison: Comparison) -> pandas.DataFrame:
    """One row for each tensor that both sides hold."""
    rows = []
    for tensor in comparison.content.tensors if comparison.content else ():
        row = {column: getattr(tensor, column) for column in _TENSOR_COLUMNS}
        row |= {
            column: None if tensor.difference is None else getattr(tensor.difference, column)
            for column in _DIFFERENCE
        }
        row["outside_rounding"] = None if tensor.rounding is None else tensor.rounding.outside
        rows.append(row)
    return _frame(rows, (*_TENSOR_COLUMNS, *_DIFFERENCE, "outside_rounding"))


def maps_frame(comparison: Comparison) -> pandas.DataFrame:
    """One row for each map that was measured on both sides."""
    maps = comparison.change.maps if comparison.change else []
    return _frame([_row(entry, _MAP_COLUMNS) for entry in maps], _MAP_COLUMNS)


def heads_frame(comparison: Comparison) -> pandas.DataFrame:
    """One row for each product of two maps with a free basis between them, furthest moved first."""
    products = comparison.change.products if comparison.change else []
    ordered = sorted(products, key=lambda product: (product.rank is None, product.rank or 0))
    return _frame([_row(entry, _HEAD_COLUMNS) for entry in ordered], _HEAD_COLUMNS)


def _row(record: object, columns: tuple[str, ...]) -> dict[str, Any]:
    return {column: getattr(record, column) for column in columns}


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pandas.DataFrame:
    import pandas

    return pandas.DataFrame(rows, columns=list(columns))
