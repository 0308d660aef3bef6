"""The record of one finding of a scan."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.literals import Label
from flagscope.records.record import Record

Severity = Literal["strong", "notable", "warning", "info"]
HealthCode = Literal[
    "not-finite",
    "missing-layers",
    "missing-tensors",
    "dead-neurons",
    "dead-heads",
    "constant-tensors",
    "zero-rows",
    "duplicate-neurons",
    "duplicate-heads",
    "duplicate-layers",
    "duplicate-rows",
    "scale-outliers",
]
FindingCode = Literal[
    HealthCode,
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
HEALTH_CODES: tuple[HealthCode, ...] = get_args(HealthCode)
"""Those on the health of the weights, which a scan looks at unless --only leaves it out."""


class FindingItem(Record):
    """One member of a finding that is about several: a pair, a layer, some heads, a link."""

    text: str = Field(description="Which one it is, and its number.")
    target: str | None = Field(
        default=None,
        description="Where a page shows it, as for the finding; also link/STACK/L4H7.o/L5H1.q.",
    )


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
    plain: str = Field(
        default="",
        description="The same in a plain sentence, for a reader who does not know the terms.",
    )
    text: str = Field(description="One sentence, with counts and the chance value.")
    evidence: tuple[str, ...] = Field(
        default=(),
        description="The numbers behind it: effect, tests, intervals, where it is strongest.",
    )
    items: tuple[FindingItem, ...] = Field(
        default=(),
        description="What it is about, where that is several things: those furthest from chance, "
        "at most 24.",
    )
    items_unlisted: int = Field(default=0, ge=0, description="How many more it is about.")
    means: str = Field(default="", description="What it means; empty for warnings.")
    next_step: str = Field(default="", description="What to look at next.")
    not_meaning: str = Field(
        default="",
        description="What it does not mean, with the laboratory's verdict where there is one.",
    )
    effect: float | None = Field(
        default=None,
        description="Distance from chance, |ln(x / chance)| or atanh|ρ| of a number in the text; "
        "null where there is none.",
    )
    label: Label | None = Field(
        default=None,
        description="Whether the numbers are functional or depend on the gauge; null where neither "
        "applies.",
    )
    target: str | None = Field(
        default=None,
        description="Where a page shows more: heads/3 (index of a head group), heads/3/0-5 "
        "(heads of it), pair/17 (index of a pair), track/qk/rope or section/details.",
    )

    def __repr__(self) -> str:
        label = "" if self.label is None else f", {self.label}"
        return f"Finding({self.code}, {self.severity}{label}: {self.text})"
