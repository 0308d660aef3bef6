"""The record of one finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flagscope.diagnose.records import Label


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a scan shows, in words.

    Parameters
    ----------
    severity
        ``"strong"`` and ``"notable"`` lie beyond chance; ``"warning"`` says what is missing;
        ``"info"`` is a remark.
    topic
        ``"heads"``, ``"pairs"``, ``"links"`` or ``"scan"``.
    text
        One sentence, with counts and the chance value.
    evidence
        The numbers behind it: tests, intervals, where it is strongest.
    label
        Whether the numbers are functional or depend on the gauge; None where neither applies.
    target
        Where a page shows more: ``"heads/3"`` (index of a head group), ``"pair/17"`` (index of a
        pair), ``"track/qk/rope"`` or ``"section/details"``.
    """

    severity: Literal["strong", "notable", "warning", "info"]
    topic: Literal["heads", "pairs", "links", "scan"]
    text: str
    evidence: tuple[str, ...] = ()
    label: Label | None = None
    target: str | None = None
