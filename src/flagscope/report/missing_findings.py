"""Findings about what a scan could not measure: a reader must not take them for silence."""

from __future__ import annotations

from flagscope.records import Finding, FindingCode, ScanResult
from flagscope.report.coverage import HINT, not_understood, percent
from flagscope.report.wording import counted, joined

_MEASURED = {"pairs", "heads", "residual"}


def warnings(result: ScanResult) -> list[Finding]:
    """Findings on results without numbers, failed tasks, and what was not measured."""
    found: list[Finding] = []
    # A single key-value head has nothing to be compared with: that is not a number missing.
    records = [*result.pairs, *(group for group in result.heads if group.count > 1)]
    undefined = [record for record in records if record.status != "ok"]
    if undefined:
        reasons: dict[str, int] = {}
        for record in undefined:
            reasons[record.status] = reasons.get(record.status, 0) + 1
        who = f"{counted(len(undefined), 'result')} of {len(records):,}"
        verb = "has" if len(undefined) == 1 else "have"
        plain = f"For {who} some or all numbers could not be computed."
        evidence = tuple(f"{count} × {reason}" for reason, count in reasons.items())
        text = f"{who} {verb} missing numbers."
        found.append(_warning("missing-numbers", plain, text, evidence[:6], target="pairs"))
    if result.failures:
        tasks = joined((failure.task for failure in result.failures), limit=3)
        failed = f"{counted(len(result.failures), 'task')} failed"
        evidence = tuple(failure.error for failure in result.failures[:3])
        plain = f"{failed}: what {'it' if len(result.failures) == 1 else 'they'} would have "
        plain += "measured is missing here."
        text = f"{failed}: {tasks}."
        found.append(_warning("failed-tasks", plain, text, evidence, target="details"))
    return [*found, *_not_measured(result)]


def narrowed(result: ScanResult) -> bool:
    """Whether a scan was asked for less than all: what it then lacks is not missing."""
    asked = result.settings
    every = set(asked.only) >= _MEASURED
    return not every or asked.layers is not None or asked.kinds is not None


def _not_measured(result: ScanResult) -> list[Finding]:
    """Findings on what is missing from the scan though not every model lacks it."""
    coverage = result.coverage
    if coverage is None:  # of an older file nothing else is known
        if not result.unmapped or result.pairs or narrowed(result):
            return []
        text = f"{counted(len(result.unmapped), 'matrix', 'matrices')} could not be placed."
        names = (joined(result.unmapped, limit=4),)
        return [_warning("not-placed", text, text, names, target="details")]
    found = []
    odd, numbers = not_understood(coverage)
    if odd:
        who = f"{odd:,} of {counted(coverage.matrices, 'matrix', 'matrices')}"
        plain = f"{who} could not be placed or measured, so nothing here is about them."
        text = (
            f"{who}, {percent(numbers, coverage.parameters)} of the parameters, could not be "
            "placed or measured: no finding here is about them."
        )
        found.append(_warning("not-placed", plain, text, (HINT,), target="coverage"))
    links = [one for one in coverage.without_numbers if one.what == "links"]
    if links:
        count = sum(one.count for one in links)
        who = f"{count:,} of {counted(links[0].of, 'link')} between heads"
        text = f"{who} {'has' if count == 1 else 'have'} no number."
        reasons = tuple(f"{one.count:,} × {one.reason}" for one in links)
        plain = f"{who} could not be measured."
        found.append(_warning("links-without-number", plain, text, reasons, target="coverage"))
    return found


def _warning(
    code: FindingCode, plain: str, text: str, evidence: tuple[str, ...], *, target: str
) -> Finding:
    return Finding(
        code=code,
        severity="warning",
        topic="scan",
        plain=plain,
        text=text,
        evidence=evidence,
        target=f"section/{target}",
    )
