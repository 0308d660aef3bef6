"""Quantities that the verdicts of the experiment on alignment without ridge judge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from flagscope.lab.experiment import Measured, of_kind

# The late part of a run: σ_1² is at least this share of its final value.
_LATE = 0.25


def sorted_by_depth(measured: Sequence[Measured], kind: str) -> list[Measured]:
    """The cells of one kind, sorted by depth."""
    return sorted(of_kind(measured, kind), key=lambda m: m.cell.settings["depth"])


def exponents(m: Measured, name: str) -> Float[np.ndarray, "pairs seeds"]:
    """Slopes of log `name` against log σ_1² of the writing layer, late in training."""
    leading = np.array(m.values["leading"])[:, :-1]
    values = np.array(m.values[name])
    slopes = np.empty(values.shape[1:])
    for index in np.ndindex(slopes.shape):
        x, y = leading[(slice(None), *index)], values[(slice(None), *index)]
        late = x >= _LATE * x[-1]
        slopes[index] = np.polyfit(np.log(x[late]), np.log(y[late]), 1)[0]
    return slopes


def at_one_norm(plain: Measured, normalised: Measured) -> Float[np.ndarray, " seeds"]:
    """Final sine of plain descent, divided by that of the other pace at the same σ_1²."""
    end = np.log(np.array(plain.values["leading"][-1])[:-1])
    sines = np.array(plain.values["sine"][-1])
    x = np.log(np.array(normalised.values["leading"])[:, :-1])
    y = np.log(np.array(normalised.values["sine"]))
    ratios = np.empty(end.shape)
    for index in np.ndindex(end.shape):
        column = (slice(None), *index)
        # The norm may shrink at first: only after its minimum is it monotone.
        first = int(np.argmin(x[column]))
        ratios[index] = sines[index] / np.exp(
            np.interp(end[index], x[column][first:], y[column][first:])
        )
    return ratios.mean(axis=0)


def kept(m: Measured) -> Float[np.ndarray, " seeds"]:
    """Ratio of the relative imbalance at the end to that at the start, averaged over pairs."""
    series = m.values["relative"]
    return (np.array(series[-1]) / np.array(series[0])).mean(axis=0)
