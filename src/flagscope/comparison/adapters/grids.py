"""Coarser grids that a merged tensor may have been rounded to after the merge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flagscope.comparison.adapters.blocks import Block
from flagscope.spacing import spacing

# A grid is named where the error's mean square is that of rounding to nearest within these factors
# (the law of the error is uniform where the grid is fine next to the weights, and a little less
# where it is not).
_LOW, _HIGH = 0.5, 1.5
# The scale of a group is taken from its largest rounded value, which may have been rounded again.
_SLACK = 1.02


@dataclass(frozen=True)
class Grid:
    """A grid: its spacing follows from the largest value of a group.

    Attributes
    ----------
    name
        In words.
    levels
        Steps from zero to the largest value, for an even grid.
    dtype
        Type whose numbers are the grid, for others.
    group
        What shares a scale: the tensor, a row, or this many columns of a row. "none" without a
        scale.
    """

    name: str
    levels: int | None
    dtype: torch.dtype | None
    group: Literal["none", "tensor", "row"] | int

    def step(self, block: Block, largest: float) -> Tensor | None:
        """Spacing at each value; None where the grid does not fit the shape."""
        values = block.merged_wide
        if self.group == "none":
            if self.dtype is None:
                return None
            return _spacing(values, self.dtype)
        top = self._tops(values, largest)
        if top is None:
            return None
        if self.levels is not None:
            return top / self.levels
        if self.dtype is None:
            return None
        scale = (top / torch.finfo(self.dtype).max).clamp_min(torch.finfo(torch.float64).tiny)
        return _spacing(values / scale, self.dtype) * scale

    def _tops(self, values: Tensor, largest: float) -> Tensor | None:
        if self.group == "tensor":
            return torch.full_like(values, largest)
        if self.group == "row":
            return values.abs().amax(1, keepdim=True).expand_as(values)
        if not isinstance(self.group, int) or values.shape[1] % self.group:
            return None
        parts = values.reshape(len(values), -1, self.group).abs().amax(-1, keepdim=True)
        return parts.expand(-1, -1, self.group).reshape(values.shape)


def _spacing(values: Tensor, kind: torch.dtype) -> Tensor:
    """Spacing of a type at each value; 0 where the type holds none that large."""
    step = spacing(values.to(kind))
    return torch.zeros_like(values) if step is None else step.nan_to_num(0.0, 0.0, 0.0)


_FLOATS = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8 e4m3": torch.float8_e4m3fn,
    "float8 e5m2": torch.float8_e5m2,
}
_GROUPS: dict[Literal["tensor", "row"] | int, str] = {
    "row": "a row", "tensor": "the tensor", 128: "128 columns", 64: "64 columns", 32: "32 columns",
}  # fmt: skip


def grids() -> list[Grid]:
    """The grids that are tried, finest first."""
    found = [Grid(name, None, dtype, "none") for name, dtype in _FLOATS.items()]
    for bits, levels in ((8, 127), (4, 7)):
        found += [
            Grid(f"int{bits} with a scale for {words}", levels, None, group)
            for group, words in _GROUPS.items()
        ]
    for name in ("float8 e4m3", "float8 e5m2"):
        found += [
            Grid(f"{name} with a scale for {words}", None, _FLOATS[name], group)
            for group, words in _GROUPS.items()
        ]
    return found


class Rounded:
    """How W + s·B A, rounded to a grid, agrees with the tensor that is there.

    Parameters
    ----------
    grid
        None for the grid that the merged tensor's own format has.
    largest
        Largest value of the merged tensor.
    """

    def __init__(self, grid: Grid | None, largest: float) -> None:
        self.grid = grid
        self._largest = largest
        self._fits = True
        self.entries = self.outside = self.beyond = 0
        self._square = self._expected = 0.0

    def add(self, block: Block) -> None:
        """Add a block's errors."""
        step = block.merged_step if self.grid is None else self.grid.step(block, self._largest)
        if step is None or not self._fits:
            self._fits = False
            return
        error = (block.merged_wide - block.base_wide - block.change).abs()
        # Besides the grid: the sum before it and the number after it are rounded to their types.
        before = torch.maximum(block.base_step, block.sum_step)
        other = block.error + 0.5 * (before + block.merged_step * (self.grid is not None))
        self.outside += int((error > _SLACK * step / 2 + other).sum())
        self.beyond += int((error > _SLACK * step + other).sum())
        self.entries += error.numel()
        self._square += float(error.square().sum())
        self._expected += float(step.square().sum()) / 12

    @property
    def ratio(self) -> float:
        """Mean square of the error over that of rounding to nearest on the grid."""
        return self._square / self._expected if self._expected > 0 else 0.0

    @property
    def holds(self) -> bool:
        """Whether the tensor is what rounding to nearest on the grid gives."""
        even = _LOW < self.ratio < _HIGH or self.grid is None
        return self._fits and self.entries > 0 and self.outside == 0 and even

    @property
    def text(self) -> str:
        """In words."""
        name = "its own format's grid" if self.grid is None else self.grid.name
        return f"rounded to nearest on {name}" if self.outside == 0 else f"within a step of {name}"
