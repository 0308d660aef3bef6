"""`--fail-on`: an exit code of its own where a report says something that it must not say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from flagscope.cli.options import Decorator
from flagscope.cli.text import log

if TYPE_CHECKING:
    from flagscope.records import Finding

FAILED_GATE = 4
_SEVERITIES = ("strong", "notable", "warning")


def _codes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    from flagscope.records import FINDING_CODES  # not at the start of every command

    return () if value is None else chosen_codes(value, (*FINDING_CODES, *_SEVERITIES))


def chosen_codes(value: str, among: Iterable[str]) -> tuple[str, ...]:
    """The comma-separated codes of an option.

    Raises
    ------
    click.BadParameter
        If one is not among those there are.
    """
    known = tuple(among)
    chosen = tuple(code.strip() for code in value.split(",") if code.strip())
    wrong = [code for code in chosen if code not in known]
    if wrong or not chosen:
        raise click.BadParameter(
            f"{', '.join(map(repr, wrong)) or 'nothing'} is not among {', '.join(known)}"
        )
    return chosen


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

    A remark claims nothing and does not count, unless remarks are all that its code stands for.
    """
    claims = {finding.code for finding in findings if finding.severity != "info"}
    remarks = {"small-effects", "nothing", "old-schema"} & {finding.code for finding in findings}
    severities = {finding.severity for finding in findings}
    met = [code for code in codes if code in claims | remarks | severities]
    for code in met:
        log(f"--fail-on {code}: there is such a finding")
    return FAILED_GATE if met else 0
