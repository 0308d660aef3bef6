"""What a health check looks at: one tensor, read in blocks of whole rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

from flagscope.engine.plan.pieces import Piece

LookKind = Literal["matrix", "stack", "vector"]


@dataclass(frozen=True, slots=True)
class Look:
    """One tensor to look at.

    Attributes
    ----------
    tensor, shape
        Name and shape of the stored tensor.
    kind
        "matrix": rows along the first axis, columns along the second; further axes, those of a
        kernel, belong to both. "stack": such a matrix for each index of the first axis. "vector":
        single numbers, such as a bias.
    blocks
        Its rows in order: the pieces that other tasks read, where they do.
    shared
        The blocks that the cache keeps for other tasks.
    """

    tensor: str
    shape: tuple[int, ...]
    kind: LookKind
    blocks: tuple[Piece, ...]
    shared: frozenset[Piece] = frozenset()

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Number of matrices, of rows and columns of each, and of entries where the two cross."""
        if self.kind == "vector":
            return 1, prod(self.shape), 1, 1
        matrices, shape = (
            (self.shape[0], self.shape[1:]) if self.kind == "stack" else (1, self.shape)
        )
        return matrices, shape[0], shape[1], prod(shape[2:])

    @property
    def entries(self) -> int:
        """Number of entries."""
        return prod(self.shape)
