"""Tensors outside the maps: embeddings, biases, gains. Their norms and the norm of the change."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from flagscope.checkpoint import Checkpoint, widen
from flagscope.comparison.change.layers import BEYOND, IDENTICAL, over
from flagscope.comparison.row_blocks import row_blocks, row_index
from flagscope.errors import FlagscopeError
from flagscope.geometry.matrices import NOT_FINITE
from flagscope.records.comparison.change import TensorChange

# Entries of each side that are taken at a time, in float64.
_BLOCK = 1 << 23


def tensor_changes(
    a: Checkpoint, b: Checkpoint, taken: set[str]
) -> tuple[list[TensorChange], list[str]]:
    """Changes of the tensors that both checkpoints name and no map takes, and what was left out."""
    changes: list[TensorChange] = []
    others = 0
    for name, info in a.tensors.items():
        if name in taken or name in a.auxiliary or name in b.auxiliary:
            continue
        if name not in b.tensors or b.tensors[name].shape != info.shape:
            others += 1
            continue
        changes.append(_change(name, a, b))
    notes = []
    if others:
        notes.append(
            f"{others} tensor(s) outside the maps have no tensor of the same name and shape on the "
            "other side"
        )
    return changes, notes


def _change(name: str, a: Checkpoint, b: Checkpoint) -> TensorChange:
    shape = list(a.tensors[name].shape)
    squares = [0.0, 0.0, 0.0]
    identical, status = True, "ok"
    try:
        for x, y in _blocks(name, a, b):
            identical = identical and torch.equal(x, y)
            for k, value in enumerate((x, y, y - x)):
                squares[k] += float(torch.linalg.vector_norm(value)) ** 2
    except OverflowError:
        status = BEYOND
    except FlagscopeError as error:
        status = f"cannot be read: {error}"
    if status == "ok" and not all(map(math.isfinite, squares)):
        status = NOT_FINITE
    if status != "ok":
        return TensorChange(
            name_a=name, name_b=name, shape=shape, norm_a=None, norm_b=None, change=None,
            relative_a=None, relative_b=None, status=status,
        )  # fmt: skip
    of_a, of_b, change = (math.sqrt(square) for square in squares)
    return TensorChange(
        name_a=name, name_b=name, shape=shape, norm_a=of_a, norm_b=of_b, change=change,
        relative_a=over(change, of_a), relative_b=over(change, of_b),
        status=IDENTICAL if identical else "ok",
    )  # fmt: skip


def _blocks(name: str, a: Checkpoint, b: Checkpoint) -> Iterator[tuple[Tensor, Tensor]]:
    """Both tensors in float64, by rows where they are large."""
    shape = a.tensors[name].shape
    for rows in row_blocks(shape, _BLOCK):
        index = row_index(shape, rows)
        x, y = (widen(side.read(name, index), scale=side.scale(name, index)) for side in (a, b))
        yield x, y
