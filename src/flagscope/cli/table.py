"""The report as text on stdout."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.table import Table

from flagscope.cli.console import Output, grid
from flagscope.cli.findings_text import print_findings
from flagscope.cli.health import print_health
from flagscope.records import Coverage, RunRecord
from flagscope.report import SummaryTable, summary_table
from flagscope.report.coverage import (
    left_out,
    measured_share,
    measured_sharp,
    without_number_lines,
)
from flagscope.report.wording import counted

if TYPE_CHECKING:
    from flagscope.api.report import Report

_FEWEST = 3
# " [0.65, 15.3]" behind a median, and " [range]" in the caption.
_RANGE = re.compile(r" \[[^\]]*\]")


def print_report(report: Report) -> None:
    """Print how much was measured, the summary table, the findings and the notes."""
    result = report.result
    out = Output()
    out.paragraph(result.source, style="bold")
    out.paragraph(
        f"family {result.family}, {result.parameters:,} parameters, {result.dtype}; "
        f"{counted(len(result.pairs), 'pair')}, {counted(len(result.heads), 'head group')}, "
        f"{result.run.seconds:.1f} s{_taken(result.run)}"
    )
    print_health(out, result)
    if text := measured_sharp(result.pairs):
        out.paragraph(text)
    if result.coverage is not None and result.settings.only != ("health",):
        print_coverage(out, result.coverage)
    out.print()
    if result.pairs or result.heads:
        table, caption = _summary(summary_table(result), out)
        out.table(table)
        out.paragraph(caption, style="dim")
        out.print()
    print_findings(out, report.findings)
    for note in result.notes:
        out.paragraph(note, bullet="note: ")


def print_coverage(out: Output, coverage: Coverage, *, ahead: bool = False) -> None:
    """How much is measured, what is not, by reason, and which results have no number."""
    text = measured_share(coverage)
    text = f"a scan would measure{text.removeprefix('measured')}" if ahead else text
    out.paragraph(text, style="bold")
    for entry in left_out(coverage):
        out.paragraph(str(entry), bullet="  not measured: ")
    for line in without_number_lines(coverage):
        out.paragraph(line, bullet="  without a number: ")


def _taken(run: RunRecord) -> str:
    if not run.tasks_from_store:
        return ""
    return f", {run.tasks_from_store} of {counted(run.tasks, 'task')} from the store"


def _summary(summary: SummaryTable, out: Output) -> tuple[Table, str]:
    """The table and its caption: in a narrow console without ranges, then without some columns."""
    columns, rows, caption = list(summary.columns), [list(row) for row in summary.rows], ""
    table = grid(columns, rows)
    if out.fits(table):
        return table, summary.caption
    rows = [[name, *(_RANGE.sub("", cell) for cell in cells)] for name, *cells in rows]
    table = grid(columns, rows)
    if out.fits(table):
        return table, _RANGE.sub("", summary.caption)
    while not out.fits(table := grid(columns, rows, gap=1)) and len(columns) > _FEWEST:
        caption = " A wider terminal shows more columns."
        # The last one counts what is undefined: it stays.
        for line in (columns, *rows):
            del line[-2]
    return table, _RANGE.sub("", summary.caption) + caption
