"""Steps of a series that may still grow: what is being written is read once it is whole."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flagscope.errors import InputError
from flagscope.series.file_states import FileStates, file_states, last_change
from flagscope.series.places import Place, places
from flagscope.series.step import Step, read_step

if TYPE_CHECKING:
    from flagscope.engine import Progress
    from flagscope.series.kept import KeptSteps

QUIET = 2.0
"""Seconds without a change after which a step counts as written."""
_PAUSE = 1.0  # seconds between two looks
_GROWING = ("truncated", "incomplete")


@dataclass(frozen=True)
class _Look:
    """A step as it was read.

    Attributes
    ----------
    states
        Of its files, after the reading.
    since
        When this state was first seen.
    moved
        Whether another state was seen before, or the step was not there.
    torn
        Whether its files changed during the reading.
    """

    step: Step
    states: FileStates | None
    since: float
    moved: bool
    torn: bool

    @property
    def recent(self) -> bool:
        """Whether the state was first seen less than the quiet time ago."""
        return time.monotonic() - self.since < QUIET


def read_steps(
    sources: Sequence[str | os.PathLike[str]],
    *,
    kept: KeptSteps | None = None,
    wait: float = 0.0,
    progress: Progress | None = None,
) -> list[Step]:
    """The steps that sources name, each as `read_step` gives it.

    Parameters
    ----------
    sources
        As for `places`.
    kept
        Store that is asked first.
    wait
        Seconds, at most, for which steps are waited for that are not whole: with the name of what
        is being written, cut short, without all of their files, or with a change of a file less
        than two seconds ago. Steps that are added meanwhile are read too. Files behind URLs show no
        change; there it is the reading that fails. Revisions of the hub are not waited for.
    progress
        Called with steps done, steps in all, and what is being done.

    Returns
    -------
    list of Step
        In the order of `places`. A step whose files changed while it was read, or at the end of
        the waiting, has the fault "being-written".

    Raises
    ------
    InputError, MissingFileError
        As for `places`; also if `wait` is negative or not finite.
    StoreError
        If the store cannot be written.
    """
    if not (isinstance(wait, (int, float)) and math.isfinite(wait) and wait >= 0):
        raise InputError(f"wait is {wait!r}", hint="give seconds, 0 or more")
    end = time.monotonic() + wait
    looks: dict[Place, _Look] = {}
    found = places(sources)
    known = set(found)
    while True:
        for count, place in enumerate(found):
            looks[place] = _looked(place, looks.get(place), kept, new=place not in known)
            if progress is not None:
                progress(count + 1, len(found), f"reading {place.name}")
        left = end - time.monotonic()
        if left <= 0:
            break
        waited_for = [place for place in found if _may_change(place, looks[place], wait)]
        before, found = found, places(sources)
        if not waited_for and found == before:
            break
        if waited_for:
            if progress is not None:
                progress(
                    len(before) - len(waited_for),
                    len(before),
                    f"waiting for {waited_for[0].name}, {left:.0f} s at most",
                )
            time.sleep(min(_PAUSE, left))
            found = places(sources)
    return [_answer(looks[place]) for place in found]


def _looked(place: Place, last: _Look | None, kept: KeptSteps | None, *, new: bool) -> _Look:
    """The step, read unless nothing changed since the last look."""
    states = file_states(place)
    unseen = states is None and last is not None and last.step.fault in _GROWING
    if last is not None and states == last.states and not last.torn and not unseen:
        return last
    step = read_step(place) if kept is None else kept.step(place)[0]
    after = file_states(place)
    moved = new if last is None else states != last.states
    return _Look(step, after, time.monotonic(), moved, torn=after != states)


def _may_change(place: Place, look: _Look, wait: float) -> bool:
    """Whether a step is not whole yet, or was changed just now."""
    if place.revision is not None:
        return False
    if look.torn or (look.moved and look.recent):
        return True
    # Clocks of file servers differ: a time far from now says nothing, in either direction.
    changed = last_change(place)
    age = math.inf if changed is None else abs(time.time() - changed)
    if place.unfinished or look.step.fault in _GROWING:
        return look.states is None or age < wait
    return look.recent and age < QUIET


def _answer(look: _Look) -> Step:
    """The step, with a fault where it was seen to change."""
    growing = look.step.fault in _GROWING and look.moved and look.recent
    if look.step.place.unfinished or not (look.torn or growing):
        return look.step
    when = "while it was being read" if look.torn else f"less than {QUIET:.0f} s before"
    reason = f"Its files changed {when}. {look.step.reason}".strip()
    return Step(look.step.place, "being-written", reason, state=look.step.state)
