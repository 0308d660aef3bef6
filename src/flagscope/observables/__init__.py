"""Observables as data: field, words, formula, null, gauge class, p-column, size floor."""

from __future__ import annotations

from flagscope.observables.heads import HEAD_EXPLANATIONS, LISTED_PAIRS, NEAR_COPY
from flagscope.observables.nulls import UNTESTABLE, untestable
from flagscope.observables.observable import Band, Explanation, Observable
from flagscope.observables.pairs import CORRELATION_FLOOR, PAIR_OBSERVABLES, RATIO_FLOOR
from flagscope.observables.tracked import (
    HEAD_NUMBER,
    HEAD_NUMBERS,
    HEALTH_EXPLANATIONS,
    HeadNumber,
)
from flagscope.records import PairRecord

PAIR_OBSERVABLE: dict[str, Observable] = {entry.field: entry for entry in PAIR_OBSERVABLES}
"""Each observable of a pair by its field."""


def null_band(pair: PairRecord, field: str) -> Band | None:
    """Range of one observable of a pair under chance; None where no random model calibrates it."""
    null = PAIR_OBSERVABLE[field].null
    return None if null is None else null(pair)


# What no random model calibrates comes last.
_CALIBRATED_FIRST = sorted(PAIR_OBSERVABLES, key=lambda entry: entry.null is None)
COLUMNS = tuple(entry for entry in _CALIBRATED_FIRST if entry.column)
"""Observables in the page's table of pairs, in its order."""
PROFILED = tuple(entry.field for entry in _CALIBRATED_FIRST if entry.profiled)
"""Fields drawn over depth, in the order of the page."""
AT_A_GLANCE = tuple(entry.field for entry in PAIR_OBSERVABLES if entry.at_a_glance)
"""Fields of each track in the page's overview."""

EXPLANATIONS: dict[str, Explanation] = {
    **{entry.field: entry.words for entry in PAIR_OBSERVABLES if entry.column and entry.words},
    **HEAD_EXPLANATIONS,
    **{entry.field: entry.words for entry in PAIR_OBSERVABLES if not entry.column and entry.words},
}
"""Every diagnostic in words, by its field: the glossary."""
SERIES_EXPLANATIONS: dict[str, Explanation] = {
    **EXPLANATIONS,
    **{number.field: number.words for number in HEAD_NUMBERS},
    **HEALTH_EXPLANATIONS,
}
"""Every number that a series follows in words, by its field."""

__all__ = [
    "AT_A_GLANCE",
    "COLUMNS",
    "CORRELATION_FLOOR",
    "EXPLANATIONS",
    "HEAD_EXPLANATIONS",
    "HEAD_NUMBER",
    "HEAD_NUMBERS",
    "HEALTH_EXPLANATIONS",
    "LISTED_PAIRS",
    "NEAR_COPY",
    "PAIR_OBSERVABLE",
    "PAIR_OBSERVABLES",
    "PROFILED",
    "RATIO_FLOOR",
    "SERIES_EXPLANATIONS",
    "UNTESTABLE",
    "Band",
    "Explanation",
    "HeadNumber",
    "Observable",
    "null_band",
    "untestable",
]
