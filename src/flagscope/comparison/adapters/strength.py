"""All strengths at which a merge rounds to the tensor that is there, entry by entry."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flagscope.comparison.adapters.blocks import Block

# The bound of the change's error is that of strength 1; it covers strengths up to this.
LARGEST = 32.0


class Strengths:
    """Strengths c with W' = fl(W + c·s·B A) in every entry.

    Rounding is monotone, so each entry allows an interval of c, and all allow their intersection.

    Parameters
    ----------
    compute
        Type that the base is held in while it is merged.
    short
        Type that the change is rounded to before; None for none.
    transposed
        Whether the change is (B A)ᵀ where B A is meant, in a square weight.
    """

    def __init__(
        self, compute: torch.dtype, short: torch.dtype | None = None, *, transposed: bool = False
    ) -> None:
        self._compute, self._short, self._transposed = compute, short, transposed
        self.low, self.high = -math.inf, math.inf

    def add(self, block: Block) -> None:
        """Intersect with what a block allows."""
        change = block.change
        if self._transposed:
            change = block.transposed_change
        base = _held(block, self._compute)
        slack = self._slack(block)
        low, high = block.preimage
        low, high = low - base - slack, high - base + slack
        # Where the change is zero an entry allows all strengths or none.
        still = change == 0
        if bool((still & ((low > 0) | (high < 0))).any()):
            self.low, self.high = math.inf, -math.inf
            return
        ends = (low / change, high / change)
        least = torch.minimum(*ends).masked_fill_(still, -math.inf)
        most = torch.maximum(*ends).masked_fill_(still, math.inf)
        self.low = max(self.low, float(least.max()))
        self.high = min(self.high, float(most.min()))

    def _slack(self, block: Block) -> Tensor:
        # Roundings of the sum in float32, and to the type that the base is held in if it is not
        # the stored one, besides the change's own error.
        unit = torch.finfo(block.product_dtype).eps / 2
        slack = block.error * LARGEST + 2 * unit * (block.merged_wide.abs() + block.base_wide.abs())
        reach = block.difference.abs() + block.merged_step
        if self._short is not None:
            slack = slack + torch.finfo(self._short).eps / 2 * 1.01 * reach
        if self._compute not in (block.merged.dtype, torch.float32, torch.float64):
            relative = torch.finfo(self._compute).eps / 2
            slack = slack + relative * block.merged_wide.abs()
        return slack

    @property
    def possible(self) -> bool:
        """Whether some strength gives every entry so far."""
        return self.low <= self.high

    @property
    def interval(self) -> tuple[float, float] | None:
        """The strengths; None where no strength fits, or entries do not bound it."""
        known = self.low <= self.high and math.isfinite(self.low) and math.isfinite(self.high)
        return (self.low, self.high) if known else None


def _held(block: Block, compute: torch.dtype) -> Tensor:
    if compute in (torch.float64, block.base.dtype):
        return block.base_wide
    return block.base_wide.to(compute).to(torch.float64)
