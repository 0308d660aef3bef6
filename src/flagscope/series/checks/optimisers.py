"""Has the optimiser of a step done fewer updates than that of the step before?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from flagscope.records.series import SeriesFault
from flagscope.series.step import Step

_BACK = ("restart", "rolled-back")


def optimisers_anew(steps: Sequence[Step], known: Sequence[SeriesFault]) -> list[SeriesFault]:
    """Steps whose optimiser counts no more updates than that of the step before: it began anew.

    Steps that `known` faults name are not what their names say, and are passed over; those that
    began anew or went back by their weights are not named twice.
    """
    back = {name for one in known if one.code in _BACK for name in one.steps}
    other = {name for one in known if one.code not in (*_BACK, "gap") for name in one.steps}
    counted = [
        step
        for step in steps
        if step.optimiser_step is not None and step.place.name not in other - back
    ]
    faults = []
    for before, after in itertools.pairwise(counted):
        earlier, later = before.optimiser_step or 0, after.optimiser_step or 0
        if later > earlier or later == earlier == 0 or after.place.name in back:
            continue
        name, origin = after.place.name, before.place.name
        faults.append(
            SeriesFault(
                code="restart",
                steps=[name],
                plain=f"{name} has an optimiser that began anew after {origin}.",
                evidence=f"It has done {later:,} updates, that of {origin} {earlier:,}. "
                "The weights need not have begun anew.",
            )
        )
    return faults
