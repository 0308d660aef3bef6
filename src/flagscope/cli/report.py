"""`flagscope report`: tables and pages from the JSON of an earlier scan, comparison or series."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flagscope.cli.collection import collection_paused
from flagscope.cli.gate import (
    comparison_codes,
    comparison_gate,
    gate,
    scan_codes,
    series_codes,
    series_gate,
)
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
    from flagscope.api.series_report import SeriesReport

    AnyReport = Report | ComparisonReport | SeriesReport


@click.command("report")
@click.argument("json_file", metavar="FILE.json")
@click.option("--html", metavar="F", help="Write the report as an HTML page; - for stdout.")
@title_option
@paths_option
@click.option("--quiet", is_flag=True, help="Print errors only, no table.")
@click.option(
    "--fail-on",
    metavar="CODES",
    help="Exit with 4 if there is one of these codes, as for `scan`, `compare` and `track`.",
)
def report_command(
    json_file: str,
    html: str | None,
    title: str | None,
    paths: bool,
    quiet: bool,
    fail_on: str | None,
) -> int:
    """Print the report of FILE.json, or write its page.

    The file is what `scan --json`, `compare --json` or `track --json` wrote.

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


def _read(json_file: str) -> AnyReport:
    """A report of its kind, by what the file says that it is."""
    from flagscope.api.comparison_report import ComparisonReport
    from flagscope.api.report import Report
    from flagscope.api.series_report import SeriesReport

    kind: type[AnyReport] = Report
    try:
        content: Any = json.loads(Path(json_file).read_text(encoding="utf-8"))
        schema = str(content.get("schema", "")).partition("/")[0]
        kind = {"flagscope.compare": ComparisonReport, "flagscope.track": SeriesReport}.get(
            schema, Report
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        pass  # the reader says what is wrong with it
    return kind.from_json(json_file)


def _print(report: AnyReport) -> None:
    from flagscope.api.report import Report
    from flagscope.api.series_report import SeriesReport

    if isinstance(report, Report):
        from flagscope.cli.table import print_report

        print_report(report)
    elif isinstance(report, SeriesReport):
        from flagscope.cli.series_text import print_series

        print_series(report.result)
    else:
        from flagscope.cli.comparison_text import print_comparison

        print_comparison(report.result)


def _gate(report: AnyReport, codes: str | None) -> int:
    from flagscope.api.report import Report
    from flagscope.api.series_report import SeriesReport

    if isinstance(report, SeriesReport):
        return series_gate(report.faults, series_codes(codes))
    if isinstance(report, Report):
        return gate(report.findings, scan_codes(codes))
    return comparison_gate(report.result, comparison_codes(codes))
