"""What is zero, or not finite, on one side alone: sums over the tensors of a comparison."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flagscope.records.comparison import nouns
from flagscope.records.comparison.content_parts import ContentNumbers, TensorContent

SideKey = Literal["a", "b"]

# Parts in which single rows are often zero: padding, tokens and positions that never occur.
_TABLES = ("embedding", "position", "head", "buffer")

# Share of the entries from which single zeros are said: rounding leaves fewer.
_MANY = 0.05


@dataclass(frozen=True)
class Zeroed:
    """Entries that are zero on one side and not on the other.

    Attributes
    ----------
    entries, rows, columns
        How many entries, and how many whole rows and columns of matrices.
    tensors
        Tensors with such rows or columns, or with such entries where there are none.
    beyond_tables
        Rows and columns outside of embeddings, positions, heads and buffers.
    """

    entries: int
    rows: int
    columns: int
    tensors: int
    beyond_tables: int


def zeroed(record: ContentNumbers, side: SideKey) -> Zeroed:
    """What is zero on this side alone."""
    counts = [(tensor, *_counts(tensor, side)) for tensor in record.tensors]
    lines = [tensor for tensor, _, rows, columns in counts if rows + columns]
    some = [tensor for tensor, entries, _, _ in counts if entries]
    return Zeroed(
        entries=sum(entries for _, entries, _, _ in counts),
        rows=sum(rows for _, _, rows, _ in counts),
        columns=sum(columns for _, _, _, columns in counts),
        tensors=len(lines or some),
        beyond_tables=sum(r + c for tensor, _, r, c in counts if tensor.part not in _TABLES),
    )


def only_zeroed(record: ContentNumbers) -> SideKey | None:
    """The side that is the other one with some entries set to zero; None if that is not all.

    None too where no matrix is among what is zero: the tensors by name say more then.
    """
    if record.unpaired_a.tensors or record.unpaired_b.tensors:
        return None
    matrices = [tensor for tensor in record.tensors
                if len(tensor.shape_a) > 1 and tensor.part != "buffer"]  # fmt: skip
    if not any(_counts(tensor, "a")[0] + _counts(tensor, "b")[0] for tensor in matrices):
        return None
    if any(tensor.difference is None or tensor.shape_a != tensor.shape_b
           or tensor.difference.not_finite_a or tensor.difference.not_finite_b
           for tensor in record.tensors):  # fmt: skip
        return None
    at_a, at_b = zeroed(record, "a").entries, zeroed(record, "b").entries
    changed = sum(
        tensor.difference.entries - tensor.difference.equal
        for tensor in record.tensors if tensor.difference
    )  # fmt: skip
    if bool(at_a) == bool(at_b) or changed != at_a + at_b:
        return None
    return "a" if at_a else "b"


def not_finite(record: ContentNumbers, side: SideKey) -> tuple[int, int]:
    """Entries of a side that are NaN or infinite, and in how many tensors."""
    counts = [
        tensor.difference.not_finite_a if side == "a" else tensor.difference.not_finite_b
        for tensor in record.tensors if tensor.difference
    ]  # fmt: skip
    return sum(counts), sum(count > 0 for count in counts)


def zeroed_words(found: Zeroed) -> str:
    """As in "1,024 rows and 512 columns of 8 tensors"."""
    parts = [
        f"{count:,} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((found.rows, "row"), (found.columns, "column")) if count
    ]  # fmt: skip
    if not parts:
        parts = [nouns.entries(found.entries)]
    return f"{' and '.join(parts)} of {nouns.tensors(found.tensors)}"


def worded_faults(record: ContentNumbers, sides: Iterable[tuple[SideKey, str, str]]) -> list[str]:
    """Lines on what is not finite, and on rows, columns and many entries that are zero.

    Parameters
    ----------
    record
        Its numbers.
    sides
        Each side, what it is called, and what the other one is.
    """
    broken: list[str] = []
    zero: list[str] = []
    compared = sum(tensor.difference.entries for tensor in record.tensors if tensor.difference)
    for side, name, other in sides:
        entries, tensors = not_finite(record, side)
        if entries:
            verb = "is" if entries == 1 else "are"
            broken.append(
                f"{nouns.entries(entries)} of {nouns.tensors(tensors)} {verb} NaN or infinite "
                f"in {name}"
            )
        found = zeroed(record, side)
        if found.rows or found.columns:
            one = found.rows + found.columns == 1
            zero.append(
                f"{zeroed_words(found)} {'is' if one else 'are'} zero in {name} and not in {other}"
            )
        elif found.entries >= _MANY * compared and found.entries:
            zero.append(f"{zeroed_words(found)} are zero in {name} and not in {other}")
    return [*broken, *zero]


def _counts(tensor: TensorContent, side: SideKey) -> tuple[int, int, int]:
    """Entries, rows and columns that are zero on this side alone."""
    difference = tensor.difference
    if difference is None:
        return 0, 0, 0
    if side == "a":
        return difference.zeros_a, difference.zero_rows_a, difference.zero_columns_a
    return difference.zeros_b, difference.zero_rows_b, difference.zero_columns_b
