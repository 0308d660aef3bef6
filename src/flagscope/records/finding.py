"""The record of one finding of a scan."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.literals import Label
from flagscope.records.record import Record

Severity = Literal["strong", "notable", "warning", "info"]
FindingCode = Literal[
    "not-finite",
    "near-copies",
    "related-heads",
    "crowded-heads",
    "separate-heads",
    "shared-directions",
    "links-overlap-more",
    "links-overlap-less",
    "links-compose-more",
    "links-compose-less",
    "aligned",
    "overlap-more",
    "overlap-less",
    "lost-ranks",
    "exact-intersections",
    "small-effects",
    "missing-numbers",
    "failed-tasks",
    "not-placed",
    "links-without-number",
    "old-schema",
    "nothing",
]
"""What a finding is about, in words that do not change from release to release."""
FINDING_CODES: tuple[FindingCode, ...] = get_args(FindingCode)


class Finding(Record):
    """One thing a scan shows, in words."""

    code: FindingCode = Field(
        description="What kind of finding it is; stable, and what --fail-on takes."
    )
    severity: Severity = Field(
        description="strong and notable lie beyond chance: the chance that a report makes any such "
        "claim wrongly is at most the scan's fdr. warning says what is missing; info is a remark, "
        "also on what is significant but small, or counted and not certain."
    )
    topic: Literal["heads", "pairs", "links", "scan"]
    text: str = Field(description="One sentence, with counts and the chance value.")
    evidence: tuple[str, ...] = Field(
        default=(),
        description="The numbers behind it: effect, tests, intervals, where it is strongest.",
    )
    means: str = Field(default="", description="What it means; empty for warnings.")
    next_step: str = Field(default="", description="What to look at next.")
    not_meaning: str = Field(
        default="",
        description="What it does not mean, with the laboratory's verdict where there is one.",
    )
    effect: float | None = Field(
        default=None,
        description="Distance from chance, |ln(x / chance)| or atanh|ρ| of a number in the text; "
        "null where there is none. Within a severity findings stand in its order.",
    )
    label: Label | None = Field(
        default=None,
        description="Whether the numbers are functional or depend on the gauge; null where neither "
        "applies.",
    )
    target: str | None = Field(
        default=None,
        description="Where a page shows more: heads/3 (index of a head group), pair/17 (index of a "
        "pair), track/qk/rope or section/details.",
    )

    def __repr__(self) -> str:
        label = "" if self.label is None else f", {self.label}"
        return f"Finding({self.code}, {self.severity}{label}: {self.text})"
