"""`--fail-on`: an exit code of its own where a report says something that it must not say."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

import click

from flagscope.cli.options import Decorator, chosen
from flagscope.cli.text import log

if TYPE_CHECKING:
    from flagscope.records import Finding
    from flagscope.records.comparison import Comparison, MapChange
    from flagscope.records.series import SeriesFault

FAILED_GATE = 4
_SEVERITIES = ("strong", "notable", "warning")
# Maps that a line names.
_NAMED = 4
# Verdicts under which what moved is not measured, since it is known.
_NOTHING_MOVED = ("identical", "re-encoded")


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
    """The comma-separated codes of verdicts and findings of a comparison, and severities.

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    from flagscope.records.comparison import VERDICT_CODES
    from flagscope.report.comparison import COMPARISON_CODES, fault_codes

    if value is None:
        return ()
    return chosen(value, (*VERDICT_CODES, *COMPARISON_CODES, *fault_codes(), *_SEVERITIES))


def verdict_codes(value: str | None) -> tuple[str, ...]:
    """The comma-separated codes of verdicts that are expected.

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    from flagscope.records.comparison import VERDICT_CODES

    return () if value is None else chosen(value, VERDICT_CODES)


def share(value: str | None) -> float | None:
    """A share such as 20%, as a number.

    Raises
    ------
    click.BadParameter
        If it is not a number with a percent sign.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", value.strip())
    if found is None:
        raise click.BadParameter(f"{value!r} is not a share such as 20%")
    return float(found[1]) / 100


def check_moved_looked_at(most: float | None, only: Sequence[str]) -> None:
    """Refuse a bound on what moved where --only leaves it out.

    Raises
    ------
    InputError
        If there is a bound, and what moved will not be measured.
    """
    from flagscope.errors import InputError

    if most is not None and "change" not in only:
        raise InputError(
            f"--max-moved is about what moved, which --only {','.join(only)} leaves out",
            hint=f"give --only {','.join(only)},change",
        )


def comparison_gate(
    comparison: Comparison,
    codes: Sequence[str],
    *,
    expected: Sequence[str] = (),
    most: float | None = None,
) -> int:
    """Exit code: `FAILED_GATE` if a comparison says what it must not, else 0.

    Parameters
    ----------
    comparison
        Its record.
    codes
        Codes of verdicts and findings, or severities, that must not occur.
    expected
        Codes of which the verdict must have one; any where none is given.
    most
        Largest share of its norm in A by which a map may have moved.
    """
    found = {finding.code for finding in comparison.findings}
    severities = {finding.severity for finding in comparison.findings}
    code = _exit_code(codes, {comparison.verdict.code, *found, *severities})
    if expected and comparison.verdict.code not in expected:
        log(f"--expect {','.join(expected)}: the verdict is {comparison.verdict.code}")
        code = FAILED_GATE
    reason = None if most is None else _too_far(comparison, most)
    if most is not None and reason is not None:
        log(f"--max-moved {100 * most:g}%: {reason}")
        code = FAILED_GATE
    return code


def _too_far(comparison: Comparison, most: float) -> str | None:
    """Which maps moved further, or why that is not known; None where none did."""
    from flagscope.report.wording import joined, percent  # not at the start of every command

    change = comparison.change
    if change is None:
        if comparison.verdict.code in _NOTHING_MOVED:
            return None
        return f"what moved was not measured: {comparison.change_status}"
    far = [(entry.relative_a, entry.name) for entry in change.maps if _further(entry, most)]
    far.sort(key=lambda entry: -math.inf if entry[0] is None else -entry[0])
    open_ends = [entry.name for entry in change.maps if entry.change is None and _open(entry)]
    open_ends += [*change.unpaired_a, *change.unpaired_b]
    words = [
        f"{name} moved " + ("from 0" if moved is None else f"by {percent(moved)} of A's norm")
        for moved, name in far
    ]
    reasons = [joined(words, limit=_NAMED)] if far else []
    if open_ends:
        reasons.append(f"not measured: {joined(open_ends, limit=_NAMED)}")
    if not change.maps and not open_ends:
        reasons.append("no map is known on both sides, and none was measured")
    return "; ".join(reasons) or None


def _further(entry: MapChange, most: float) -> bool:
    """Whether a map moved by more than a share of its norm in A, which may be 0."""
    if not entry.change:
        return False
    return entry.relative_a is None or entry.relative_a > most


def _open(entry: MapChange) -> bool:
    """Whether it is not known how far a map moved."""
    return entry.status not in ("identical", "a map without entries")


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
