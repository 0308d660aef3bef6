"""A checkpoint whose packed weights are given as the numbers that they stand for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint, TensorInfo
from flagscope.checkpoint.derived.checkpoint import DerivedCheckpoint
from flagscope.checkpoint.indexing import Index
from flagscope.errors import CorruptFileError


class PackedWeight(ABC):
    """A weight in the parts that a quantiser stored of it.

    Attributes
    ----------
    name, shape
        Of the weight.
    """

    name: str
    shape: tuple[int, ...]

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the format that the weight was rounded to."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that it is made of, the one that holds its numbers first."""

    @abstractmethod
    def values(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """A slice, in float32; `index` is resolved for every axis."""

    @abstractmethod
    def step(self, inner: Checkpoint, index: Index) -> Float[Tensor, "*shape"]:
        """The spacing of the grid there, in float32."""


class DequantisedCheckpoint(DerivedCheckpoint):
    """The weights of another checkpoint, the packed ones in float32; their parts are not listed.

    Parameters
    ----------
    inner
        The checkpoint as stored. It is closed with this one.
    weights
        The packed ones.
    dropped
        Names of further tensors that are not listed.

    Raises
    ------
    CorruptFileError
        If a weight is there both packed and as it is.
    """

    def __init__(
        self, inner: Checkpoint, weights: Sequence[PackedWeight], dropped: Collection[str] = ()
    ) -> None:
        self._weights, self._dropped = tuple(weights), frozenset(dropped)
        self._packed = {weight.name: weight for weight in weights}
        parts = {part for weight in weights for part in weight.parts} | self._dropped
        entries = {name: info for name, info in inner.tensors.items() if name not in parts}
        for name, weight in self._packed.items():
            if name in entries:
                raise CorruptFileError(
                    f"{inner.source} holds {name!r} both packed and as it is.",
                    hint="fetch or save the checkpoint again.",
                )
            file = inner.tensors[weight.parts[0]].file
            nbytes = 4 * prod(weight.shape)
            entries[name] = TensorInfo(name, weight.shape, "float32", nbytes, file, weight.kind)
        kinds = Counter(weight.kind for weight in weights)
        told = [f"dequantised when read: {count} {kind}" for kind, count in kinds.items()]
        super().__init__(inner, entries, made=self._packed, notes=(*inner.header_notes, *told))

    def __reduce__(self) -> tuple[Any, ...]:
        return DequantisedCheckpoint, (self._inner, self._weights, self._dropped)

    def _made(self, name: str, index: Index) -> Tensor:
        return self._packed[name].values(self._inner, index)

    def _made_step(self, name: str, index: Index) -> Tensor | None:
        return self._packed[name].step(self._inner, index)


def code_spacings(code: Float[Tensor, " codes"]) -> Float[Tensor, " codes"]:
    """Spacing of a uniform grid whose rounding has the mean square of each code's.

    What rounds to a code lies within half the gap to either neighbour, uniformly: with gaps l and
    r the mean square is (l³ + r³) / (12 (l + r)). Nothing lies beyond the outermost codes.

    Examples
    --------
    >>> import torch
    >>> code_spacings(torch.tensor([0.0, 1.0, 3.0])).tolist()
    [1.0, 1.7320507764816284, 2.0]
    """
    grid, place = torch.unique(code, return_inverse=True)  # FP4 has two zeros
    gaps = grid.diff()
    if not len(gaps):
        return torch.zeros_like(code)
    left, right = torch.cat((gaps[:1], gaps)), torch.cat((gaps, gaps[-1:]))
    return ((left**3 + right**3) / (left + right)).sqrt()[place]
