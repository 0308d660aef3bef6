"""The schedule of a series of checkpoints: as it was given, or as it lies next to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flagscope.errors import FlagscopeError, InputError
from flagscope.series.rates.by_names import with_decays
from flagscope.series.rates.learning_rates import known_rates, logged_rates
from flagscope.series.rates.optimisers import (
    OPTIMISER,
    SavedOptimiser,
    schedule_from_optimisers,
)
from flagscope.series.rates.schedule import Optimiser, Schedule, given_schedule
from flagscope.series.rates.trainer import trainer_schedule
from flagscope.series.step import Step
from flagscope.series.trainer_state import TRAINER_STATE

ARGUMENTS = "training_args.bin"
Rates = float | Sequence[float] | Mapping[int, float] | Callable[[int], float]
Decay = float | Mapping[str, float]
"""λ of all tensors, or by names of tensors or patterns of them."""


def updates_of(step: Step) -> int | None:
    """Number of updates done: by the name, else by trainer_state.json; None where neither says."""
    if step.place.unit == "step":
        return step.place.number
    return None if step.state is None else step.state.step


def checked_given(
    rates: Rates | None, decay: Decay | None, optimiser: Optimiser | None, momentum: float
) -> None:
    """Raise `InputError` where a schedule is given in part, or is none."""
    decays = (
        list(decay.values()) if isinstance(decay, Mapping) else [0.0 if decay is None else decay]
    )
    if not decays or not all(0 <= one < math.inf for one in decays):
        raise InputError(
            f"weight_decay is {decay!r}",
            hint="give a number, 0 or more, or one by names of tensors",
        )
    if optimiser not in (None, "sgd", "adamw"):
        raise InputError(f"optimiser is {optimiser!r}", hint='give "sgd" or "adamw"')
    if rates is not None and (decay is None or optimiser is None):
        raise InputError(
            "a learning rate alone is not a schedule", hint="give weight_decay and optimiser too"
        )
    if rates is None and momentum:
        raise InputError("a momentum without a learning rate", hint="give learning_rate too")
    if rates is not None:
        updates = 1 if not isinstance(rates, list) else None
        _given(rates, 0.0 if decay is None else decay, optimiser, momentum, updates)


def schedule_of(
    steps: Sequence[Step],
    *,
    rates: Rates | None = None,
    decay: Decay | None = None,
    optimiser: Optimiser | None = None,
    momentum: float = 0.0,
) -> tuple[Schedule | None, str]:
    """The schedule of a training, and why there is none.

    Parameters
    ----------
    steps
        Of the series, in its order.
    rates, decay, optimiser, momentum
        η, λ and the optimiser as they were given. Without η the schedule is read from what lies
        next to the last steps on this machine: trainer_state.json and training_args.bin of a
        Hugging Face Trainer, else the optimisers in optimizer.pt or in checkpoints of Lightning. λ
        and the optimiser then stand in for what these do not say; λ by names says which group of
        the optimiser they are in.

    Returns
    -------
    Schedule or None, str
        None with the reason.

    Raises
    ------
    InputError
        If a given schedule is wrong.
    """
    known = [number for step in steps if (number := updates_of(step)) is not None]
    if not known:
        return None, "no name and no trainer_state.json says how many updates were done"
    if rates is not None:
        every = 0.0 if decay is None else decay
        return _given(rates, every, optimiser, momentum, max(*known, 1)), ""
    try:
        if not isinstance(decay, Mapping):
            return _saved(steps, decay, optimiser)
        schedule, reason = _saved(steps, None, optimiser)
        return (None if schedule is None else with_decays(schedule, decay)), reason
    except FlagscopeError as error:
        return None, f"the schedule cannot be read: {error}"


def _given(
    rates: Rates, decay: Decay, optimiser: Optimiser | None, momentum: float, updates: int | None
) -> Schedule:
    if isinstance(rates, Mapping):
        learning = logged_rates(rates, updates=max(updates or 1, *rates) if rates else 1)
    elif callable(rates) or isinstance(rates, (int, float)):
        learning = known_rates(rates, updates=updates)
    else:
        learning = known_rates(rates)
    if not isinstance(decay, Mapping):
        return given_schedule(learning, decay, optimiser=optimiser, momentum=momentum)
    by_names = given_schedule(learning, dict(decay), optimiser=optimiser, momentum=momentum)
    return with_decays(by_names, decay)


def _saved(
    steps: Sequence[Step], decay: float | None, optimiser: Optimiser | None
) -> tuple[Schedule | None, str]:
    here = [step for step in steps if step.place.is_local]
    if not here:
        return None, "no schedule was given, and files next to steps are read on this machine alone"
    folders = [folder for step in here if (folder := step.place.folder) is not None]
    states = [one for one in reversed(folders) if (one / TRAINER_STATE).is_file()]
    saved = {
        number: step.optimiser
        for step in here
        if step.optimiser is not None and (number := updates_of(step)) is not None
    }
    for folder in states:
        if (folder / ARGUMENTS).is_file():
            schedule = trainer_schedule(
                folder / TRAINER_STATE, folder / ARGUMENTS, decay=decay, optimiser=optimiser
            )
            return _checked(schedule, saved, optimiser), ""
    if saved:
        return schedule_from_optimisers(saved, updates=max(saved), optimiser=optimiser), ""
    if states:
        return trainer_schedule(states[0] / TRAINER_STATE, decay=decay, optimiser=optimiser), ""
    unread = [note for step in here for note in step.notes if OPTIMISER in note]
    if unread:
        return None, f"the schedule cannot be read: {unread[-1]}"
    return None, "no schedule was given, and none lies next to the checkpoints"


def _checked(
    schedule: Schedule, saved: Mapping[int, SavedOptimiser], optimiser: Optimiser | None
) -> Schedule:
    """The schedule of a Trainer, or of its optimiser where that was made with another decay."""
    decays = {group.decay for one in saved.values() for group in one.groups}
    expected = {group.decay for group in schedule.groups}
    if not decays or decays - {0.0} == expected - {0.0}:
        return schedule
    own = schedule_from_optimisers(saved, updates=max(saved), optimiser=optimiser)
    said, held = (
        ", ".join(f"{one:g}" for one in sorted(one for one in some if one is not None))
        for some in (expected, decays)
    )
    note = f"{ARGUMENTS} gives the weight decay {said}, the optimiser has {held}: it counts"
    return replace(own, notes=(*own.notes, note))
