"""The form of a finding on health, and words that the findings and the section share."""

from __future__ import annotations

from typing import Literal

from flagscope.records import Finding, HealthCode, NotLookedAt, WeightCheck, WeightFault

WHOLE_WORDS: dict[WeightCheck, tuple[str, str]] = {
    "all-zero": ("is all zero", "are all zero"),
    "constant": ("holds one value alone", "hold one value each"),
}
"""What one tensor, or several, of one value are."""


def health_finding(
    code: HealthCode,
    plain: str,
    text: str,
    evidence: tuple[str, ...],
    *,
    certain: bool = True,
    target: Literal["health", "coverage"] = "health",
    means: str = "",
    next_step: str = "",
    not_meaning: str = "",
) -> Finding:
    """A finding on health: a warning where it is certain, else a remark."""
    return Finding(
        code=code, severity="warning" if certain else "info", topic="scan", plain=plain, text=text,
        evidence=evidence, means=means, next_step=next_step, not_meaning=not_meaning,
        target=f"section/{target}",
    )  # fmt: skip


def listed_names(one: WeightFault | NotLookedAt) -> list[str]:
    """The names of tensors that a record lists, and how many it leaves out."""
    return [*one.names, *([f"{one.unlisted:,} more"] if one.unlisted else [])]
