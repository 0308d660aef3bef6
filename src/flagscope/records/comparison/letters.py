"""Letters of the two sides in texts, put in last: two orders give one text, mirrored."""

from __future__ import annotations

from functools import partial

from flagscope.records.record import R, with_texts

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
    return with_texts(record, partial(lettered_text, turned=turned))


def lettered_text(text: str, *, turned: bool) -> str:
    """One text with A and B in it."""
    first, second = ("B", "A") if turned else ("A", "B")
    return text.replace(SIDE_A, first).replace(SIDE_B, second)
