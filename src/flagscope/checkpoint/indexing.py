"""Indices into a stored tensor, checked once, and the runs of elements that they select."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import TypeAlias

from torch import Tensor

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
        except (TypeError, ValueError):  # bounds that are not integers, or step 0
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


def covering_span(index: Index, shape: tuple[int, ...]) -> tuple[int, int, tuple[int, ...], Index]:
    """The run of elements that covers a slice, and how to take the slice from it.

    Parameters
    ----------
    index
        Resolved for every axis.
    shape
        Of the tensor.

    Returns
    -------
    start, stop
        Elements of the row-major order: all of the slice, and nothing else where the slice
        takes whole rows.
    block
        Shape of the run.
    rest
        Index that takes the slice from the block.

    Examples
    --------
    >>> covering_span((2, slice(1, 3), slice(0, 5)), (4, 6, 5))
    (65, 75, (2, 5), (slice(None, None, None), slice(0, 5, None)))
    """
    start = 0
    for axis, (size, entry) in enumerate(zip(shape, index, strict=True)):
        start *= size
        if isinstance(entry, int):
            start += entry
            continue
        below = shape[axis + 1 :]
        row = prod(below)
        block = (entry.stop - entry.start, *below)
        rest = (slice(None), *index[axis + 1 :])
        return (start + entry.start) * row, (start + entry.stop) * row, block, rest
    return start, start + 1, (), ()


def read_turned(read: Callable[[Index], Tensor], index: Index, order: tuple[int, ...]) -> Tensor:
    """A slice of the tensor with axes permuted, reading no more of the stored one.

    Parameters
    ----------
    read
        Gives a slice of the stored tensor.
    index
        Resolved, for the permuted one.
    order
        Which stored axis lies along each axis, as for `torch.permute`.

    Examples
    --------
    >>> import torch
    >>> stored = torch.arange(6).reshape(2, 3)
    >>> read_turned(lambda index: stored[index], (2, slice(0, 2)), (1, 0)).tolist()
    [2, 5]
    """
    stored: list[slice | int] = [slice(None)] * len(order)
    for axis, entry in zip(order, index, strict=True):
        stored[axis] = slice(entry, entry + 1) if isinstance(entry, int) else entry
    rest = tuple(0 if isinstance(entry, int) else slice(None) for entry in index)
    return read(tuple(stored)).permute(order)[rest]


def strided_runs(shape: Sequence[int], stride: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Steps and lengths of the axes, the shortest step first; axes that follow on become one.

    Examples
    --------
    >>> strided_runs((3, 2), (2, 1)), strided_runs((2, 3), (1, 2))
    (((1, 6),), ((1, 6),))
    """
    runs: list[tuple[int, int]] = []
    for step, length in sorted(zip(stride, shape, strict=True)):
        if length == 1:
            continue
        if runs and step == runs[-1][0] * runs[-1][1]:
            runs[-1] = (runs[-1][0], runs[-1][1] * length)
        else:
            runs.append((step, length))
    return tuple(runs)


def boxes(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Index]:
    """Indices that together select elements start … stop of the row-major order, in that order.

    At most two boxes an axis and one more, none of which holds an element outside the range.
    """
    if stop - start == prod(shape):
        yield ()
        return
    if len(shape) == 1:
        yield (slice(start, stop),)
        return
    row = prod(shape[1:])
    first, last = -(-start // row), stop // row
    if first > last:  # the range lies inside one row
        yield from _inside(shape, last, start, stop, row)
        return
    if start < first * row:
        yield from _inside(shape, first - 1, start, first * row, row)
    if first < last:
        yield (slice(first, last),)
    if last * row < stop:
        yield from _inside(shape, last, last * row, stop, row)


def _inside(
    shape: tuple[int, ...], position: int, start: int, stop: int, row: int
) -> Iterator[Index]:
    for rest in boxes(shape[1:], start - position * row, stop - position * row):
        yield (position, *rest)
