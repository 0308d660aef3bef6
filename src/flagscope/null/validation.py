"""Checks of arguments that several null models share."""

from __future__ import annotations

import math
import operator

from flagscope.errors import InputError


def check_dimensions(d: int, **subspaces: int) -> None:
    """Require integers with d ≥ 1 and 0 ≤ dim ≤ d for every named subspace dimension.

    Raises
    ------
    InputError
        Otherwise.

    Examples
    --------
    >>> check_dimensions(8, p=3)
    >>> check_dimensions(8, p=9)
    Traceback (most recent call last):
    ...
    flagscope.errors.InputError: p = 9 is not a subspace dimension in R^8
    hint: p must lie between 0 and 8
    """
    try:
        operator.index(d)
        for value in subspaces.values():
            operator.index(value)
    except TypeError as error:
        raise InputError(
            f"dimensions must be integers, got d = {d!r}, {subspaces}",
            hint="round effective ranks to integers first",
        ) from error
    if d < 1:
        raise InputError(f"d = {d} is not a dimension", hint="d must be at least 1")
    for name, value in subspaces.items():
        if not 0 <= value <= d:
            raise InputError(
                f"{name} = {value} is not a subspace dimension in R^{d}",
                hint=f"{name} must lie between 0 and {d}",
            )


def check_level(level: float) -> None:
    """Require a significance level in (0, 1).

    Raises
    ------
    InputError
        Otherwise.

    Examples
    --------
    >>> check_level(0.05)
    """
    if not 0.0 < level < 1.0:
        raise InputError(
            f"level = {level} is not a significance level",
            hint="give a probability strictly between 0 and 1, such as 0.01",
        )


def check_finite(**values: float) -> None:
    """Require finite numbers.

    Raises
    ------
    InputError
        Otherwise.

    Examples
    --------
    >>> check_finite(ratio=1.3)
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name} = {value} is not finite",
                hint="leave out maps with NaN or infinite weights",
            )
