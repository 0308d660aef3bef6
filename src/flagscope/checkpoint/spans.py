"""Where a slice of a tensor lies in the row-major order of its elements."""

from __future__ import annotations

from math import prod

from flagscope.checkpoint.indexing import Index


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
        Elements of the row-major order: all of the slice, and nothing beside it where the slice
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
