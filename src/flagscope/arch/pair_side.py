"""The two sides of a pair: maps seen as writers or readers of the space they share."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Shaped
from torch import Tensor

from flagscope.arch.maps import LinearMap, View


@dataclass(frozen=True)
class Side:
    """A map as one side of a pair; transposed if the pair uses its transpose.

    The shared space is the map's output for a writer and its input for a reader; for a transposed
    map, such as W_K in W_Kᵀ W_Q, it is the reverse.
    """

    map: LinearMap
    transposed: bool = False

    def dimension(self, view: View) -> int:
        """Dimension of the shared space."""
        return self.map.outputs if (view == "write") != self.transposed else self.map.inputs

    def write(self, stored: Shaped[Tensor, "*stored"]) -> Shaped[Tensor, "n d m"]:
        """The matrices as writers W1: the shared space along the rows."""
        if self.transposed:
            return self.map.read_matrices(stored).transpose(-1, -2)
        return self.map.write_matrices(stored)

    def read(self, stored: Shaped[Tensor, "*stored"]) -> Shaped[Tensor, "n m d"]:
        """The matrices as readers W2: the shared space along the columns."""
        if self.transposed:
            return self.map.write_matrices(stored).transpose(-1, -2)
        return self.map.read_matrices(stored)

    def replace_write(
        self, stored: Shaped[Tensor, "*stored"], matrices: Shaped[Tensor, "n d m"]
    ) -> Shaped[Tensor, "*stored"]:
        """A copy of the stored tensor with these writers in it: the inverse of `write`."""
        if self.transposed:
            return self.map.replace(stored, matrices.transpose(-1, -2), view="read")
        return self.map.replace(stored, matrices, view="write")

    def replace_read(
        self, stored: Shaped[Tensor, "*stored"], matrices: Shaped[Tensor, "n m d"]
    ) -> Shaped[Tensor, "*stored"]:
        """A copy of the stored tensor with these readers in it: the inverse of `read`."""
        if self.transposed:
            return self.map.replace(stored, matrices.transpose(-1, -2), view="write")
        return self.map.replace(stored, matrices, view="read")
