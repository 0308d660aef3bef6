"""When a signal has settled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Distance from the final value, as a share of the range over the training, within which a signal
#: has settled.
NEAR = 0.1
# Measurements whose mean is the final value, so that the noise of the last does not decide.
_LAST = 3


def settled_at(steps: Sequence[int], values: Sequence[float | None]) -> float | None:
    """First step, as a share of the last, from which on a signal stays near its final value.

    None if it lacks a number at any step, or never changes.

    Examples
    --------
    >>> settled_at([10, 20, 30, 40, 50], [3.0, 2.0, 1.0, 1.05, 1.0])
    0.6
    """
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    x = np.array(values, dtype=float)
    if np.ptp(x) == 0:
        return None
    away = np.abs(x - x[-_LAST:].mean()) > NEAR * np.ptp(x)
    first = int(np.flatnonzero(away)[-1]) + 1 if away.any() else 0
    return steps[min(first, len(steps) - 1)] / steps[-1]
