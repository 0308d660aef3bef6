"""What is kept of one map at one step: enough to say how far it moved to any other step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from flagscope.comparison.change.kept_directions import KeptDirections, kept_directions
from flagscope.comparison.change.leading import squared_norm
from flagscope.comparison.change.reading import OneSide
from flagscope.geometry.norm_sketch import norm_sketch, sketch_variance

KEPT_DIRECTIONS = 16
"""Leading singular directions of a map that are kept of a step."""

_SEED = 0


@dataclass(frozen=True)
class MapState:
    """One map at one step.

    Attributes
    ----------
    square
        ‖W‖².
    mean_square
        Mean square of the storage error of an entry.
    sketch
        Of its entries (`norm_sketch`).
    directions
        Those that stand out of the bulk, at most 16.
    """

    square: float
    mean_square: float
    sketch: Float[Tensor, " s"]
    directions: KeptDirections

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self.directions.shape[0] * self.directions.shape[1]

    @property
    def errors(self) -> int:
        """Independent errors that storage leaves in it."""
        return self.entries

    @property
    def square_variance(self) -> float:
        """Variance of the squared norm of a difference by sketches, over its square."""
        return sketch_variance(self.entries)


def map_state(side: OneSide) -> MapState | None:
    """What is kept of a map; None where its squares exceed double precision."""
    unit = 2.0**side.exponent
    square = squared_norm(side.values) * unit * unit
    if not math.isfinite(square):
        return None
    return MapState(
        square=square,
        mean_square=side.noise.mean_square * unit * unit,
        sketch=norm_sketch(side.values) * unit,
        directions=kept_directions(side.values, most=KEPT_DIRECTIONS, unit=unit, seed=_SEED),
    )
