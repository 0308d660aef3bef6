"""Decay time: how far weight decay alone has come after each step of a training.

Under weight decay λ and learning rates η_n a weight without a gradient shrinks by Π (1 - η_n λ).
Twice the exponent of that is the decay time

    τ(s) = -2 Σ_{n < s} log(1 - η_n λ)  =  2 Σ_{n < s} η_n λ  +  O((ηλ)²).

Under gradient descent with an L2 penalty the imbalance A - B of a linear pair falls as e^{-τ}, up
to terms of second order in the gradients: its rate in τ is 1, whatever the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from jaxtyping import Float

from flagscope.errors import InputError
from flagscope.series.rates.learning_rates import LearningRates

Optimiser = Literal["sgd", "adamw"]
"""`sgd`: the decay is an L2 term of the gradient. `adamw`: Adam with decoupled decay."""


@dataclass(frozen=True, eq=False)
class DecayTime:
    """τ after some numbers of updates, and the least and most that it may be.

    Attributes
    ----------
    value, low, high
        One entry for each step that was asked for.
    """

    value: Float[np.ndarray, " steps"]
    low: Float[np.ndarray, " steps"]
    high: Float[np.ndarray, " steps"]


@dataclass(frozen=True, eq=False)
class GroupSchedule:
    """Schedule of one group of parameters.

    Attributes
    ----------
    name
        Name of the group.
    rates
        Learning rate of each update.
    decay
        λ as the optimiser was given it, constant over the training; None where it is not known.
    momentum, dampening, nesterov
        Settings of PyTorch's SGD.
    betas
        Betas of Adam.
    members
        Which tensors are in it, in words; None where that is not known.
    tensors
        Names of its tensors, or patterns of names (`h.0.*`); None where they are not known.
    """

    name: str
    rates: LearningRates
    decay: float | None
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] | None = None
    members: str | None = None
    tensors: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.decay is not None and not (math.isfinite(self.decay) and self.decay >= 0):
            raise InputError(f"weight decay of group {self.name!r} is {self.decay}")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum of group {self.name!r} is {self.momentum}")

    def decay_time(self, steps: Sequence[int]) -> DecayTime:
        """τ after each of these numbers of updates.

        With momentum the weight is followed through PyTorch's own recursion without a gradient,
        v ← β v + (1 - d) λ w, w ← w - η v.

        Raises
        ------
        InputError
            If λ is not known, a step lies outside of the schedule, or a step is so large that a
            weight without a gradient would change its sign (ηλ ≥ 1).

        Examples
        --------
        >>> from flagscope.series.rates import known_rates
        >>> group = GroupSchedule("all", known_rates(0.1, updates=100), decay=0.01)
        >>> group.decay_time([0, 50, 100]).value.round(4).tolist()
        [0.0, 0.1001, 0.2001]
        """
        at = np.array(list(steps), dtype=int)
        if self.decay is None:
            raise InputError(f"the weight decay of group {self.name!r} is not known")
        if len(at) and (at.min() < 0 or at.max() > len(self.rates)):
            raise InputError(
                f"the schedule of group {self.name!r} has {len(self.rates)} updates, and step "
                f"{int(at.max() if at.max() > len(self.rates) else at.min())} was asked for"
            )
        value = self._exponents(self.rates.values)[at]
        if self.rates.exact:
            return DecayTime(value, value, value)
        low, high = self._exponents(self.rates.low)[at], self._exponents(self.rates.high)[at]
        return DecayTime(value, low, high)

    def _exponents(self, rates: Float[np.ndarray, " updates"]) -> Float[np.ndarray, " steps"]:
        """-2 log of what is left of a weight without gradient, after 0, 1, … updates."""
        decay = self.decay or 0.0
        if rates.size and float(rates.max()) * decay >= 1:
            raise InputError(
                f"learning rate times weight decay is {float(rates.max()) * decay:g} in group "
                f"{self.name!r}: a decay in each step of the whole weight or more"
            )
        if not self.momentum:
            return np.concatenate([[0.0], np.cumsum(-2 * np.log1p(-rates * decay))])
        weight, velocity, left = 1.0, None, [0.0]
        for rate in rates.tolist():
            pull = decay * weight
            # PyTorch's first step takes the gradient without dampening.
            velocity = (
                pull if velocity is None else self.momentum * velocity + (1 - self.dampening) * pull
            )
            weight -= rate * (pull + self.momentum * velocity if self.nesterov else velocity)
            if weight <= 0:
                raise InputError(
                    f"with momentum {self.momentum:g} the decay of group {self.name!r} overshoots "
                    "zero: there is no decay time",
                    hint="look at the learning rate and the weight decay again",
                )
            left.append(-2 * math.log(weight))
        return np.array(left)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Schedule of a training.

    Attributes
    ----------
    groups
        Groups of parameters.
    optimiser
        "sgd" (L2) or "adamw" (decoupled decay); None where it is another, or not known.
    source
        Where it comes from.
    notes
        What was not known, and what was assumed instead.
    """

    groups: tuple[GroupSchedule, ...]
    optimiser: Optimiser | None
    source: str = "given"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if not names or len(set(names)) < len(names):
            raise InputError(f"a schedule has groups of different names, got {names}")

    def group(self, name: str) -> GroupSchedule:
        """The group of a name.

        Raises
        ------
        InputError
            If there is none.
        """
        for group in self.groups:
            if group.name == name:
                return group
        names = ", ".join(group.name for group in self.groups)
        raise InputError(f"there is no group {name!r}", hint=f"there are {names}")

    @property
    def named(self) -> bool:
        """Whether names of tensors say which group they are in."""
        return any(group.tensors is not None for group in self.groups)

    def group_of(self, tensor: str) -> GroupSchedule | None:
        """The group of a tensor by its name; None where that is not known.

        The first group that has the name, or a pattern of it, counts. Where none has, a prefix that
        the one name has and the other has not is passed over, if that leaves one group.

        Examples
        --------
        >>> from flagscope.series.rates import known_rates
        >>> rates = known_rates(0.1, updates=9)
        >>> first = GroupSchedule("a", rates, 0.01, tensors=("net.0.weight", "net.0.bias"))
        >>> second = GroupSchedule("b", rates, 0.02, tensors=("net.1.*",))
        >>> schedule = Schedule((first, second), "sgd")
        >>> schedule.group_of("0.weight").name, schedule.group_of("net.1.weight").name
        ('a', 'b')
        >>> schedule.group_of("2.weight") is None
        True
        """
        named = [(group, name) for group in self.groups for name in group.tensors or ()]
        for group, name in named:
            if tensor == name or fnmatchcase(tensor, name):
                return group
        found = [
            group
            for group, name in named
            if name.endswith(f".{tensor}") or tensor.endswith(f".{name}")
        ]
        return found[0] if found and all(group is found[0] for group in found) else None

    @property
    def only_decayed(self) -> GroupSchedule | None:
        """The one group that matrices can be in: the only one, or the only one with decay."""
        if len(self.groups) == 1:
            return self.groups[0]
        decayed = [group for group in self.groups if group.decay != 0]
        return decayed[0] if len(decayed) == 1 else None


def given_schedule(
    rates: LearningRates,
    decay: float | dict[str, float],
    *,
    optimiser: Optimiser | None = "sgd",
    momentum: float = 0.0,
    betas: tuple[float, float] | None = None,
) -> Schedule:
    """A schedule given by hand.

    Parameters
    ----------
    rates
        From `known_rates` or `logged_rates`; all groups share them.
    decay
        λ, or λ of each group by name.
    optimiser
        "sgd", "adamw", or None for another.
    momentum, betas
        Of the optimiser.

    Examples
    --------
    >>> from flagscope.series.rates import known_rates
    >>> schedule = given_schedule(known_rates(0.1, updates=9), {"maps": 0.01, "biases": 0.0})
    >>> schedule.only_decayed.name
    'maps'
    """
    by_group = decay if isinstance(decay, dict) else {"all": decay}
    groups = [
        GroupSchedule(name, rates, own, momentum=momentum, betas=betas)
        for name, own in by_group.items()
    ]
    return Schedule(tuple(groups), optimiser)
