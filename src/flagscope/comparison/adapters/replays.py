"""Counts of the entries of a merged tensor that a merge can, and cannot, have given."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from flagscope.comparison.adapters.blocks import Block
from flagscope.comparison.adapters.roundings import Rounding


class Replay(ABC):
    """One way in which the tensor may have come about.

    Attributes
    ----------
    outside
        Entries that it cannot have given, whatever the order of summation.
    entries
        Entries seen.
    """

    def __init__(self) -> None:
        self.outside = self.entries = 0

    def add(self, block: Block) -> None:
        """Count the entries of a block."""
        low, high, given = self.interval(block)
        self.outside += int(torch.count_nonzero((given < low) | (given > high)))
        self.entries += given.numel()

    @property
    def holds(self) -> bool:
        """Whether it can have given every entry."""
        return self.entries > 0 and self.outside == 0

    @abstractmethod
    def interval(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Least and largest number that it can give, and the number that is there."""


class Added(Replay):
    """W + s·B A in one order of roundings.

    Attributes
    ----------
    equal
        Entries that the sum in float32 gives bit for bit.
    moved
        Entries that the merge may have changed: 0 for a change below rounding.
    """

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding
        self.equal = self.moved = 0

    def interval(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Replays of the two ends of the change."""
        base, kind = _base(block), block.merged.dtype
        low, high = (self.rounding.merged(base, end, kind) for end in self._changes(block))
        before = base.to(kind)
        self.moved += int(torch.count_nonzero((low != before) | (high != before)))
        product = block.product
        if self.rounding.product:
            product = product.to(self.rounding.change)
        replayed = self.rounding.merged(base, product * block.scaling, kind)
        self.equal += int(torch.count_nonzero(replayed == block.merged))
        return low, high, block.merged

    def _changes(self, block: Block) -> tuple[Tensor, Tensor]:
        if not self.rounding.product or block.scaling == 0:
            return block.ends
        ends = [
            ((end.to(torch.float64) / block.scaling).to(self.rounding.change) * block.scaling)
            for end in block.ends
        ]
        return torch.minimum(*ends), torch.maximum(*ends)


class AddedTwice(Replay):
    """The change added, rounded, and added again."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding

    def interval(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Replays of the two ends, twice each."""
        base, kind = _base(block), block.merged.dtype
        once = (self.rounding.merged(base, end, kind) for end in block.ends)
        low, high = (
            self.rounding.merged(value, end, kind)
            for value, end in zip(once, block.ends, strict=True)
        )
        return low, high, block.merged


class Exchanged(Replay):
    """What is given as base is the sum, and what is given as merged is the base."""

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.rounding = rounding

    def interval(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Replays on the merged tensor, against the base."""
        kind = block.base.dtype
        low, high = (self.rounding.merged(block.merged, end, kind) for end in block.ends)
        return low, high, block.base


class Rescaled(Replay):
    """DoRA: each row of W + s·B A brought to a learned length.

    Parameters
    ----------
    magnitude
        The lengths, float64.
    norms
        Those of W + s·B A, float64.
    columns
        Whether the lengths are those of columns as the weight is stored.
    width
        Terms of a norm's sum.
    unit
        Roundoff of the type that the norm is held in.

    References
    ----------
    Liu et al., "DoRA", arXiv 2402.09353, equation 5.
    """

    def __init__(
        self, magnitude: Tensor, norms: Tensor, *, columns: bool, width: int, unit: float
    ) -> None:
        super().__init__()
        self._factor = magnitude / norms.clamp_min(torch.finfo(torch.float64).tiny)
        self._columns = columns
        # A sum of squares in any order, its root, the quotient, the product.
        self._relative = (width + 8) * 2.0**-24 + 3 * unit

    def interval(self, block: Block) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of known length, with the error of the merge's norm."""
        factor = (
            self._factor[None, :] if self._columns else self._factor[block.start : block.stop, None]
        )
        value = factor * (block.base_wide + block.change)
        error = value.abs() * self._relative + factor.abs() * block.error
        kind, held = block.merged.dtype, _base(block).dtype
        low, high = (
            end.to(torch.float32).to(held).to(kind) for end in (value - error, value + error)
        )
        return low, high, block.merged


def _base(block: Block) -> Tensor:
    """The base as a merge adds to it: its own type, or float64 where it is packed."""
    plain = block.base.dtype.is_floating_point and block.base.element_size() > 1
    return block.base if plain else block.base_wide
