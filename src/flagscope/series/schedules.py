"""The schedule of a series of checkpoints: as it was given, or as it lies next to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from flagscope.errors import FlagscopeError, InputError
from flagscope.series.rates.learning_rates import known_rates, logged_rates
from flagscope.series.rates.optimisers import OPTIMISER, schedule_from_optimisers
from flagscope.series.rates.schedule import Optimiser, Schedule, given_schedule
from flagscope.series.rates.trainer import trainer_schedule
from flagscope.series.step import Step
from flagscope.series.trainer_state import TRAINER_STATE

ARGUMENTS = "training_args.bin"
Rates = float | Sequence[float] | Mapping[int, float] | Callable[[int], float]


def updates_of(step: Step) -> int | None:
    """Number of updates done: by the name, else by trainer_state.json; None where neither says."""
    if step.place.unit == "step":
        return step.place.number
    return None if step.state is None else step.state.step


def checked_given(
    rates: Rates | None, decay: float | None, optimiser: Optimiser | None, momentum: float
) -> None:
    """Raise `InputError` where a schedule is given in part, or is none."""
    if optimiser not in (None, "sgd", "adamw"):
        raise InputError(f"optimiser is {optimiser!r}", hint='give "sgd" or "adamw"')
    if rates is not None and (decay is None or optimiser is None):
        raise InputError(
            "a learning rate alone is not a schedule", hint="give weight_decay and optimiser too"
        )
    if rates is None and momentum:
        raise InputError("a momentum without a learning rate", hint="give learning_rate too")
    if rates is not None:
        _given(rates, decay or 0.0, optimiser, momentum, 1 if not isinstance(rates, list) else None)


def schedule_of(
    steps: Sequence[Step],
    *,
    rates: Rates | None = None,
    decay: float | None = None,
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
        and the optimiser then stand in for what these do not say.

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
        return _given(rates, decay or 0.0, optimiser, momentum, max(*known, 1)), ""
    try:
        return _saved(steps, decay, optimiser)
    except FlagscopeError as error:
        return None, f"the schedule cannot be read: {error}"


def _given(
    rates: Rates, decay: float, optimiser: Optimiser | None, momentum: float, updates: int | None
) -> Schedule:
    if isinstance(rates, Mapping):
        learning = logged_rates(rates, updates=max(updates or 1, *rates) if rates else 1)
    elif callable(rates) or isinstance(rates, (int, float)):
        learning = known_rates(rates, updates=updates)
    else:
        learning = known_rates(rates)
    return given_schedule(learning, decay, optimiser=optimiser, momentum=momentum)


def _saved(
    steps: Sequence[Step], decay: float | None, optimiser: Optimiser | None
) -> tuple[Schedule | None, str]:
    here = [step for step in steps if step.place.is_local]
    if not here:
        return None, "no schedule was given, and files next to steps are read on this machine alone"
    folders = [folder for step in here if (folder := step.place.folder) is not None]
    states = [one for one in reversed(folders) if (one / TRAINER_STATE).is_file()]
    for folder in states:
        if (folder / ARGUMENTS).is_file():
            return trainer_schedule(
                folder / TRAINER_STATE, folder / ARGUMENTS, decay=decay, optimiser=optimiser
            ), ""
    saved = {
        number: step.optimiser
        for step in here
        if step.optimiser is not None and (number := updates_of(step)) is not None
    }
    if saved:
        return schedule_from_optimisers(saved, updates=max(saved), optimiser=optimiser), ""
    if states:
        return trainer_schedule(states[0] / TRAINER_STATE, decay=decay, optimiser=optimiser), ""
    unread = [note for step in here for note in step.notes if OPTIMISER in note]
    if unread:
        return None, f"the schedule cannot be read: {unread[-1]}"
    return None, "no schedule was given, and none lies next to the checkpoints"
