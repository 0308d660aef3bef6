"""How far the samples of two steps lie apart, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from flagscope.series.step import Step

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class TensorDistances:
    """Steps against steps by the samples of one tensor.

    Attributes
    ----------
    name, file
        Of the tensor; `file` in each step, as a shard may be called otherwise.
    count
        Number of samples.
    rms
        (T, T) root mean square difference.
    correlation
        (T, T) of the centred samples; NaN where a step has one value throughout.
    same
        (T, T) whether all samples are equal.
    """

    name: str
    files: tuple[str, ...]
    count: int
    rms: Matrix
    correlation: Matrix
    same: NDArray[np.bool_]

    @property
    def frozen(self) -> bool:
        """Whether no sample ever changes."""
        return bool(self.same.all())

    @cached_property
    def scale(self) -> float:
        """Median distance of neighbours that differ; 0 for a frozen tensor."""
        near = np.diag(self.rms, 1)
        moved = near[near > 0]
        return float(np.median(moved)) if moved.size else 0.0


def tensor_distances(steps: Sequence[Step]) -> list[TensorDistances]:
    """Distances of all tensors that every step has, in one shape, with finite samples.

    Parameters
    ----------
    steps
        T readable steps.

    Returns
    -------
    list of TensorDistances
        T² numbers a tensor: T steps of k samples cost T² k.
    """
    first = steps[0]
    found = []
    for name, header in first.headers.items():
        if not all(
            name in step.values
            and step.headers[name].shape == header.shape
            and step.values[name].size == first.values[name].size > 0
            and np.isfinite(step.values[name]).all()
            for step in steps
        ):
            continue
        rows = np.stack([step.values[name] for step in steps]).astype(np.float64)
        rms = cdist(rows, rows) / np.sqrt(rows.shape[1])
        found.append(
            TensorDistances(
                name=name,
                files=tuple(step.headers[name].file for step in steps),
                count=rows.shape[1],
                rms=rms,
                correlation=_correlation(rows),
                same=_same(rows),
            )
        )
    return found


def pooled(tensors: Sequence[TensorDistances]) -> Matrix:
    """Root mean square over tensors of distances in units of each tensor's median step."""
    moving = [(one.rms / one.scale) ** 2 for one in tensors if one.scale > 0]
    return np.sqrt(np.mean(moving, axis=0)) if moving else np.zeros((0, 0))


def pooled_correlation(tensors: Sequence[TensorDistances]) -> tuple[Matrix, float]:
    """Correlation of steps over all samples, each tensor centred and scaled, and its noise.

    Returns
    -------
    correlation
        (T, T), NaN where no tensor varies in both steps.
    noise
        Standard deviation of the correlation of independent weights, 1/√K.
    """
    varied = [one for one in tensors if one.scale > 0 and one.count > 1]
    if not varied:
        return np.zeros((0, 0)), 1.0
    weight = np.zeros_like(varied[0].rms)
    total = np.zeros_like(weight)
    for one in varied:
        known = np.isfinite(one.correlation)
        total += np.where(known, one.correlation * one.count, 0.0)
        weight += known * one.count
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / weight, float(1 / np.sqrt(max(1.0, weight.max())))


def _same(rows: Matrix) -> NDArray[np.bool_]:
    """(T, T) whether rows are equal, each compared once by its bytes; -0 is 0."""
    first: dict[bytes, int] = {}
    group = np.array([first.setdefault(row.tobytes(), i) for i, row in enumerate(rows + 0.0)])
    return group[:, None] == group[None, :]


def _correlation(rows: Matrix) -> Matrix:
    centred = rows - rows.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    # A rounded constant is one value throughout.
    norms = np.where(norms > 1e-6 * np.linalg.norm(rows, axis=1), norms, np.nan)
    with np.errstate(invalid="ignore"):
        return (centred @ centred.T) / np.outer(norms, norms)
