"""Looks at one tensor: reads it block by block, twice only where rows may be copies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from flagscope.checkpoint import widen
from flagscope.engine.cache.stored_tensor import StoredTensor
from flagscope.engine.health.block_scan import BLOCK_ENTRIES, DIGEST, BlockScan, Scratch
from flagscope.engine.health.copies import CopySearch, joined
from flagscope.engine.health.tensor_health import TensorHealth, packed
from flagscope.engine.plan.look import Look
from flagscope.engine.plan.pieces import Piece

_WIDE = (torch.float64, torch.int32, torch.uint32)  # whose values float32 does not hold
Read = Callable[[Piece], StoredTensor]


def tensor_health(look: Look, read: Read) -> TensorHealth:
    """What a tensor shows; values are those that the weights stand for, scales applied.

    Parameters
    ----------
    look
        The tensor and its blocks.
    read
        Reads a block.

    Raises
    ------
    SourceError
        If it cannot be read.
    """
    matrices, rows, columns, spatial = look.sizes
    compare = look.kind != "vector"
    scratch = Scratch()
    scans = [BlockScan(rows, columns, spatial, scratch, compare=compare) for _ in range(matrices)]
    for piece in look.blocks:
        for number, start, values in _blocks(look, piece, read(piece)):
            scans[number].add(start, values)
    nan, infinite = sum(scan.nan for scan in scans), sum(scan.infinite for scan in scans)
    # What is not finite may stand in rows that are alike elsewhere: such a tensor is not searched.
    searches = [] if nan or infinite else [CopySearch(scan, spatial) for scan in scans]
    for piece in look.blocks:
        if _is_wanted(look, piece, searches):
            for number, start, values in _blocks(look, piece, read(piece)):
                if searches[number].wants(start, start + len(values)):
                    searches[number].add(start, values)
    constants = {scan.constant for scan in scans}
    return TensorHealth(
        tensor=look.tensor,
        entries=look.entries,
        nan=nan,
        infinite=infinite,
        zeros=sum(scan.zeros for scan in scans),
        constant=constants.pop() if len(constants) == 1 and not nan + infinite else None,
        digest=hashlib.blake2b(b"".join(s.digest() for s in scans), digest_size=DIGEST).hexdigest(),
        rms=_rms(sum(scan.squares for scan in scans), look.entries),
        zero_rows=packed(np.concatenate([scan.zero_rows for scan in scans])),
        zero_columns=packed(np.concatenate([scan.zero_columns for scan in scans])),
        copied_rows=joined((search.rows() for search in searches), rows),
        copied_columns=joined((search.columns() for search in searches), columns),
    )


def _rms(squares: float, entries: int) -> float | None:
    value = math.sqrt(squares / max(1, entries)) if squares >= 0 else math.nan
    return value if math.isfinite(value) else None


def _is_wanted(look: Look, piece: Piece, searches: list[CopySearch]) -> bool:
    if look.kind == "stack":
        return any(search.wants(0, look.sizes[1]) for search in searches[piece.start : piece.stop])
    return any(search.wants(piece.start, piece.stop) for search in searches)


def _blocks(look: Look, piece: Piece, stored: StoredTensor) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (matrix, first row, values) of small blocks of a piece, on the CPU."""
    _, _, columns, spatial = look.sizes
    width = columns * spatial
    step = max(1, BLOCK_ENTRIES // width)
    if look.kind == "vector":
        yield 0, 0, _values(stored).reshape(-1, 1)
    elif look.kind == "matrix":
        for start in range(0, piece.stop - piece.start, step):
            block = stored.mapped(lambda tensor, at=start: tensor[at : at + step])
            yield 0, piece.start + start, _values(block).reshape(-1, width)
    else:
        for number in range(piece.start, piece.stop):
            matrix = stored.mapped(lambda tensor, at=number - piece.start: tensor[at])
            for start in range(0, look.sizes[1], step):
                block = matrix.mapped(lambda tensor, at=start: tensor[at : at + step])
                yield number, start, _values(block).reshape(-1, width)


def _values(stored: StoredTensor) -> Tensor:
    wide = torch.float64 if stored.values.dtype in _WIDE else torch.float32
    return widen(stored.values, wide, scale=stored.scale).cpu().contiguous()
