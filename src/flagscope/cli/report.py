"""`flagscope report`: tables and pages from the JSON of an earlier scan or comparison."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import comparison_codes, comparison_gate, gate, scan_codes
from flagscope.cli.outputs import (
    check_outputs,
    check_title,
    paths_option,
    title_option,
    write_outputs,
)

if TYPE_CHECKING:
    from flagscope.api.comparison_report import ComparisonReport
    from flagscope.api.report import Report


@click.command("report")
@click.argument("json_file", metavar="FILE.json")
@click.option("--html", metavar="F", help="Write the report as an HTML page; - for stdout.")
@title_option
@paths_option
@click.option("--quiet", is_flag=True, help="Print errors only, no table.")
@click.option(
    "--fail-on",
    metavar="CODES",
    help="Exit with 4 if there is one of these codes, as for `scan` and `compare`.",
)
def report_command(
    json_file: str,
    html: str | None,
    title: str | None,
    paths: bool,
    quiet: bool,
    fail_on: str | None,
) -> int:
    """Print the report of FILE.json, which `scan --json` or `compare --json` wrote, or its page.

    No weights are read. Findings are those that this release sees in the numbers.
    """
    outputs = {"html": html}
    check_outputs(outputs, json_file)
    check_title(title, html)
    with collection_paused():
        report = _read(json_file)
    page = partial(report.to_html, title=title, paths=paths)
    taken = write_outputs(outputs, {"html": page}, quiet=quiet)
    if not quiet and not taken:
        _print(report)
    return _gate(report, fail_on)


def _read(json_file: str) -> Report | ComparisonReport:
    """A report of either kind, by what the file says that it is."""
    from flagscope.api.comparison_report import ComparisonReport
    from flagscope.api.report import Report

    kind: type[Report] | type[ComparisonReport] = Report
    try:
        content: Any = json.loads(Path(json_file).read_text(encoding="utf-8"))
        if str(content.get("schema", "")).startswith("flagscope.compare/"):
            kind = ComparisonReport
    except (OSError, ValueError, AttributeError, RecursionError):
        pass  # the reader says what is wrong with it
    return kind.from_json(json_file)


def _print(report: Report | ComparisonReport) -> None:
    from flagscope.api.report import Report

    if isinstance(report, Report):
        from flagscope.cli.table import print_report

        print_report(report)
    else:
        from flagscope.cli.comparison_text import print_comparison

        print_comparison(report.result)


def _gate(report: Report | ComparisonReport, codes: str | None) -> int:
    from flagscope.api.report import Report

    if isinstance(report, Report):
        return gate(report.findings, scan_codes(codes))
    return comparison_gate(report.result, comparison_codes(codes))
