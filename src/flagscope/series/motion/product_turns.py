"""How far leading directions of a product turned, against random updates of its two maps."""

from __future__ import annotations

import math

from flagscope.comparison.change.drift import (
    ROUNDED,
    ExpectedTurn,
    SingularDirections,
    drift_of_blocks,
)
from flagscope.geometry.flags import LARGEST_ROTATION
from flagscope.geometry.norm_sketch import sketch_variance
from flagscope.geometry.product_sketch import PRODUCT_SKETCH_SIZE
from flagscope.records import Freedom
from flagscope.records.comparison.change import SideDrift
from flagscope.series.motion.product_state import ProductState


def random_change(a: ProductState, b: ProductState) -> float:
    """Root mean square of ‖ΔP‖ where both maps move by independent entries as far as they did.

    ‖ΔW2 W1 + W2 ΔW1 + ΔW2 ΔW1‖² has the mean (‖ΔW2‖²‖W1‖² + ‖W2‖²‖ΔW1‖² + ‖ΔW2‖²‖ΔW1‖²)/d.
    """
    second, first = _factor_changes(a, b)
    of_second, of_first = a.factor_squares
    total = second * of_first + of_second * first + second * first
    return math.sqrt(total / a.shared)


def product_side_drift(
    a: ProductState, b: ProductState, freedom: Freedom, *, write: bool, square: float,
    rounding: float,
) -> SideDrift:  # fmt: skip
    """Drift of the leading directions of one side of a product.

    The expectation is that of independent entries in both maps, of the norms by which they moved:
    those include a change of the basis between them, which the product does not see. Blocks end
    where as large a change of the product as was seen leaves a gap open.

    Parameters
    ----------
    a, b
        The product at two steps.
    freedom
        Of the space on this side.
    write
        The output side, else the input side.
    square
        ‖ΔP‖².
    rounding
        Expected squared norm of the storage rounding of both.
    """
    changes, entries = _factor_changes(a, b), a.factor_entries
    x, y = (change / max(count, 1) for change, count in zip(changes, entries, strict=True))
    noise = [
        sketch_variance(count, size=PRODUCT_SKETCH_SIZE) - 2 / max(count, 1) for count in entries
    ]
    if not write:
        x, y, noise = y, x, noise[::-1]
    sides = [state.drifts[0 if write else 1] for state in (a, b)]
    random = random_change(a, b) ** 2
    seen = max(square, rounding) / random if random else 1.0

    def expected(block: tuple[int, int]) -> ExpectedTurn:
        mean = sum(side.mean(block, x, y) for side in sides) / 2
        if not math.isfinite(mean) or not mean > 0:
            return ExpectedTurn(math.inf, math.inf, math.inf)
        spread = sum(side.variance(block, x, y) for side in sides) / 2
        # At given norms of the updates the turn varies less, and these are estimates.
        parts = [sum(part) / 2 for part in zip(*(s.parts(block, x, y) for s in sides), strict=True)]
        spread += sum(part * part * of for part, of in zip(parts, noise, strict=True))
        third = sum(side.third(block, x, y) for side in sides) / 2
        mean_of_one = mean / (block[1] - block[0])
        return ExpectedTurn(mean_of_one, mean_of_one, spread / mean**2, third / spread**1.5)

    def cuts(of: SingularDirections) -> list[int]:
        drift = sides[0 if of is a.directions else 1]
        return [
            k + 1
            for k in range(len(drift.edges))
            if drift.edge(k + 1, x * seen, y * seen) <= LARGEST_ROTATION**2
        ]

    return drift_of_blocks(
        a.directions, b.directions, write=write, freedom=freedom, cuts=cuts,
        expected=expected, rounded=rounding > ROUNDED * square,
    )  # fmt: skip


def _factor_changes(a: ProductState, b: ProductState) -> tuple[float, float]:
    """‖ΔW2‖² and ‖ΔW1‖²."""
    second, first = (
        float((before - after).square().sum())
        for before, after in zip(a.factor_sketches, b.factor_sketches, strict=True)
    )
    return second, first
