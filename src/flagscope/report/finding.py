"""The record of one finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flagscope.records import Label

Severity = Literal["strong", "notable", "warning", "info"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a scan shows, in words.

    Parameters
    ----------
    severity
        ``"strong"`` and ``"notable"`` lie beyond chance: the chance that a report makes any such
        claim wrongly is at most the scan's ``fdr``. ``"warning"`` says what is missing; ``"info"``
        is a remark, also on what is significant but small, or counted and not certain.
    topic
        ``"heads"``, ``"pairs"``, ``"links"`` or ``"scan"``.
    text
        One sentence, with counts and the chance value.
    evidence
        The numbers behind it: effect, tests, intervals, where it is strongest.
    means, next_step, not_meaning
        One plain sentence each: what it means, what to look at next, and what it does not mean,
        with the verdict of the laboratory where there is one. Empty for warnings.
    effect
        Distance from chance, |ln(x / chance)| or atanh|ρ| of a number in the text; None where
        there is none. Within a severity findings stand in its order.
    label
        Whether the numbers are functional or depend on the gauge; None where neither applies.
    target
        Where a page shows more: ``"heads/3"`` (index of a head group), ``"pair/17"`` (index of a
        pair), ``"track/qk/rope"`` or ``"section/details"``.
    """

    severity: Severity
    topic: Literal["heads", "pairs", "links", "scan"]
    text: str
    evidence: tuple[str, ...] = ()
    means: str = ""
    next_step: str = ""
    not_meaning: str = ""
    effect: float | None = None
    label: Label | None = None
    target: str | None = None
