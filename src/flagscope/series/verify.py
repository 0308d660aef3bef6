"""Is each checkpoint of a series what its name says, as far as headers and samples show?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flagscope.records.series import Integrity, SeriesFault, StepRecord
from flagscope.series.checks.branches import branches, logged_anew
from flagscope.series.checks.copies import (
    equal_faults,
    equal_groups,
    misplaced,
    near_equal_faults,
)
from flagscope.series.checks.foreign import (
    another_training,
    foreign_files,
    foreign_steps,
)
from flagscope.series.checks.headers import (
    like_most,
    mixed_dtype,
    not_finite,
    other_tensors,
    unread,
)
from flagscope.series.checks.numbers import gaps, wrong_numbers
from flagscope.series.checks.optimisers import optimisers_anew
from flagscope.series.checks.order import right_order, wrong_order
from flagscope.series.checks.unconfirmed import unconfirmed
from flagscope.series.checks.unordered import unordered
from flagscope.series.compared import Compared, compared
from flagscope.series.step import Step

_KEPT = 8
_ANEW = ("restart", "rolled-back")  # faults after which steps have no one order
_SAMPLED = (
    "Samples of each tensor were compared, no tensor was read whole: a change confined to what "
    "was not sampled is not seen."
)


def verified(steps: Sequence[Step]) -> tuple[Integrity, Compared]:
    """Everything that is wrong with a series.

    Parameters
    ----------
    steps
        In the order of their numbers; those that cannot be read are faults themselves.

    Returns
    -------
    Integrity, Compared
        The second holds the readable steps and their distances.
    """
    readable = [step for step in steps if step.fault is None and step.headers]
    readable = [step for step in readable if not step.place.unfinished]
    faults = [*unread(steps), *not_finite(readable), *other_tensors(readable)]
    finite = [step for step in like_most(readable) if _mostly_finite(step)]
    series = compared(finite)
    faults += mixed_dtype(readable)
    faults += _of_contents(series)
    known = [step for step in steps if step.fault != "unreadable"]
    faults += wrong_numbers(known)
    faults += [
        fault for fault in logged_anew(readable)
        if not any(fault.code == one.code and fault.steps == one.steps for one in faults)
    ]  # fmt: skip
    faults += optimisers_anew(readable, faults)
    faults += gaps([step.place for step in steps])
    frozen = [one.name for one in series.tensors if one.frozen] if len(finite) > 1 else []
    integrity = Integrity(
        faults=faults,
        tensors_compared=len(series.tensors),
        samples=sum(one.count for one in series.tensors),
        frozen=frozen[:_KEPT],
        frozen_total=len(frozen),
        path_length=float(np.diag(series.far, 1).sum()) if series.far.size else None,
        displacement=float(series.far[0, -1]) if series.far.size else None,
        not_looked_at=_not_looked_at(steps, series, faults),
    )
    return integrity, series


def _of_contents(series: Compared) -> list[SeriesFault]:
    groups = equal_groups(series)
    faults = equal_faults(series, groups)
    files, partly = foreign_files(series)
    faults += files
    copies = {place for group in groups for place in (misplaced(series, group) or group[1:])}
    strange, aside = foreign_steps(series, copies, partly)
    faults += near_equal_faults(series, copies | partly | aside) + strange
    left = copies | partly | aside
    anew, cut = another_training(series, left)
    faults += anew
    left |= unordered(series.steps)[0]
    if cut is None:
        return [*faults, *_of_order(series.without(left))]
    for part in (range(cut, len(series.steps)), range(cut)):
        faults += _of_order(series.without(left | set(part)))
    return faults


def _of_order(series: Compared) -> list[SeriesFault]:
    """Steps that are exchanged, or that continue from an earlier one.

    Both make a step lie far from the one before it: steps are called exchanged only where the other
    order leaves fewer that continue from an earlier one.
    """
    given = branches(series)
    order = right_order(series)
    if order == list(range(len(series.steps))):
        return given
    rest = branches(compared([series.steps[place] for place in order]))
    if rest and len(rest) >= len(given):
        return given
    return [*wrong_order(series, order), *rest]


def _mostly_finite(step: Step) -> bool:
    values = list(step.values.values())
    finite = [bool(np.isfinite(one).all()) for one in values]
    return bool(values) and sum(finite) >= len(finite) / 2


def _not_looked_at(
    steps: Sequence[Step], series: Compared, faults: Sequence[SeriesFault]
) -> list[str]:
    said = [_SAMPLED]
    said += [note for step in steps for note in step.notes]
    if series.steps:
        names = set().union(*(step.headers for step in series.steps))
        left = len(names) - len(series.tensors)
        if left and len(series.steps) > 1:
            said.append(
                f"{left:,} of {len(names):,} tensors were not compared: not all steps have them in "
                "one shape, with finite numbers of a type that can be read."
            )
    if not any(step.state for step in steps):
        on_hub = any(step.place.revision is not None for step in steps)
        none = (
            "On the hub no trainer_state.json is looked for" if on_hub
            else "No step has a trainer_state.json of its own"
        )  # fmt: skip
        said.append(f"{none}: numbers in names were not checked.")
    if not any(step.state or step.optimiser_step is not None for step in steps):
        here = all(step.place.is_local for step in steps)
        none = (
            "No optimiser that counts its updates lies next to the steps" if here
            else "Optimisers are read on this machine alone"
        )  # fmt: skip
        said.append(f"{none}: a restart of it alone is not seen.")
    aside, why = unordered(series.steps)
    said += why
    if len(series.steps) < 4:
        said.append("Fewer than four steps can be compared: their order was not checked.")
    if any(fault.code in _ANEW for fault in faults):
        return said
    faulty = {name for fault in faults for name in fault.steps}
    aside |= {at for at, step in enumerate(series.steps) if step.place.name in faulty}
    return [*said, *unconfirmed(series.without(aside))]


def step_records(steps: Sequence[Step], series: Compared) -> list[StepRecord]:
    """A record of each step, with its distances."""
    places = {id(step): place for place, step in enumerate(series.steps)}
    return [_record(step, places.get(id(step)), series) for step in steps]


def _record(step: Step, place: int | None, series: Compared) -> StepRecord:
    far = series.far if place is not None and series.far.size else None
    correlated = series.correlation if place is not None and series.correlation.size else None
    status = "being-written" if step.place.unfinished else (step.fault or "ok")
    return StepRecord(
        name=step.place.name,
        source=step.place.source,
        revision=step.place.revision,
        number=step.place.number,
        unit=step.place.unit,
        trainer_step=None if step.state is None else step.state.step,
        status=status,
        tensors=len(step.headers),
        dtype=_main_dtype(step),
        bytes_total=step.nbytes,
        bytes_sampled=step.bytes_read,
        distance=None if far is None or not place else float(far[place - 1, place]),
        distance_first=None if far is None or place is None else float(far[0, place]),
        distance_last=None if far is None or place is None else float(far[place, -1]),
        correlation_first=_finite(correlated, place),
    )


def _finite(correlated: np.ndarray | None, place: int | None) -> float | None:
    if correlated is None or place is None or not np.isfinite(correlated[0, place]):
        return None
    return float(correlated[0, place])


def _main_dtype(step: Step) -> str | None:
    sizes: dict[str, int] = {}
    for name, header in step.headers.items():
        size = step.values[name].size if name in step.values else 1
        sizes[header.dtype] = sizes.get(header.dtype, 0) + size
    return max(sizes, key=lambda kind: sizes[kind]) if sizes else None
