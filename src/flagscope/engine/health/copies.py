"""Rows and columns that equal an earlier one bit for bit, among those with equal hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from flagscope.engine.health.block_scan import DIGEST, BlockScan, bit_pattern
from flagscope.engine.health.tensor_health import MOST_COPIES, Copies


class CopySearch:
    """Second look at the rows and columns of a matrix whose hashes are equal.

    Rows are compared by a cryptographic digest of all their bytes, so that memory does not grow
    with them; columns directly, each with the first of the same hash.

    Parameters
    ----------
    scan
        The finished pass over the matrix.
    spatial
        Entries where a row and a column cross.
    """

    def __init__(self, scan: BlockScan, spatial: int) -> None:
        self._spatial = spatial
        self._rows = _repeated(scan.row_hashes, scan.zero_rows)
        hashes = None if scan.column_hashes is None else scan.column_hashes.numpy()
        columns = _repeated(hashes, scan.zero_columns)
        first: dict[int, int] = {}
        pairs = [
            (int(column), first.setdefault(int(hashes[column]), int(column)))
            for column in columns if hashes is not None
        ]  # fmt: skip
        later = [pair for pair in pairs if pair[0] != pair[1]]
        self._later = torch.tensor([column for column, _ in later], dtype=torch.int64)
        self._firsts = torch.tensor([column for _, column in later], dtype=torch.int64)
        self._first_rows: dict[bytes, int] = {}
        self._row_pairs: list[tuple[int, int]] = []
        self._row_count = 0

    @property
    def wants_all(self) -> bool:
        """Whether every row is needed: columns are compared."""
        return bool(self._later.numel())

    def wants(self, start: int, stop: int) -> bool:
        """Whether any of these rows is needed."""
        if self.wants_all:
            return True
        low, high = np.searchsorted(self._rows, (start, stop))
        return bool(high > low)

    def add(self, start: int, values: Tensor) -> None:
        """Add the block that begins at a row: the same blocks as the scan's, in order."""
        bits = bit_pattern(values)
        low, high = np.searchsorted(self._rows, (start, start + len(bits)))
        for row in self._rows[low:high]:
            raw = bits[row - start].numpy().tobytes()
            digest = hashlib.blake2b(raw, digest_size=DIGEST).digest()
            first = self._first_rows.setdefault(digest, int(row))
            if first != row:
                self._row_count += 1
                if len(self._row_pairs) < MOST_COPIES:
                    self._row_pairs.append((int(row), first))
        if self._later.numel():
            by_column = bits.view(len(bits), -1, self._spatial)
            alike = (by_column[:, self._later] == by_column[:, self._firsts]).all(2).all(0)
            self._later, self._firsts = self._later[alike], self._firsts[alike]

    def rows(self) -> tuple[int, list[tuple[int, int]]]:
        """Number of copied rows, and pairs (row, first row)."""
        return self._row_count, self._row_pairs

    def columns(self) -> tuple[int, list[tuple[int, int]]]:
        """Number of copied columns, and pairs (column, first column)."""
        pairs = zip(self._later.tolist(), self._firsts.tolist(), strict=True)
        return self._later.numel(), list(pairs)[:MOST_COPIES]


def joined(parts: Iterable[tuple[int, list[tuple[int, int]]]], length: int) -> Copies:
    """Copies in each matrix of a stack, counted through; `length` is that of one matrix."""
    count = 0
    pairs: list[tuple[int, int]] = []
    for number, (some, listed) in enumerate(parts):
        count += some
        pairs += _moved(listed[: MOST_COPIES - len(pairs)], number * length)
    return Copies(count, pairs)


def _moved(pairs: list[tuple[int, int]], by: int) -> Iterator[tuple[int, int]]:
    return ((index + by, first + by) for index, first in pairs)


def _repeated(hashes: np.ndarray | None, zero: np.ndarray) -> np.ndarray:
    """Indices, in order, whose hash occurs more than once; without rows of zeros."""
    if hashes is None:
        return np.zeros(0, dtype=np.int64)
    indices = np.flatnonzero(~zero)
    own = hashes[indices]
    order = np.argsort(own, kind="stable")
    same = own[order][1:] == own[order][:-1]
    repeated = np.zeros(len(own), dtype=bool)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    return indices[repeated]
