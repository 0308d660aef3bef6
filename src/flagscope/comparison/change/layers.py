"""Changes of maps by layer and role."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flagscope.records.comparison.change import LayerChange, MapChange

IDENTICAL = "identical"
ROUNDING = "moved less than rounding can tell"
BEYOND = "beyond double precision"

# What the estimate of rounding may lack, and standard deviations of a sum of squared errors whose
# sizes span a few powers of two.
_SLACK, _SPREAD = 1.1, 6.0


def within_rounding(change: float, rounding: float, entries: int) -> bool:
    """Whether a squared norm is what storage rounding gives.

    Parameters
    ----------
    change
        Squared norm of the change.
    rounding
        Its mean under rounding alone.
    entries
        Numbers that it is summed over: their squares spread by about their mean.
    """
    return change <= rounding * (_SLACK + _SPREAD / math.sqrt(max(entries, 1)))


def layer_changes(maps: Sequence[MapChange]) -> list[LayerChange]:
    """One record for each layer and role, in the order of the maps; else for each map."""
    groups: dict[tuple[str, int | None, str, str | None], list[MapChange]] = {}
    for change in maps:
        alone = change.name if change.layer is None else None
        groups.setdefault((change.stack, change.layer, change.role, alone), []).append(change)
    records = []
    for (stack, layer, role, alone), members in groups.items():
        change, relative_a, relative_b = total_change(members)
        records.append(
            LayerChange(
                stack=stack,
                layer=layer,
                role=role,
                map=alone,
                maps=len(members),
                identical=sum(member.status == IDENTICAL for member in members),
                within_rounding=sum(member.status == ROUNDING for member in members),
                change=change,
                relative_a=relative_a,
                relative_b=relative_b,
            )
        )
    return records


def total_change(
    maps: Sequence[MapChange],
) -> tuple[float | None, float | None, float | None]:
    """√Σ‖ΔW‖² of those that were measured, and it over the norms of both sides."""
    measured = [m for m in maps if m.change is not None]
    if not measured:
        return None, None, None
    change, of_a, of_b = (
        math.hypot(*(value or 0.0 for value in values))
        for values in (
            [m.change for m in measured],
            [m.norm_a for m in measured],
            [m.norm_b for m in measured],
        )
    )
    if not math.isfinite(change + of_a + of_b):
        return None, None, None
    return change, over(change, of_a), over(change, of_b)


def over(change: float, norm: float) -> float | None:
    """A change relative to a norm; None where that is 0."""
    return change / norm if norm else None


def scaled(value: float, exponent: int) -> float | None:
    """value · 2^exponent; None where it exceeds double precision."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return None
