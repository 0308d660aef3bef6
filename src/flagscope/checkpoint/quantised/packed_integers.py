"""Integers of a few bits in words of 32."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

WORD = 32


def unpacked_integers(
    words: Int[Tensor, "a b"], bits: int, *, axis: int, order: tuple[int, ...] | None = None
) -> Int[Tensor, "c d"]:
    """The integers in words of 32 bits, the lowest bits first.

    Parameters
    ----------
    words
        int32, (rows, columns).
    bits
        Of an integer, a divisor of 32.
    axis
        Along which neighbours share a word.
    order
        Which neighbour each part of a word holds; in turn if it is not given.

    Examples
    --------
    >>> unpacked_integers(torch.tensor([[0x76543210]]), 4, axis=1).tolist()
    [[0, 1, 2, 3, 4, 5, 6, 7]]
    """
    count = WORD // bits
    parts = [(words.to(torch.int64) >> (bits * i)) & (2**bits - 1) for i in range(count)]
    placed = parts if order is None else [parts[order.index(i)] for i in range(count)]
    return torch.stack(placed, dim=axis + 1).flatten(axis, axis + 1)
