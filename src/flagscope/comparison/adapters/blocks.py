"""A tensor of base and merged model and an adapter's change of it, a block of rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flagscope.checkpoint.base import Checkpoint
from flagscope.checkpoint.dtypes import torch_dtype
from flagscope.checkpoint.lora import Factors
from flagscope.checkpoint.widen import widen
from flagscope.comparison.adapters.roundings import STANDARD
from flagscope.comparison.row_blocks import row_blocks
from flagscope.geometry import float_product_bound, rounding_interval
from flagscope.spacing import spacing

# Entries of a block, and entries read at once: about ten temporaries of a MiB each, which mostly
# stay in a core's cache, and at most 64 MiB of float64 a side.
_BLOCK, _READ = 1 << 17, 1 << 23


@dataclass
class Block:
    """Rows of both tensors, as matrices, and of the change.

    Attributes
    ----------
    start, stop
        The rows.
    base, merged
        As stored.
    base_wide, merged_wide
        As float64, scales multiplied in.
    base_step, merged_step
        Spacing of the grid that each was rounded to, as float64.
    left, right
        Factors: the change is s·left @ right.
    whole_left
        All rows of the left factor.
    scaling
        s.
    product_dtype
        Of the merge's product.
    """

    start: int
    stop: int
    base: Tensor
    merged: Tensor
    base_wide: Tensor
    merged_wide: Tensor
    base_step: Tensor
    merged_step: Tensor
    left: Tensor
    right: Tensor
    whole_left: Tensor
    scaling: float
    product_dtype: torch.dtype

    @cached_property
    def finite(self) -> bool:
        """Whether all values are finite."""
        values = (self.base_wide, self.merged_wide)
        # A sum of finite numbers may overflow, one of others is never finite.
        return all(
            math.isfinite(float(value.sum())) or bool(torch.isfinite(value).all())
            for value in values
        )

    @cached_property
    def difference(self) -> Tensor:
        """Merged less base, float64."""
        return self.merged_wide - self.base_wide

    @cached_property
    def change(self) -> Tensor:
        """s·B A, float64."""
        return (self.left @ self.right).mul_(self.scaling)

    @cached_property
    def product(self) -> Tensor:
        """B A in the merge's precision."""
        return self.left.to(self.product_dtype) @ self.right.to(self.product_dtype)

    @cached_property
    def transposed_change(self) -> Tensor:
        """s·(B A)ᵀ, float64, of a square weight."""
        rows = self.right.T[self.start : self.stop]
        return (rows @ self.whole_left.T).mul_(self.scaling)

    @cached_property
    def error(self) -> Tensor:
        """Bound of the error of the change in the merge's precision."""
        return float_product_bound(
            self.left, self.right, scaling=self.scaling, dtype=self.product_dtype
        )

    @cached_property
    def sum_step(self) -> Tensor:
        """Spacing, at each sum of base and change, of the type that the merge adds in."""
        kind = self.base.dtype if self.base.dtype in STANDARD else self.product_dtype
        step = spacing((self.base_wide + self.change).to(kind))
        return torch.zeros_like(self.base_step) if step is None else step

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """Least and largest change that the merge can have computed, in its precision."""
        return (
            (self.change - self.error).to(self.product_dtype),
            (self.change + self.error).to(self.product_dtype),
        )

    @cached_property
    def preimage(self) -> tuple[Tensor, Tensor]:
        """Ends of the numbers that round to the merged ones."""
        return rounding_interval(self.merged)


@dataclass(frozen=True)
class Source:
    """One tensor of base and merged model, with the factors of the adapter.

    Attributes
    ----------
    base, merged, tensor, merged_tensor
        The checkpoints and the names.
    factors, left, right
        The adapter's.
    replaced
        Values that the adapter puts in the place of the base's before it adds its change.
    magnitude
        DoRA's magnitudes, float64, flat; None for plain LoRA.
    dtype
        In which the adapter is stored.
    """

    base: Checkpoint
    merged: Checkpoint
    tensor: str
    merged_tensor: str
    factors: Factors
    left: Tensor
    right: Tensor
    dtype: torch.dtype
    replaced: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the tensor as a matrix."""
        shape = self.base.tensors[self.tensor].shape
        return shape[0], math.prod(shape[1:])

    @property
    def types(self) -> tuple[torch.dtype, torch.dtype]:
        """Stored types of base and merged tensor."""
        names = (
            self.base.tensors[self.tensor].dtype,
            self.merged.tensors[self.merged_tensor].dtype,
        )
        first, second = (torch_dtype(name) or torch.float32 for name in names)
        return (first if self.replaced is None else self.replaced.dtype), second

    @property
    def standard(self) -> bool:
        """Whether the merged tensor is stored in a type that merges add in, without a scale."""
        name = self.merged_tensor
        info = self.merged.tensors[name]
        plain = info.quantised is None and name not in self.merged.scaled
        return plain and self.types[1] in STANDARD

    def blocks(self) -> Iterator[Block]:
        """All rows, a block at a time."""
        columns = self.shape[1]
        wide = torch.float64 in self.types and self.dtype == torch.float64
        # Few readings where each costs a request, and blocks of them that fit a cache.
        for rows in row_blocks(self.shape, _READ):
            ours = self._base_rows(rows)
            theirs = _Rows.read(self.merged, self.merged_tensor, rows)
            for span in row_blocks((rows.stop - rows.start, columns), _BLOCK):
                start, stop = rows.start + span.start, rows.start + span.stop
                yield Block(
                    start, stop,
                    ours.stored[span], theirs.stored[span], ours.wide(span), theirs.wide(span),
                    ours.step(span), theirs.step(span),
                    self.left[start:stop], self.right, self.left, self.factors.scaling,
                    torch.float64 if wide else torch.float32,
                )  # fmt: skip

    def _base_rows(self, rows: slice) -> _Rows:
        if self.replaced is None:
            return _Rows.read(self.base, self.tensor, rows)
        return _Rows(self.replaced[rows].flatten(1), None, None)


@dataclass(frozen=True)
class _Rows:
    """Rows of a stored tensor as a matrix, with what scales them and the step of their grid."""

    stored: Tensor
    scale: Tensor | None
    own_step: Tensor | None

    @classmethod
    def read(cls, checkpoint: Checkpoint, name: str, rows: slice) -> _Rows:
        index = (rows,)
        stored = checkpoint.read(name, index)
        scale, step = checkpoint.scale(name, index), checkpoint.step(name, index)
        if scale is not None:
            scale = scale.expand(stored.shape).flatten(1)
        return cls(stored.flatten(1), scale, None if step is None else step.flatten(1))

    def wide(self, span: slice) -> Tensor:
        """Values as float64."""
        return widen(self.stored[span], scale=None if self.scale is None else self.scale[span])

    def step(self, span: slice) -> Tensor:
        """Spacing of the grid at each value, float64."""
        stored = self.stored[span]
        if self.own_step is not None:
            return self.own_step[span].to(torch.float64)
        step = spacing(stored)
        if step is None:
            return torch.ones(stored.shape, dtype=torch.float64)
        return step if self.scale is None else step * self.scale[span].abs().to(torch.float64)
