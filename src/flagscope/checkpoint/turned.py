"""Reading a slice of a tensor whose axes stand in another order than the file has them."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from flagscope.checkpoint.indexing import Index


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
