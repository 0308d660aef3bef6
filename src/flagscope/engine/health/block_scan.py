"""One pass over a matrix in row blocks: counts, zero rows and columns, hashes of rows and columns.

Equal rows have equal hashes: sums of the bit patterns of their entries, each times an odd
coefficient of its column, modulo 2³². Sums over blocks add up, so columns need no second pass.
Unequal rows rarely have equal hashes; `copies` looks at those again. All hashes of a matrix
together make its digest, by which whole tensors are compared without another pass.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# Entries of a block: with what is computed of it, it stays in the cache of a core.
BLOCK_ENTRIES = 2**18
# Rows and columns with fewer entries are often equal by chance, in low precision above all.
FEWEST_ENTRIES = 16
# Bytes of a digest: two unequal ones are the same with probability 2^-128.
DIGEST = 16
_STEP, _MIX = -7046029254386353131, -4658895280553007687  # of splitmix64, as signed integers


def coefficients(start: int, count: int) -> Tensor:
    """Odd 32-bit coefficients start … start + count of a fixed sequence."""
    x = torch.arange(start + 1, start + count + 1, dtype=torch.int64) * _STEP
    x = (x ^ (x >> 30)) * _MIX
    return ((x >> 32) | 1).to(torch.int32)


class Scratch:
    """Working memory of scans: coefficients of columns, and products of one block."""

    def __init__(self) -> None:
        self._along = self._products = torch.empty(0, dtype=torch.int32)

    def along(self, columns: int) -> Tensor:
        """Coefficients of the columns."""
        if len(self._along) < columns:
            self._along = coefficients(0, columns)
        return self._along[:columns]

    def products(self, like: Tensor) -> Tensor:
        """Memory of the shape of a block."""
        if self._products.numel() < like.numel():
            self._products = torch.empty(like.numel(), dtype=torch.int32)
        return self._products[: like.numel()].view(like.shape)


class BlockScan:
    """Accumulates what the row blocks of one matrix show.

    Parameters
    ----------
    rows, columns, spatial
        Shape of the matrix; `spatial` entries lie where a row and a column cross.
    scratch
        Working memory that the scans of several matrices share, one after the other.
    compare
        Whether to hash rows and columns.

    Attributes
    ----------
    nan, infinite, zeros
        Numbers of such entries so far.
    zero_rows, zero_columns
        Flags; of columns, whether all blocks so far are zero there.
    squares
        Sum of the squares of the entries so far; not finite where one of them is not.
    row_hashes, column_hashes
        None if they are too short to be compared.
    """

    def __init__(
        self, rows: int, columns: int, spatial: int, scratch: Scratch, *, compare: bool = True
    ) -> None:
        self._columns, self._spatial, self._scratch = columns, spatial, scratch
        self.nan = self.infinite = self.zeros = 0
        self.squares = 0.0
        self.zero_rows = np.zeros(rows, dtype=bool)
        self.zero_columns = np.ones(columns, dtype=bool)
        wide = compare and columns * spatial >= FEWEST_ENTRIES
        tall = compare and rows * spatial >= FEWEST_ENTRIES
        self.row_hashes = np.zeros(rows, dtype=np.int32) if wide else None
        self.column_hashes = torch.zeros(columns, dtype=torch.int32) if tall else None
        # Of what has no hashes, all bytes make the digest: little, or a vector.
        self._bytes = hashlib.blake2b(f"{rows} {columns} {spatial}".encode(), digest_size=DIGEST)
        self._first: float | None = None
        self._is_constant = True

    @property
    def constant(self) -> float | None:
        """The value of all entries, if there is one alone."""
        return self._first if self._is_constant else None

    def digest(self) -> bytes:
        """Equal for equal values, -0.0 and 0.0 alike; of others, equal only by a rare chance."""
        whole = self._bytes.copy()
        for hashes in (self.row_hashes, self.column_hashes):
            if hashes is not None:
                whole.update(np.asarray(hashes).tobytes())
        return whole.digest()

    def add(self, start: int, values: Float[Tensor, "r columns*spatial"]) -> None:
        """Add the block that begins at a row; float32 or float64, on the CPU."""
        rows = len(values)
        self._count_not_finite(values)
        flat = values.numpy()
        is_zero = flat == 0
        self.zeros += int(np.count_nonzero(is_zero))
        self.squares += _sum_of_squares(flat)
        self._compare_with_first(flat)
        self.zero_rows[start : start + rows] = self._rows_of_zeros(is_zero)
        self._drop_columns(is_zero)
        if self.row_hashes is None and self.column_hashes is None:
            self._bytes.update(bit_pattern(values).numpy().tobytes())
            return
        bits = _mixed(bit_pattern(values))
        products = self._scratch.products(bits)
        if self.row_hashes is not None:
            torch.mul(bits, self._scratch.along(bits.shape[1]), out=products)
            self.row_hashes[start : start + rows] = products.sum(1, dtype=torch.int32).numpy()
        if self.column_hashes is not None:
            down = coefficients(start * self._spatial, rows * self._spatial)
            shape = (rows, self._columns, self._spatial)
            torch.mul(bits.view(shape), down.view(rows, 1, self._spatial), out=products.view(shape))
            self.column_hashes += products.view(shape).sum((0, 2), dtype=torch.int32)

    def _count_not_finite(self, values: Tensor) -> None:
        # A sum is finite only if all terms are; where it is not, it may have left the range.
        if bool(torch.isfinite(values.sum())):
            return
        self.nan += int(torch.isnan(values).sum())
        self.infinite += int(torch.isinf(values).sum())

    def _compare_with_first(self, flat: np.ndarray) -> None:
        if not self._is_constant or not flat.size:
            return
        if self._first is None:
            self._first = float(flat[0, 0])
        # Nearly always the first row decides.
        self._is_constant = bool((flat[0] == self._first).all() and (flat == self._first).all())

    def _rows_of_zeros(self, is_zero: np.ndarray) -> np.ndarray:
        candidates = is_zero[:, 0].copy()
        if candidates.any():
            candidates[candidates] = is_zero[candidates].all(axis=1)
        return candidates

    def _drop_columns(self, is_zero: np.ndarray) -> None:
        """Of the columns that were zero so far, keep those that are zero in a block."""
        left = np.flatnonzero(self.zero_columns)
        if not left.size:
            return
        by_column = is_zero.reshape(len(is_zero), self._columns, self._spatial)
        left = left[by_column[0, left].all(axis=1)]
        kept = left[by_column[:, left].all(axis=(0, 2))] if left.size else left
        self.zero_columns[:] = False
        self.zero_columns[kept] = True


def _sum_of_squares(flat: np.ndarray) -> float:
    """The sum over a block: of float32 in float32, unless that leaves its range."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        entries = flat.reshape(-1)
        total = float(entries @ entries)
        if 0 < total < math.inf or flat.dtype == np.float64:
            return total
        wide = entries.astype(np.float64)
        return float(wide @ wide)


def bit_pattern(values: Tensor) -> Tensor:
    """The bits of float32 or float64 values as integers, those of -0.0 and 0.0 alike."""
    return (values + 0.0).view(torch.int64 if values.dtype == torch.float64 else torch.int32)


def _mixed(bits: Tensor) -> Tensor:
    """32 bits of each pattern, in which no half is empty; 32-bit patterns are changed in place.

    Values of 16 bits leave the lower half of a wider pattern empty, and with it half of a hash.
    """
    if bits.dtype == torch.int64:
        bits = (bits ^ (bits >> 32)).to(torch.int32)
    return bits.bitwise_xor_(bits >> 16)
