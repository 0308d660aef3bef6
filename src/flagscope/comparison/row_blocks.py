"""Tensors a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod


def row_blocks(shape: tuple[int, ...], most: int) -> Iterator[slice]:
    """Runs of rows of at most that many entries, a row at least; a number is a row.

    Examples
    --------
    >>> list(row_blocks((5, 3), 6)), list(row_blocks((), 6))
    ([slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)], [slice(0, 1, None)])
    """
    rows = shape[0] if shape else 1
    each = max(1, most // max(1, prod(shape[1:])))
    for start in range(0, rows, each):
        yield slice(start, min(start + each, rows))


def row_index(shape: tuple[int, ...], rows: slice) -> tuple[slice, ...]:
    """What reads a run of rows of a tensor; a number is read whole.

    Examples
    --------
    >>> row_index((5, 3), slice(0, 2)), row_index((), slice(0, 1))
    ((slice(0, 2, None),), ())
    """
    return (rows,) if shape else ()
