"""Numbers as a record holds them: undefined ones as None, arrays rounded and summarised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from flagscope.records import ArraySummary

# Longer arrays are summarised.
ARRAY_LIMIT = 64
_TOP = 16
_LEVELS = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
# Digits kept in arrays: they are for drawing and reading, and a page holds many.
_DIGITS = 6


def number(value: float | None) -> float | None:
    """The value, or None where it is undefined (NaN or infinite)."""
    return value if value is not None and math.isfinite(value) else None


def rounded(values: Tensor | np.ndarray | Sequence[Sequence[float]]) -> list:
    """Nested lists of the values at six significant digits.

    Examples
    --------
    >>> rounded(np.array([[1 / 3, 2e5 / 3], [0.0, 1e-300]]))
    [[0.333333, 66666.7], [0.0, 1e-300]]
    """
    array = np.asarray(values, dtype=np.float64)
    # Below this the power of ten that shifts the digits would overflow; such values stay as they
    # are.
    small = np.abs(array) < 1e-290
    safe = np.where(small, 1.0, np.abs(array))
    scale = 10.0 ** (_DIGITS - 1 - np.floor(np.log10(safe)))
    return np.where(small, array, np.round(array * scale) / scale).tolist()


def array_values(values: Tensor) -> list[float] | ArraySummary:
    """Values in descending order, all of them up to 64, and otherwise a summary.

    Examples
    --------
    >>> import torch
    >>> array_values(torch.tensor([2.0, 1.0]))
    [2.0, 1.0]
    >>> array_values(torch.arange(100.0)).length
    100
    """
    array = np.sort(np.asarray(values.detach().cpu(), dtype=np.float64))[::-1]
    if len(array) <= ARRAY_LIMIT:
        return rounded(array)
    quantiles = rounded(np.quantile(array, _LEVELS))
    return ArraySummary(
        length=len(array),
        top=rounded(array[:_TOP]),
        quantiles=list(zip(_LEVELS, quantiles, strict=True)),
    )


def rank_grid(limit: int, points: int = 16) -> list[int]:
    """At most `points` ranks from 1 to `limit`, all of them if they fit, else about geometric.

    Examples
    --------
    >>> rank_grid(4)
    [1, 2, 3, 4]
    >>> rank_grid(768)[-1]
    768
    """
    if limit <= points:
        return list(range(1, limit + 1))
    return sorted({round(r) for r in np.geomspace(1, limit, points)} | {limit})


def first_reason(*reasons: str | None) -> str:
    """The first reason that is one, or 'ok'."""
    return next((reason for reason in reasons if reason), "ok")
