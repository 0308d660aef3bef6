"""Indices into a stored tensor: checked once, then the same for every reader."""

from __future__ import annotations

import operator
from typing import TypeAlias

from flagscope.errors import InputError

Index: TypeAlias = tuple[slice | int, ...]


def resolved_index(index: Index, shape: tuple[int, ...], *, tensor: str) -> Index:
    """Index with one entry per axis, all bounds explicit and non-negative.

    Parameters
    ----------
    index
        One integer or slice of step 1 per leading axis; missing axes are taken whole. Negative
        numbers count from the end, and slices clip, as in Python.
    shape
        Shape of the tensor.
    tensor
        Its name, for the message.

    Raises
    ------
    InputError
        If there are more entries than axes, an integer lies outside its axis, or a slice has a
        step other than 1.

    Examples
    --------
    >>> resolved_index((slice(-2, None), -1), (6, 4, 3), tensor="w")
    (slice(4, 6, None), 3, slice(0, 3, None))
    """
    if not isinstance(index, tuple) or len(index) > len(shape):
        raise InputError(
            f"index {index!r} does not fit tensor {tensor!r} of shape {shape}.",
            hint="give a tuple with at most one integer or slice per axis.",
        )
    whole = (slice(None),) * (len(shape) - len(index))
    return tuple(
        _resolved_entry(entry, size, axis, tensor)
        for axis, (entry, size) in enumerate(zip(index + whole, shape, strict=True))
    )


def _resolved_entry(entry: slice | int, size: int, axis: int, tensor: str) -> slice | int:
    where = f"axis {axis} of tensor {tensor!r}, of size {size}"
    if isinstance(entry, slice):
        try:
            start, stop, step = entry.indices(size)
        except (TypeError, ValueError):  # bounds that are no integers, or step 0
            start, stop, step = 0, 0, 0
        if step != 1:
            raise InputError(
                f"slice {entry!r} cannot be read from {where}.",
                hint="use integer bounds and step 1; take steps from what was read.",
            )
        return slice(start, max(start, stop))
    try:
        position = operator.index(entry)
    except TypeError:
        raise InputError(
            f"index entry {entry!r} for {where} is neither an integer nor a slice.",
            hint="read a slice, then index the tensor that comes back.",
        ) from None
    if not -size <= position < size:
        raise InputError(
            f"index {position} lies outside {where}.", hint=f"use {-size} … {size - 1}."
        )
    return position % size


def index_shape(index: Index, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what a resolved index selects.

    Examples
    --------
    >>> index_shape((slice(4, 6), 0, slice(0, 3)), (6, 4, 3))
    (2, 3)
    """
    return tuple(
        entry.stop - entry.start
        for entry, _ in zip(index, shape, strict=True)
        if isinstance(entry, slice)
    )
