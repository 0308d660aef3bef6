"""Letters of the two sides in texts, put in last: two orders give one text, mirrored."""

from __future__ import annotations

from typing import Any, TypeVar

from flagscope.records.record import Record

R = TypeVar("R", bound=Record)

# Noncharacters, which no name of a tensor or a file holds.
SIDE_A, SIDE_B = "\ufdd0", "\ufdd1"
"""What texts say for the first and the second of two sides, until `lettered`."""


def lettered(record: R, *, turned: bool) -> R:
    """The record with A and B in its texts, the first side being B if `turned`.

    Examples
    --------
    >>> from flagscope.records.comparison.comparison import Verdict
    >>> line = f"only {SIDE_A} has it"
    >>> verdict = Verdict(code="unclear", text=line, evidence=(), cannot_tell=())
    >>> lettered(verdict, turned=False).text, lettered(verdict, turned=True).text
    ('only A has it', 'only B has it')
    """

    def through(value: Any) -> Any:
        if isinstance(value, str):
            return lettered_text(value, turned=turned)
        if isinstance(value, dict):
            return {key: through(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(through(entry) for entry in value)
        return value

    return type(record).model_validate(through(record.model_dump()))


def lettered_text(text: str, *, turned: bool) -> str:
    """One text with A and B in it."""
    first, second = ("B", "A") if turned else ("A", "B")
    return text.replace(SIDE_A, first).replace(SIDE_B, second)
