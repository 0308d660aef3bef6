"""Entries and scales in words: where they are, what they hold, which of their bits differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from flagscope.checkpoint.dtypes import dtype_name
from flagscope.comparison.content.reading import bits_of

# Of an entry with more differing bits than this, only their number is said.
_FEW_BITS = 3


def differing_bits(one: Tensor, other: Tensor) -> str | None:
    """Which bits of two stored numbers of one type differ; None where none do.

    Examples
    --------
    >>> import torch
    >>> differing_bits(torch.tensor(1.0), torch.tensor(-1.0))
    'bit 31 of the stored float32'
    """
    if one.dtype != other.dtype:
        return None
    changed = int(bits_of(one.reshape(1)) ^ bits_of(other.reshape(1)))
    return code_bits(changed, 8 * one.element_size(), f"stored {dtype_name(one.dtype)}")


def code_bits(changed: int, width: int, what: str) -> str | None:
    """Bits of a number of `width` bits that are set in `changed`, in words.

    Examples
    --------
    >>> code_bits(0b1000, 4, "code of 4 bits"), code_bits(0b1111, 8, "code of 8 bits")
    ('bit 3 of the code of 4 bits', '4 bits of the code of 8 bits')
    """
    places = [place for place in range(width) if changed >> place & 1]
    if not places:
        return None
    if len(places) == 1:
        return f"bit {places[0]} of the {what}"
    if len(places) <= _FEW_BITS:
        return f"bits {', '.join(map(str, places))} of the {what}"
    return f"{len(places)} bits of the {what}"


def in_words(value: float) -> str:
    """A number as it is printed in words.

    Examples
    --------
    >>> in_words(0.1), in_words(float("nan"))
    ('0.1', 'NaN')
    """
    if math.isnan(value):
        return "NaN"
    return f"{value:.9g}" if math.isfinite(value) else ("infinity", "-infinity")[value < 0]


def finite(value: float) -> float | None:
    """The number; None for what a record cannot hold."""
    return value if math.isfinite(value) else None


def position(flat: int, shape: Sequence[int], first_row: int) -> tuple[int, ...]:
    """Index of an entry of a run of rows in the whole tensor.

    Examples
    --------
    >>> position(5, (2, 4), 10)
    (11, 1)
    """
    index: list[int] = []
    for size in reversed(shape):
        flat, rest = divmod(flat, size)
        index.append(rest)
    index.reverse()
    return (index[0] + first_row, *index[1:])
