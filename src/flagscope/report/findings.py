"""Findings: what a scan shows beyond chance, in words; on the function first, strongest first."""

from __future__ import annotations

from collections.abc import Sequence

from flagscope.records import Finding, ScanResult
from flagscope.report import (
    copy_findings,
    exact_findings,
    head_findings,
    link_findings,
    pair_findings,
    small_findings,
)
from flagscope.report.error_rate import SCHEMA_1, ErrorRate
from flagscope.report.health_findings import health_findings
from flagscope.report.missing_findings import narrowed, warnings

_ORDER = {"strong": 0, "notable": 1, "warning": 2, "info": 3}


def findings(result: ScanResult) -> list[Finding]:
    """Findings of a scan: what lies beyond chance, what is missing, or that nothing stands out.

    Findings about many layers or pairs are one sentence with counts, and each carries the chance
    value it was held against. A strong or notable one rests on at least one test whose p-value,
    adjusted for all tests of the report (`p_familywise`), is at most the scan's ``fdr``, or it is
    an exact statement. Counts are of tests that remain at that false-discovery rate
    (`p_adjusted`); what is counted and not certain, or significant and small
    (`flagscope.report.effect`), is a remark. A file of schema 1 has no such p-values, and gives no
    findings but that.

    Returns
    -------
    list of Finding
        Defects of the weights (NaN, dead neurons and heads, what is missing or copied), then strong
        ones, notable ones, warnings and remarks, and last those about numbers that depend on the
        gauge, in the same order. Each of these is in the order of effect, the largest first. Never
        empty.

    Examples
    --------
    >>> nothing = Finding(
    ...     code="nothing", severity="info", topic="scan", text="Nothing lies beyond chance."
    ... )
    >>> nothing.effect is None
    True
    """
    if not ErrorRate.of(result).held:
        found = [_old_schema()]
    else:
        found = [
            *copy_findings.close_heads(result),
            *head_findings.overlaps(result),
            *head_findings.shared_directions(result),
            *link_findings.links(result),
            *pair_findings.alignments(result),
            *pair_findings.overlaps(result),
            *exact_findings.lost_ranks(result),
            *exact_findings.exact_intersections(result),
            *small_findings.small_effects(result),
        ]
    if not found:
        found = [_nothing(result)]
    # Defects of the weights come first: what is said after is of the rest, or shows them too.
    health = health_findings(result)
    defects = [finding for finding in health if finding.severity == "warning"]
    remarks = [finding for finding in health if finding.severity != "warning"]
    missing = [one for one in warnings(result) if not (_alone(result) and one.code == "not-placed")]
    return [*defects, *sorted([*found, *missing, *remarks], key=_place)]


def _alone(result: ScanResult) -> bool:
    """Whether health alone was asked for, which needs no matrix to be placed."""
    return result.settings.only == ("health",)


def folded(every: Sequence[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Findings to show, and those about the gauge to fold away.

    Nothing is folded where no claim is about the function: then the gauge is all there is to see.

    Returns
    -------
    tuple of list of Finding
        Both in the order given.
    """
    claims = [finding for finding in every if finding.severity in ("strong", "notable")]
    if all(finding.label == "gauge" for finding in claims):
        return list(every), []
    gauge = [finding for finding in every if finding.label == "gauge"]
    return [finding for finding in every if finding.label != "gauge"], gauge


def _place(finding: Finding) -> tuple[bool, int, float]:
    gauge = finding.label == "gauge"
    return gauge, _ORDER[finding.severity], -(finding.effect or 0.0)


def _old_schema() -> Finding:
    return Finding(
        code="old-schema",
        severity="info",
        topic="scan",
        plain="This file is of an older version, so what lies beyond chance is not known: scan "
        "the model again.",
        text=SCHEMA_1,
    )


def _nothing(result: ScanResult) -> Finding:
    records = (*result.pairs, *result.heads, *result.edges)
    if not records and _alone(result):
        plain = "Only the health of the weights was looked at; nothing was compared with chance."
        text = "Only the health of the weights was looked at: nothing was held against chance."
    elif not records and narrowed(result):
        plain = "Nothing of what was asked for was found in this model, so nothing was measured."
        text = (
            "No pair, head or link of what was asked for (--only, --layers, --kinds) was found, so "
            "there was nothing to measure."
        )
    elif not records:
        plain = "No two adjacent maps were found, so nothing was measured."
        text = "No pair of adjacent maps was found, so there was nothing to measure."
    elif not any(result.tests.values()) and all(record.log10_p is None for record in records):
        plain = "No result has the numbers that a test needs, so nothing could be tested."
        text = "Nothing could be tested: every result is undefined."
    else:
        plain = "Nothing in this scan lies beyond chance."
        text = plain
    return Finding(code="nothing", severity="info", topic="scan", plain=plain, text=text)
