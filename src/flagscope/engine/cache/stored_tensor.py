"""A piece of a tensor as stored, and its storage noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from flagscope.checkpoint import Checkpoint
from flagscope.engine.plan.pieces import Piece
from flagscope.null import StorageNoise, grid_noise, storage_noise


@dataclass(frozen=True)
class StoredTensor:
    """Values as stored, their scale, and the spacing of their grid if no dtype determines it.

    A scale without axes applies to all values; otherwise scale and spacing have the shape of the
    values.
    """

    values: Shaped[Tensor, "*stored"]
    scale: Tensor | None
    step: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return sum(
            min(tensor.nbytes, tensor.untyped_storage().nbytes())
            for tensor in (self.values, self.scale, self.step)
            if tensor is not None
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> StoredTensor:
        """Apply a change of axes, or a choice of maps, to values, scale and spacing."""
        scale = self.scale
        if scale is not None and scale.ndim:
            scale = change(scale)
        return StoredTensor(
            change(self.values), scale, None if self.step is None else change(self.step)
        )

    def to(self, device: torch.device) -> StoredTensor:
        """Copy on a device."""
        scale = None if self.scale is None else self.scale.to(device)
        step = None if self.step is None else self.step.to(device)
        return StoredTensor(self.values.to(device), scale, step)

    def noise(self) -> StorageNoise:
        """Estimate of the rounding error.

        Raises
        ------
        InputError
            If values are not finite.
        """
        if self.step is not None:
            return grid_noise(self.step)
        return storage_noise(self.values, scale=1.0 if self.scale is None else self.scale)


def read_piece(checkpoint: Checkpoint, piece: Piece) -> StoredTensor:
    """Read a piece.

    Raises
    ------
    SourceError
        As for `Checkpoint.read`.
    """
    whole = checkpoint.tensors.get(piece.tensor)
    rows = slice(piece.start, piece.stop)
    all_of_it = whole is None or not whole.shape or whole.shape[0] == piece.stop - piece.start
    index = None if all_of_it else (rows,)
    return StoredTensor(
        checkpoint.read(piece.tensor, index),
        checkpoint.scale(piece.tensor, index),
        checkpoint.step(piece.tensor, index),
    )
