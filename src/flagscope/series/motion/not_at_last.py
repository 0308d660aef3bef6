"""Maps that the last step does not have, so that there is no way from their first step to it."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records.series_motion import MapMotion
from flagscope.shortening import listed

_LISTED = 5


def not_at_last(motions: Sequence[MapMotion], names: Sequence[str]) -> list[str]:
    """Which maps have no displacement since the last step lacks them, in words.

    Parameters
    ----------
    motions
        Of one training.
    names
        Of its steps, in their order.

    Returns
    -------
    list of str
        A note on those that the last step has in no such shape, and one on those whose numbers
        there are not finite; none where each map has its way.
    """
    followed = [max(places) for one in motions if (places := _places(one))]
    if not followed:
        return []
    last = max(followed)
    open_ = [one for one in motions if one.displacement is None and min(_places(one)) < last]
    # A row without a norm has a status that says why.
    broken = [one.name for one in open_ if one.status[last] is not None]
    missing = [one.name for one in open_ if one.status[last] is None]
    notes = []
    if missing:
        notes.append(
            f"{_counted(missing)} no displacement and no straightness: {names[last]}, the last "
            f"step that was followed, has no such map of that shape ({listed(missing, _LISTED)})."
        )
    if broken:
        notes.append(
            f"{_counted(broken)} no displacement and no straightness: in {names[last]}, the last "
            "step that was followed, numbers are not finite, or beyond double precision "
            f"({listed(broken, _LISTED)})."
        )
    return notes


def _places(motion: MapMotion) -> list[int]:
    return [place for place, status in enumerate(motion.status) if status is not None]


def _counted(names: Sequence[str]) -> str:
    return f"{len(names):,} map{' has' if len(names) == 1 else 's have'}"
