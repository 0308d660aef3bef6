"""How far leading directions turned between two states of a map, in one row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from flagscope.comparison.change.drift import side_drift
from flagscope.comparison.change.layers import IDENTICAL, ROUNDING, within_rounding
from flagscope.records import Freedom, Label
from flagscope.records.comparison.change import BlockDrift, SideDrift
from flagscope.series.motion.product_state import ProductState
from flagscope.series.motion.product_turns import product_side_drift
from flagscope.series.motion.state import MapState
from flagscope.series.motion.step_states import MapPlace

# Freedoms of the other side under which the directions of this side stay: an orthogonal change
# there leaves W Wᵀ, or Wᵀ W, as it is.
_ORTHOGONAL: tuple[Freedom, ...] = ("none", "permutation")


@dataclass(frozen=True)
class Apart:
    """Two states of a map.

    Attributes
    ----------
    change
        ‖ΔW‖.
    status
        'ok', `IDENTICAL` or `ROUNDING`.
    """

    change: float
    status: str


@dataclass(frozen=True)
class Turn:
    """A row of `LeadingTurn`, whose fields these are."""

    directions: int | None = None
    mean_square_sine: float | None = None
    largest_angle: float | None = None
    expected: float | None = None
    ratio: float | None = None
    log10_p: float | None = None
    block_first: int | None = None
    block_size: int | None = None
    block_ratio: float | None = None
    log10_p_more: float | None = None
    status: str | None = None


def apart(a: MapState, b: MapState) -> Apart:
    """How far two states of a map lie apart."""
    square = float((a.sketch - b.sketch).square().sum())
    if torch.equal(a.sketch, b.sketch):
        return Apart(0.0, IDENTICAL)
    within = within_rounding(square, _rounding(a, b), a.errors)
    return Apart(math.sqrt(square), ROUNDING if within else "ok")


def turn(a: MapState, b: MapState, freedom: Freedom, *, write: bool) -> Turn:
    """The turn of leading directions of one side, with what a random update of equal size gives.

    Of a product it is one of both its maps.
    """
    between = apart(a, b)
    if between.status == IDENTICAL:
        return Turn(status=IDENTICAL)
    square, rounding = between.change**2, _rounding(a, b)
    if isinstance(a, ProductState) and isinstance(b, ProductState):
        drift = product_side_drift(a, b, freedom, write=write, square=square, rounding=rounding)
    else:
        drift = side_drift(
            a.directions, b.directions, write=write, square=square, rounding=rounding,
            squares=(a.square, b.square), freedom=freedom, square_variance=a.square_variance,
        )  # fmt: skip
    whole = drift.leading
    if whole is None:
        return Turn(status=drift.status)
    most, log10_p = _most_beyond(drift)
    return Turn(
        directions=whole.size,
        mean_square_sine=whole.mean_square_sine,
        largest_angle=whole.largest_angle,
        expected=whole.expected,
        ratio=whole.ratio,
        log10_p=whole.log10_p,
        block_first=None if most is None else most.first,
        block_size=None if most is None else most.size,
        block_ratio=None if most is None else most.ratio,
        log10_p_more=log10_p,
        status=whole.status,
    )


def _most_beyond(drift: SideDrift) -> tuple[BlockDrift | None, float | None]:
    """The block that turned most beyond chance, and log10 p of the side by Bonferroni.

    p-values are two-sided with equal tails: the half of one whose block turned more than expected
    is one-sided.
    """
    assert drift.leading is not None
    blocks = drift.blocks if len(drift.blocks) > 1 else [drift.leading]
    tests = [drift.leading, *blocks] if len(drift.blocks) > 1 else blocks
    tested = [block for block in tests if block.log10_p is not None]
    if not tested:
        return None, None
    more = [block for block in tested if block.ratio is not None and block.ratio > 1]
    if not more:
        return None, 0.0
    best = min((block.log10_p or 0.0) for block in more) + math.log10(len(tested) / 2)
    turned = [block for block in blocks if block in more]
    most = min(turned, key=lambda block: block.log10_p or 0.0) if turned else None
    return most, min(best, 0.0)


def _rounding(a: MapState, b: MapState) -> float:
    """Expected squared norm of the storage rounding of both."""
    return a.entries * (a.mean_square + b.mean_square)


def label(place: MapPlace, *, write: bool) -> Label | None:
    """Whether a freedom inside the blocks that the map lies in may move the directions of a side.

    Examples
    --------
    >>> up = MapPlace("up", "up", "main", 0, None, "up", (8, 4), "permutation", "none", False)
    >>> label(up, write=True), label(up, write=False)
    ('gauge', 'functional')
    """
    own, other = place.write_freedom, place.read_freedom
    if not write:
        own, other = other, own
    if own != "none" or other not in _ORTHOGONAL:
        return "gauge"
    return None if place.unknown else "functional"


def walk_straightness(changes: list[float]) -> float | None:
    """Root mean square straightness of a walk with steps of these sizes in independent directions.

    Examples
    --------
    >>> walk_straightness([1.0, 1.0, 1.0, 1.0])
    0.5
    """
    total = float(np.sum(changes))
    return float(np.linalg.norm(changes)) / total if len(changes) > 1 and total > 0 else None
