"""Which steps the motion passes over, since what they hold is not theirs."""

from __future__ import annotations

from flagscope.records.series import Integrity, SeriesFaultCode
from flagscope.series.checks.copies import equal_groups, misplaced
from flagscope.series.compared import Compared

_NOT_THEIRS: tuple[SeriesFaultCode, ...] = (
    "foreign-shard",
    "foreign-initialisation",
    "foreign-step",
    "wrong-order",
    "of-another-run",
)


def passed_over(integrity: Integrity, series: Compared) -> dict[str, SeriesFaultCode]:
    """Names of readable steps whose content belongs elsewhere, and the fault that says so.

    Of equal steps those are left out whose content lies elsewhere; where that is not plain, all
    are kept, since between them nothing moves.
    """
    found: dict[str, SeriesFaultCode] = {}
    for group in equal_groups(series):
        for place in misplaced(series, group):
            found[series.steps[place].place.name] = "equal"
    for fault in integrity.faults:
        if fault.code in _NOT_THEIRS:
            found |= dict.fromkeys(fault.steps, fault.code)
    return found
