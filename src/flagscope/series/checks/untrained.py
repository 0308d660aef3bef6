"""Which step holds the constants of an initialisation, though steps before it do not?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flagscope.series.compared import Compared

_LEAST = 8  # samples that make a constant
_HALF = 0.5


@dataclass(frozen=True)
class Untrained:
    """The step that looks as before a first update.

    Attributes
    ----------
    place
        In the series.
    constants
        Its tensors that hold 1 throughout, or 0.
    """

    place: int
    constants: int


def untrained(series: Compared) -> Untrained | None:
    """The one step in which tensors hold 1 or 0 throughout that vary in all others.

    Gains of norms begin at 1 and biases at 0, in most networks, and the second factors of LoRA at
    0. A training leaves these values with its first update, and does not come back to a 1
    throughout, nor to half of all tensors at 0.

    Returns
    -------
    Untrained or None
        None where no step is so, or several are (a training that moves few of them).
    """
    moving = [one.name for one in series.moving]
    values = [[_constant(step.values[name]) for name in moving] for step in series.steps]
    constant = np.array([[one is not None for one in row] for row in values], bool)
    if not constant.any():
        return None
    counts = constant.sum(axis=1)
    place = int(counts.argmax())
    others = np.delete(constant, place, axis=0)[:, constant[place]].mean(axis=1)
    zeros = sum(one == 0 for one in values[place])
    plain = 1.0 in values[place] or zeros >= _HALF * len(moving)
    if not plain or counts[place] < 2 or not (others < _HALF).all():
        return None
    return Untrained(place, int(counts[place]))


def _constant(samples: NDArray[np.floating]) -> float | None:
    """0 or 1, where all samples are that."""
    first = float(samples[0])
    if samples.size < _LEAST or first not in (0.0, 1.0) or not (samples == first).all():
        return None
    return first
