"""Weight decay given by names of tensors: which group of a schedule each of them is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flagscope.errors import InputError
from flagscope.series.rates.schedule import GroupSchedule, Schedule

_SAME = 1e-6  # files keep λ as it was given; people give it in a few digits


def with_decays(schedule: Schedule, decays: Mapping[str, float]) -> Schedule:
    """The schedule with a group for each pattern of names, of the group that has this λ.

    Parameters
    ----------
    schedule
        Of the training. A λ that none of its groups has is that of those whose λ is not known.
    decays
        λ by names of tensors, or patterns of them (`h.0.*`); the first that a name matches counts.

    Raises
    ------
    InputError
        If no group has a given λ, or groups of other learning rates have it as well.

    Examples
    --------
    >>> from flagscope.series.rates import given_schedule, known_rates
    >>> schedule = given_schedule(known_rates(0.1, updates=9), {"a": 0.01, "b": 0.02})
    >>> by_names = with_decays(schedule, {"h.0.*": 0.02, "h.*": 0.01})
    >>> by_names.group_of("h.0.mlp").decay, by_names.group_of("h.1.mlp").decay
    (0.02, 0.01)
    """
    return replace(
        schedule,
        groups=tuple(
            replace(
                _of(schedule.groups, decay, schedule.source),
                name=names,
                decay=decay,
                members=None,
                tensors=(names,),
            )
            for names, decay in decays.items()
        ),
    )


def _of(groups: Sequence[GroupSchedule], decay: float, source: str) -> GroupSchedule:
    found = [
        group
        for group in groups
        if group.decay is not None and math.isclose(group.decay, decay, rel_tol=_SAME)
    ] or [group for group in groups if group.decay is None]
    if not found:
        there = ", ".join(f"{group.decay:g}" for group in groups if group.decay is not None)
        raise InputError(
            f"no group of {source} has the weight decay {decay:g}", hint=f"there are {there}"
        )
    if not all(_alike(group, found[0]) for group in found):
        raise InputError(
            f"several groups of {source} have the weight decay {decay:g}, with different learning "
            "rates: which one is meant cannot be said by its weight decay"
        )
    return found[0]


def _alike(a: GroupSchedule, b: GroupSchedule) -> bool:
    same = (a.momentum, a.dampening, a.nesterov) == (b.momentum, b.dampening, b.nesterov)
    return same and bool((a.rates.values == b.rates.values).all())
