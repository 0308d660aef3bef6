"""Rates of all pairs of a series."""

from __future__ import annotations

from collections.abc import Mapping

from flagscope.records.series_rates import PairRate, SeriesRates
from flagscope.series.rates.fit import fitted_rate
from flagscope.series.rates.schedule import GroupSchedule, Schedule

_PREDICTED = 1.0
Groups = Mapping[str, str | tuple[str | None, str | None]]


def rates_of(
    values: Mapping[int, Mapping[str, float | None]],
    schedule: Schedule | None,
    *,
    groups: Groups | None = None,
    floors: Mapping[str, float] | None = None,
    diagnostic: str = "‖A - B‖",
) -> SeriesRates:
    """Fit the rate of each pair's diagnostic in decay time.

    Parameters
    ----------
    values
        Diagnostic by number of updates done, then by pair. A pair may lack steps; None counts as
        lacking.
    schedule
        Schedule of the training; None where it is not known.
    groups
        Group of parameters of each pair, or those of its write and its read map, None where that is
        not known. By default all pairs are in the only group, or in the only one with decay.
    floors
        What storage noise alone can make of the diagnostic, by pair.
    diagnostic
        What was measured. 1 is predicted for the imbalance ‖A - B‖ alone.

    Returns
    -------
    SeriesRates
        One answer for each pair, in the order in which pairs first occur: a rate with its 95 %
        interval, or `no-decay`, `unresolved`, `not-exponential`, `unknown-schedule`, or
        `mixed-decay` (the two maps of the pair decay at different λ, so that A - B has no law).

    Raises
    ------
    InputError
        If a group is not in the schedule, or a value is negative or not finite.

    Notes
    -----
    The prediction 1 is that of linear pairs under SGD with L2. Under AdamW none is made: its law is
    broken, and `flagscope.series.rates.rotations` has its own prediction. Activations between the
    maps and undecayed biases break it too (theory, section 4); neither is looked at here.

    Examples
    --------
    >>> import math
    >>> from flagscope.series.rates import given_schedule, known_rates
    >>> schedule = given_schedule(known_rates(0.1, updates=2000), 0.01)
    >>> values = {n: {"1-2": math.exp(-0.002 * n)} for n in range(0, 2001, 250)}
    >>> rates_of(values, schedule).rates[0].answer
    'rate'
    """
    names = list(dict.fromkeys(name for row in values.values() for name in row))
    floors, groups = floors or {}, groups or {}
    rates = [
        _pair_rate(
            name,
            {step: row[name] for step, row in sorted(values.items()) if row.get(name) is not None},
            schedule,
            groups.get(name),
            floors.get(name, 0.0),
            imbalance=diagnostic == "‖A - B‖",
        )
        for name in names
    ]
    return SeriesRates(
        optimiser=None if schedule is None else schedule.optimiser,
        source="none" if schedule is None else schedule.source,
        diagnostic=diagnostic,
        rates=rates,
        notes=_notes(schedule),
    )


def _pair_rate(
    name: str,
    series: Mapping[int, float | None],
    schedule: Schedule | None,
    wanted: str | tuple[str | None, str | None] | None,
    floor: float,
    *,
    imbalance: bool,
) -> PairRate:
    if schedule is None:
        return _unknown(name, "no schedule was given or found")
    if schedule.optimiser is None:
        return _unknown(name, "the optimiser is not known, or has no decay time here")
    group = _group(schedule, wanted)
    if isinstance(group, PairRate):
        return group.model_copy(update={"pair": name})
    if group.decay is None:
        return _unknown(name, f"the weight decay of group {group.name!r} is not known")
    if any(step > len(group.rates) for step in series):
        return _unknown(name, f"the schedule ends at step {len(group.rates)}, before the series")
    if group.decay == 0:
        reason = "the weight decay is 0: there is nothing to compare with"
        return PairRate(pair=name, group=group.name, answer="no-decay", reason=reason)
    numbers = [value for value in series.values() if value is not None]
    fit = fitted_rate(group.decay_time(list(series)), numbers, floor=floor)
    first, last = fit.ends or (None, None)
    return PairRate(
        pair=name,
        group=group.name,
        answer=fit.answer,
        reason=fit.reason,
        rate=fit.rate,
        low=fit.low,
        high=fit.high,
        predicted=_PREDICTED if imbalance and schedule.optimiser == "sgd" else None,
        points=fit.points,
        span=fit.span,
        correlation=fit.correlation,
        rate_first=first,
        rate_last=last,
    )


def _group(
    schedule: Schedule, wanted: str | tuple[str | None, str | None] | None
) -> GroupSchedule | PairRate:
    """The group of a pair, or the answer where there is no single one."""
    if wanted is None:
        only = schedule.only_decayed
        if only is not None:
            return only
        if all(group.decay == 0 for group in schedule.groups):
            return schedule.groups[0]
        names = ", ".join(group.name for group in schedule.groups)
        return _unknown("", f"which of the groups ({names}) the pair is in was not said")
    if isinstance(wanted, str):
        return schedule.group(wanted)
    if wanted[0] is None or wanted[1] is None:
        return _unknown("", "which group one of its maps is in is not known")
    write, read = (schedule.group(name) for name in wanted if name is not None)
    same = (write.decay, write.momentum) == (read.decay, read.momentum)
    if same and (write.rates is read.rates or (write.rates.values == read.rates.values).all()):
        return write
    reason = f"its maps are in the groups {write.name} and {read.name}, which decay differently"
    return PairRate(pair="", group=None, answer="mixed-decay", reason=reason)


def _unknown(name: str, reason: str) -> PairRate:
    return PairRate(pair=name, group=None, answer="unknown-schedule", reason=reason)


def _notes(schedule: Schedule | None) -> list[str]:
    notes = ["activations between the maps and biases without decay were not looked at"]
    if schedule is None:
        return notes
    if schedule.optimiser == "adamw":
        notes.append("under AdamW theory predicts no rate of the imbalance")
    if schedule.optimiser == "sgd":
        notes.append(
            "the prediction holds to first order in the learning rate; intervals are of scatter "
            "alone, and may miss it by what is of second order"
        )
    return [*schedule.notes, *notes]
