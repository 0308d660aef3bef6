"""What a look at one tensor gives: a few counts, and which rows and columns are zero or copies."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# Copies that are listed of one tensor and side; all of them are counted.
MOST_COPIES = 65_536


@dataclass(frozen=True)
class Copies:
    """Rows or columns that equal an earlier one bit for bit.

    Attributes
    ----------
    count
        Number of them.
    pairs
        (index, index of the first that equals it), at most `MOST_COPIES`.
    """

    count: int = 0
    pairs: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class TensorHealth:
    """What one tensor shows.

    Rows and columns of a stack of matrices are counted through: those of the second matrix follow
    those of the first.

    Attributes
    ----------
    tensor
        Its name.
    entries
        Number of its entries.
    nan, infinite, zeros
        Number of entries that are NaN, infinite, zero.
    constant
        The value of all entries, if there is one alone.
    zero_rows, zero_columns
        Flags of the rows and columns whose entries are all zero, from `packed`; a vector's rows
        are its entries.
    digest
        Equal for tensors of equal values and shapes.
    rms
        Root of the mean square of the entries; None where one is not finite.
    copied_rows, copied_columns
        Those that equal another one and are not zero.
    """

    tensor: str
    entries: int
    nan: int = 0
    infinite: int = 0
    zeros: int = 0
    constant: float | None = None
    digest: str = ""
    rms: float | None = None
    zero_rows: str = ""
    zero_columns: str = ""
    copied_rows: Copies = Copies()
    copied_columns: Copies = Copies()


def packed(flags: Sequence[bool] | np.ndarray) -> str:
    """Flags as text, empty if none is set: an eighth of a byte each, and a third more as text.

    Examples
    --------
    >>> unpacked(packed([False, True, True]), 3).tolist(), packed([False]), unpacked("", 2).tolist()
    ([False, True, True], '', [False, False])
    """
    array = np.asarray(flags, dtype=bool)
    if not array.any():
        return ""
    return base64.b64encode(np.packbits(array).tobytes()).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """The flags of a text from `packed`."""
    if not text:
        return np.zeros(count, dtype=bool)
    bits = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(bits, count=count).astype(bool)
