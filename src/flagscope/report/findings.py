"""Findings: what a scan shows beyond chance, in plain words, strongest first."""

from __future__ import annotations

from flagscope.records import Finding, FindingCode, ScanResult
from flagscope.report import (
    copy_findings,
    exact_findings,
    head_findings,
    link_findings,
    pair_findings,
    small_findings,
)
from flagscope.report.coverage import HINT, not_understood, percent
from flagscope.report.error_rate import SCHEMA_1, ErrorRate
from flagscope.report.health_findings import health_findings
from flagscope.report.wording import counted, joined

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
        ones, notable ones, warnings and remarks, each in the order of their effect; never empty.

    Examples
    --------
    >>> nothing = Finding(
    ...     code="nothing", severity="info", topic="scan", text="Nothing lies beyond chance."
    ... )
    >>> nothing.effect is None
    True
    """
    if not ErrorRate.of(result).held:
        found = [Finding(code="old-schema", severity="info", topic="scan", text=SCHEMA_1)]
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
    missing = [
        one for one in _warnings(result) if not (_alone(result) and one.code == "not-placed")
    ]
    return [*defects, *sorted([*found, *missing, *remarks], key=_place)]


def _alone(result: ScanResult) -> bool:
    """Whether health alone was asked for, which needs no matrix to be placed."""
    return result.settings.only == ("health",)


def _place(finding: Finding) -> tuple[int, float]:
    return _ORDER[finding.severity], -(finding.effect or 0.0)


def _nothing(result: ScanResult) -> Finding:
    records = (*result.pairs, *result.heads, *result.edges)
    if not records and _alone(result):
        text = "Only the health of the weights was looked at: nothing was held against chance."
    elif not records:
        text = "No pair of adjacent maps was found, so there was nothing to measure."
    elif not any(result.tests.values()) and all(record.log10_p is None for record in records):
        text = "Nothing could be tested: every result is undefined."
    else:
        text = "Nothing in this scan lies beyond chance."
    return Finding(code="nothing", severity="info", topic="scan", text=text)


def _warnings(result: ScanResult) -> list[Finding]:
    found: list[Finding] = []
    records = [*result.pairs, *result.heads]
    undefined = [record for record in records if record.status != "ok"]
    if undefined:
        reasons: dict[str, int] = {}
        for record in undefined:
            reasons[record.status] = reasons.get(record.status, 0) + 1
        text = (
            f"{counted(len(undefined), 'result')} of {len(records):,} "
            f"{'has' if len(undefined) == 1 else 'have'} missing numbers."
        )
        evidence = tuple(f"{count} × {reason}" for reason, count in reasons.items())
        found.append(_warning("missing-numbers", text, evidence[:6], target="pairs"))
    if result.failures:
        tasks = joined((failure.task for failure in result.failures), limit=3)
        text = f"{counted(len(result.failures), 'task')} failed: {tasks}."
        evidence = tuple(failure.error for failure in result.failures[:3])
        found.append(_warning("failed-tasks", text, evidence, target="details"))
    return [*found, *_not_measured(result)]


def _not_measured(result: ScanResult) -> list[Finding]:
    """Findings on what is missing from the scan though not every model lacks it."""
    coverage = result.coverage
    if coverage is None:  # of an older file nothing else is known
        if not result.unmapped or result.pairs:
            return []
        text = f"{counted(len(result.unmapped), 'matrix', 'matrices')} could not be placed."
        names = (joined(result.unmapped, limit=4),)
        return [_warning("not-placed", text, names, target="details")]
    found = []
    odd, numbers = not_understood(coverage)
    if odd:
        text = (
            f"{odd:,} of {counted(coverage.matrices, 'matrix', 'matrices')}, "
            f"{percent(numbers, coverage.parameters)} of the parameters, could not be placed or "
            "measured: no finding here is about them."
        )
        found.append(_warning("not-placed", text, (HINT,), target="coverage"))
    links = [one for one in coverage.without_numbers if one.what == "links"]
    if links:
        count = sum(one.count for one in links)
        text = (
            f"{count:,} of {counted(links[0].of, 'link')} between heads "
            f"{'has' if count == 1 else 'have'} no number."
        )
        reasons = tuple(f"{one.count:,} × {one.reason}" for one in links)
        found.append(_warning("links-without-number", text, reasons, target="coverage"))
    return found


def _warning(code: FindingCode, text: str, evidence: tuple[str, ...], *, target: str) -> Finding:
    return Finding(
        code=code,
        severity="warning",
        topic="scan",
        text=text,
        evidence=evidence,
        target=f"section/{target}",
    )
