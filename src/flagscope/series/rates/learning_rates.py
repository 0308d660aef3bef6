"""Learning rates of single updates: known, or between the steps at which they were logged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flagscope.errors import InputError

# More than any training has; a file that names a larger step would fill the memory.
MOST_UPDATES = 20_000_000


@dataclass(frozen=True, eq=False)
class LearningRates:
    """η of every update, counted from 0, with what it may have been.

    Attributes
    ----------
    values
        The learning rates, shape (updates,).
    low, high
        Bounds. Where a rate is known both are equal to it.
    """

    values: Float[np.ndarray, " updates"]
    low: Float[np.ndarray, " updates"]
    high: Float[np.ndarray, " updates"]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def exact(self) -> bool:
        """Whether every rate is known."""
        return bool((self.low == self.high).all())


def known_rates(
    learning_rate: float | Sequence[float] | Callable[[int], float], *, updates: int | None = None
) -> LearningRates:
    """Learning rates that are known: one number, one for each update, or a function of its number.

    Parameters
    ----------
    learning_rate
        η, η of each update, or what gives it for the number of an update, counted from 0.
    updates
        Number of updates; needed unless there is one number for each.

    Raises
    ------
    InputError
        If the number of updates is missing or contradicted, or a rate is negative or not finite.

    Examples
    --------
    >>> known_rates(lambda n: 0.1 * min(1.0, (n + 1) / 2), updates=3).values
    array([0.05, 0.1 , 0.1 ])
    """
    if callable(learning_rate):
        values = np.array([learning_rate(n) for n in range(checked_updates(updates))], dtype=float)
    elif isinstance(learning_rate, (int, float)):
        values = np.full(checked_updates(updates), float(learning_rate))
    else:
        values = np.array(learning_rate, dtype=float)
        if updates is not None and len(values) != updates:
            raise InputError(f"{len(values)} learning rates were given for {updates} updates")
    _check(values)
    return LearningRates(values, values, values)


def logged_rates(logged: Mapping[int, float], *, updates: int) -> LearningRates:
    """Learning rates between the steps at which they were logged.

    A rate that was logged after s updates is that of update s - 1 or of update s, counted from 0:
    programs differ in whether they log before or after their scheduler moves. Between two logged
    steps the rate is interpolated linearly, and its bounds are the two that were logged: that
    holds if the rate only rises or only falls between them, which the log cannot show. Before the
    first and after the last logged step the rate is taken to be the nearest logged one, with
    bounds from 0 to it; so a series of checkpoints is best compared within the logged steps.

    Parameters
    ----------
    logged
        Learning rate by number of updates done.
    updates
        Number of updates of the training.

    Raises
    ------
    InputError
        If nothing was logged, or a rate is negative or not finite.

    Examples
    --------
    >>> rates = logged_rates({2: 0.2, 6: 0.1}, updates=7)
    >>> rates.values.round(3).tolist()
    [0.2, 0.2, 0.175, 0.15, 0.125, 0.1, 0.1]
    >>> float(rates.low[3]), float(rates.high[3])
    (0.1, 0.2)
    """
    if not logged:
        raise InputError("no learning rate was logged", hint="give the learning rates by hand")
    updates = checked_updates(updates)
    steps = np.array(sorted(logged))
    rates = np.array([logged[step] for step in steps.tolist()], dtype=float)
    _check(rates)
    at = np.arange(updates)
    values = np.interp(at, steps - 1, rates)
    # An update lies between the last step logged before it and the first after it, whether a rate
    # logged at s is that of update s - 1 or s.
    last = len(steps) - 1
    left = rates[(np.searchsorted(steps - 1, at - 1, side="right") - 1).clip(0)]
    right = rates[np.searchsorted(steps - 1, at).clip(max=last)]
    low, high = np.minimum(left, right), np.maximum(left, right)
    low = np.where((at < steps[0] - 1) | (at > steps[-1]), 0.0, low)
    return LearningRates(values, np.minimum(low, values), np.maximum(high, values))


def checked_updates(updates: int | None) -> int:
    """A number of updates, if it is one.

    Raises
    ------
    InputError
        If it is missing, not positive, or more than twenty million.
    """
    if updates is None:
        raise InputError("the number of updates is not known", hint="give updates=...")
    if not 0 < updates <= MOST_UPDATES:
        raise InputError(f"expected 1 to {MOST_UPDATES:,} updates, got {updates}")
    return updates


def _check(rates: Float[np.ndarray, " n"]) -> None:
    if rates.ndim != 1 or not np.isfinite(rates).all() or (rates < 0).any():
        raise InputError("learning rates are finite, not negative, and one for each update")
