"""From which step on two heads of a layer are near-copies.

The tests are those of the scans, which have one level for all pairs of heads, next to the other
tests of a step; each goes back from the last step, as in `flagscope.series.onsets`.
"""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.observables import NEAR_COPY
from flagscope.records import HeadPair, HeadRecord
from flagscope.records.series import StepRecord
from flagscope.records.series_onsets import Onset
from flagscope.series.head_curves import heads_over_steps
from flagscope.series.onsets import LEVEL, Seen, onset


def near_copies(
    steps: Sequence[StepRecord], scans: Sequence[Sequence[HeadRecord]], *, run: str | None = None
) -> list[Onset]:
    """When two heads become near-copies, of all that are at some step.

    Parameters
    ----------
    steps
        Of one training, in the order of their numbers.
    scans
        Groups of heads of each step; none of a step that was not measured, which is passed over.
    run
        Name of the training, where there are several.

    Returns
    -------
    list of Onset
        Two heads are near-copies at a step if they are at least half of the way from chance to a
        copy, and the scan's test of them rejects. A scan lists the 8 closest pairs of a layer and
        space: others count as not there, which makes an onset later and never earlier.
    """
    found = []
    for name, groups in heads_over_steps(scans).items():
        near = [None if one is None or one.clusters is None else _near(one) for one in groups]
        first = next(one for one in groups if one is not None)
        for heads in sorted({heads for some in near if some for heads in some}):
            seen = [None if some is None else Seen(heads in some) for some in near]
            where = name, first.space, first.layer
            found.append(onset(steps, seen, "near_copies", run, where, heads=heads))
    return found


def _near(group: HeadRecord) -> set[tuple[int, int]]:
    return {pair.heads for pair in group.near_copies if is_near_copy(pair)}


def is_near_copy(pair: HeadPair) -> bool:
    """Whether the scan's test rejects, at least half of the way from chance to a copy."""
    rejects = pair.p_familywise is not None and pair.p_familywise <= LEVEL
    return rejects and pair.closeness >= NEAR_COPY
