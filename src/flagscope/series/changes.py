"""Where does a curve leave its course between two neighbouring checkpoints?

A jump is a change that its neighbours do not lead to expect. Of the changes per step of a curve,
each is held against a line through the five before and the five after it, by the t test of an
outlier of a regression. Smooth growth stays on such lines, and the changes of a random walk scatter
about them evenly, so that neither is called a jump.

References
----------
.. [1] R. D. Cook and S. Weisberg, Residuals and Influence in Regression (1982), section 2.2.2: the
   test, with Bonferroni's bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from flagscope.observables import PAIR_OBSERVABLE
from flagscope.records.series import SeriesCurve, StepRecord
from flagscope.records.series_changes import ChangePoint, ChangePoints

LEVEL = 0.05
"""Chance that any jump is claimed of a training without one."""
SIDE = 5
"""Changes on either side of the one that is tested."""
LEAST = 2 * SIDE + 2
"""Steps from which there is a test."""
_UNEVEN = 2.0  # ratio of the distances of steps in a window, at most
_ROUNDING = 1e-9  # of the largest value: scatter below it is not of the training
_LINE = np.c_[np.ones(2 * SIDE), np.r_[-SIDE:0, 1 : SIDE + 1]]
_FIT = np.linalg.pinv(_LINE)
_DEGREES = 2 * SIDE - 2


def change_points(
    steps: Sequence[StepRecord], curves: Sequence[SeriesCurve], *, run: str | None = None
) -> ChangePoints:
    """Jumps of the curves of one training, at one error rate for all of them.

    Parameters
    ----------
    steps
        Of all curves.
    curves
        With a value for each step, or None. Those of heads and of health, counts of directions, and
        the overlap at ranks that are such counts, are left out.
    run
        The run to look at, where there are several.

    Notes
    -----
    The test takes the changes about the line to be independent and normal, of one size within a
    window. It is not held where they have heavy tails: a walk with steps of Student's t law with
    three degrees of freedom has jumps. A transition that is smooth, and faster than the distance of
    two checkpoints, is a jump too.
    """
    mine = [i for i, step in enumerate(steps) if step.run == run and step.number is not None]
    tested = []
    for curve in curves:
        if curve.part != "pairs":
            continue
        entry = PAIR_OBSERVABLE.get(curve.observable)
        # Counts, and overlaps at ranks that are counts, jump in every training.
        if entry is not None and (entry.counts_meetings or entry.dominant):
            continue
        known = [i for i in mine if curve.values[i] is not None]
        at = np.array([steps[i].number for i in known], dtype=np.float64)
        if len(known) < LEAST or (np.diff(at) <= 0).any():
            continue
        values = np.array([curve.values[i] for i in known], dtype=np.float64)
        p, jump = _jumps(at, values)
        if np.isfinite(p).any():
            tested.append((curve, known, p, jump))
    tests = sum(int(np.isfinite(p).sum()) for _, _, p, _ in tested)
    points = [
        _point(curve, steps[known[i + SIDE]], steps[known[i + SIDE + 1]], jump[i], p[i] * tests)
        for curve, known, p, jump in tested
        for i in np.flatnonzero(p * tests <= LEVEL).tolist()
    ]
    return ChangePoints(
        run=run,
        curves=len(tested),
        tests=tests,
        points=sorted(points, key=lambda point: point.by_number),
        not_looked_at=_not_looked_at(len(mine), tests),
    )


def _jumps(
    at: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """p-value and size of a jump, of each change that has SIDE others on either side.

    NaN where the steps are not evenly apart.
    """
    gaps = np.diff(at)
    windows = np.lib.stride_tricks.sliding_window_view
    near = windows(gaps, 2 * SIDE + 1)
    even = near.max(axis=1) <= _UNEVEN * near.min(axis=1)
    around = windows(np.diff(values) / gaps, 2 * SIDE + 1)
    own, others = around[:, SIDE], np.delete(around, SIDE, axis=1)
    line = others @ _FIT.T
    squares = np.square(others - line @ _LINE.T).sum(axis=1) / _DEGREES
    floor = (_ROUNDING * np.abs(values).max() / near.mean(axis=1)) ** 2
    error = np.sqrt(np.maximum(squares, floor) * (1 + 1 / (2 * SIDE)))
    off = own - line[:, 0]
    t = np.divide(off, error, out=np.zeros_like(off), where=error > 0)
    return np.where(even, 2 * stats.t.sf(np.abs(t), _DEGREES), np.nan), off * near[:, SIDE]


def _point(
    curve: SeriesCurve, after: StepRecord, by: StepRecord, jump: float, p: float
) -> ChangePoint:
    assert after.number is not None
    assert by.number is not None
    return ChangePoint(
        pair=curve.pair,
        kind=curve.kind,
        layer=curve.layer,
        observable=curve.observable,
        after=after.name,
        by=by.name,
        after_number=after.number,
        by_number=by.number,
        jump=float(jump),
        p_familywise=float(p),
    )


def _not_looked_at(steps: int, tests: int) -> str:
    if steps < LEAST:
        return f"Too few steps with a number: {steps:,}, and a jump is looked for from {LEAST} on."
    if not tests:
        return f"No curve has {LEAST} steps that are evenly apart, to a factor of two."
    return (
        f"The first {SIDE} and the last {SIDE} changes of each curve, steps that are not evenly "
        "apart, counts of directions and overlaps at them, curves of heads and of health, and a "
        "change of slope without a jump."
    )
