"""`--fail-on`: an exit code of its own where a report says something that it must not say."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import click

from flagscope.cli.options import Decorator, chosen
from flagscope.cli.text import log

if TYPE_CHECKING:
    from flagscope.records import Finding
    from flagscope.records.comparison import Comparison
    from flagscope.records.series import SeriesFault

FAILED_GATE = 4
_SEVERITIES = ("strong", "notable", "warning")


def _codes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    return scan_codes(value)


def scan_codes(value: str | None) -> tuple[str, ...]:
    """The comma-separated codes and severities of findings of a scan.

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    from flagscope.records import FINDING_CODES  # not at the start of every command

    return () if value is None else chosen(value, (*FINDING_CODES, *_SEVERITIES))


def check_looked_at(codes: Sequence[str], only: Sequence[str]) -> None:
    """Refuse codes of health where --only leaves health out: they could never be met.

    Raises
    ------
    InputError
        If one is about what the scan will not look at.
    """
    from flagscope.errors import InputError
    from flagscope.records import HEALTH_CODES

    asked = [code for code in codes if code in HEALTH_CODES]
    if asked and "health" not in only:
        parts = ",".join(only)
        raise InputError(
            f"--fail-on {','.join(asked)} is about health, which --only {parts} leaves out",
            hint=f"give --only {parts},health, or --only health alone",
        )


def fail_on_option() -> Decorator:
    """--fail-on of a scan: codes or severities of findings."""
    return click.option(
        "--fail-on",
        metavar="CODES",
        callback=_codes,
        help="Exit with 4 if there is a finding of one of these codes, separated by commas: "
        "near-copies, not-finite, … (the code of each finding in the JSON), or strong, notable, "
        "warning for all findings of that severity. Remarks do not count.",
    )


def gate(findings: Sequence[Finding], codes: Sequence[str]) -> int:
    """Exit code: `FAILED_GATE` if a finding has one of the codes or severities, else 0.

    A remark does not count, unless remarks are all that its code stands for.
    """
    claims = {finding.code for finding in findings if finding.severity != "info"}
    remarks = {"small-effects", "nothing", "old-schema"} & {finding.code for finding in findings}
    return _exit_code(codes, claims | remarks | {finding.severity for finding in findings})


def comparison_codes(value: str | None) -> tuple[str, ...]:
    """The comma-separated codes of verdicts and findings of a comparison.

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    from flagscope.records.comparison import VERDICT_CODES
    from flagscope.report.comparison import COMPARISON_CODES, fault_codes

    if value is None:
        return ()
    return chosen(value, (*VERDICT_CODES, *COMPARISON_CODES, *fault_codes()))


def comparison_gate(comparison: Comparison, codes: Sequence[str]) -> int:
    """Exit code: `FAILED_GATE` if the verdict or a finding has one of the codes, else 0."""
    found = {finding.code for finding in comparison.findings}
    return _exit_code(codes, {comparison.verdict.code, *found})


def series_codes(value: str | None) -> tuple[str, ...]:
    """The comma-separated codes of faults of a series, or "any".

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    from flagscope.records.series import SERIES_FAULT_CODES

    return () if value is None else chosen(value, (*SERIES_FAULT_CODES, "any"))


def series_gate(faults: Sequence[SeriesFault], codes: Sequence[str]) -> int:
    """Exit code: `FAILED_GATE` if a fault has one of the codes, else 0."""
    found: set[str] = {fault.code for fault in faults}
    return _exit_code(codes, found | ({"any"} if found else set()))


def _exit_code(codes: Sequence[str], there: AbstractSet[str]) -> int:
    met = [code for code in codes if code in there]
    for code in met:
        log(f"--fail-on {code}: that is what was found")
    return FAILED_GATE if met else 0
