"""What shows that a cast was made, and that values did not merely lie near a few of its grid.

Nearly anything near 1 rounds to 1 in bfloat16, so that where one side is constant the other follows
the cast by chance. A cast that was made shows in two ways: the rounded side has many values, and
what was rounded lies anywhere within half a step of them, where a small change stays near them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

# Distinct values of the rounded side, among entries that the cast moved, that chance does not hit:
# with fewer, one change of each value, or none of a constant, gives the same.
_DISTINCT = 16
# Root mean square of what was rounded off in half steps: 0.58 for a cast, and more where it cuts
# off; the standard error over 64 entries is 0.03.
_FILLED, _ENOUGH = 0.4, 64
# Entries after which no more are looked at.
_MOST = 1 << 14


@dataclass
class CastEvidence:
    """Values of the rounded side where a cast moved them, and how far."""

    values: set[float] = field(default_factory=set)
    squares: float = 0.0
    moved: int = 0

    def add(self, rounded: Float[Tensor, "*n"], halves: Float[Tensor, "*n"]) -> None:
        """Add entries: their values on the rounded side, and what was rounded off in half steps."""
        if self.moved >= _MOST:
            return
        some = torch.isfinite(halves) & (halves != 0) & torch.isfinite(rounded)
        steps = halves[some]
        self.squares += float(steps.dot(steps))
        self.moved += steps.numel()
        if len(self.values) < _DISTINCT:
            self.values.update(rounded[some].unique()[: 2 * _DISTINCT].tolist())

    @property
    def shown(self) -> bool | None:
        """Whether a cast was made; None where the entries are too few or too much alike to say."""
        filled = self.squares >= _FILLED**2 * max(1, self.moved)
        if len(self.values) < _DISTINCT or (not filled and self.moved < _ENOUGH):
            return None
        return filled


def pooled(every: Iterable[CastEvidence]) -> CastEvidence:
    """The evidence of several tensors together."""
    total = CastEvidence()
    for evidence in every:
        total.values |= evidence.values
        total.squares += evidence.squares
        total.moved += evidence.moved
    return total
