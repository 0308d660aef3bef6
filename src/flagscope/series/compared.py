"""The readable steps of a series, with the distances of their samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flagscope.series.distances import (
    Matrix,
    TensorDistances,
    pooled,
    pooled_correlation,
    tensor_distances,
)
from flagscope.series.step import Step


@dataclass(frozen=True)
class Compared:
    """T steps in the order of their numbers, and how their samples differ.

    Attributes
    ----------
    steps
        Those that can be read and have common tensors.
    tensors
        Distances by tensor.
    far
        (T, T) distances over all tensors that move, in units of each tensor's median step.
    correlation, noise
        (T, T) of the samples of matrices; standard deviation by chance.
    """

    steps: tuple[Step, ...]
    tensors: tuple[TensorDistances, ...]
    far: Matrix
    correlation: Matrix
    noise: float

    @cached_property
    def moving(self) -> list[TensorDistances]:
        """Tensors of which a sample changes."""
        return [one for one in self.tensors if not one.frozen]

    @cached_property
    def equal(self) -> NDArray[np.bool_]:
        """(T, T) whether all samples of all tensors are equal."""
        size = len(self.steps)
        return np.logical_and.reduce([one.same for one in self.tensors], initial=True) & np.ones(
            (size, size), bool
        )

    def without(self, left: Collection[int]) -> Compared:
        """The series without some steps, by their places in it."""
        if not left:
            return self
        kept = [place for place in range(len(self.steps)) if place not in left]
        return compared([self.steps[place] for place in kept])


def compared(steps: Sequence[Step]) -> Compared:
    """Compare the samples of steps.

    Parameters
    ----------
    steps
        Readable, in the order of their numbers; those that lack a tensor leave it out for all.
    """
    tensors = tensor_distances(steps) if len(steps) > 1 else []
    matrices = [one for one in tensors if len(steps[0].headers[one.name].shape) > 1]
    correlation, noise = pooled_correlation(matrices)
    return Compared(tuple(steps), tuple(tensors), pooled(tensors), correlation, noise)


def detour(far: Matrix, place: int, left: Collection[int] = ()) -> float | None:
    """How much longer the way through a step is than the way past it: 1 for one on a line.

    At an end, the distance to the next step in units of that step's distance to the one after.
    `left` are steps that are passed over. None where there are not two others.
    """
    before = [other for other in range(place) if other not in left]
    after = [other for other in range(place + 1, len(far)) if other not in left]
    if before and after:
        low, high = before[-1], after[0]
        past = far[low, high]
        through = far[low, place] + far[place, high]
    else:
        ends = before[::-1] or after
        if len(ends) < 2:
            return None
        through, past = far[place, ends[0]], far[ends[0], ends[1]]
    return float(through / past) if past > 0 else (np.inf if through > 0 else None)
