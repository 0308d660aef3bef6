"""The form of a finding on health."""

from __future__ import annotations

from typing import Literal

from flagscope.records import Finding, HealthCode


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
