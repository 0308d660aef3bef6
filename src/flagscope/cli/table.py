"""The report as text on stdout: health and findings first, the table and its legend after them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from flagscope.cli.console import Output, grid
from flagscope.cli.findings_text import print_findings
from flagscope.cli.health import print_health
from flagscope.records import Coverage, RunRecord
from flagscope.report import SummaryTable, summary_table
from flagscope.report.coverage import (
    in_brief,
    left_out,
    left_out_as_usual,
    left_out_oddly,
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
    """Print health, how much was measured, the findings, the summary table and the notes."""
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
    coverage = None if result.settings.only == ("health",) else result.coverage
    if coverage is not None:
        print_coverage(out, coverage)
    out.print()
    print_findings(out, report.findings)
    if result.pairs or result.heads:
        out.print()
        _print_summary(out, summary_table(result))
    _print_end(out, coverage, result.notes)


def print_coverage(out: Output, coverage: Coverage, *, ahead: bool = False) -> None:
    """How much is measured, what is not, by reason, and which results have no number.

    After a scan what many models have, such as embeddings, is one line, so that the findings stay
    in sight; its names follow the table.
    """
    text = measured_share(coverage)
    text = f"a scan would measure{text.removeprefix('measured')}" if ahead else text
    out.paragraph(text, style="bold")
    for entry in left_out(coverage) if ahead else left_out_oddly(coverage):
        out.paragraph(str(entry), bullet="  not measured: ")
    usual = [] if ahead else left_out_as_usual(coverage)
    if usual:
        names = "; names at the end" if any(entry.names for entry in usual) else ""
        out.paragraph(f"{in_brief(usual)}{names}", bullet="  not measured: ")
    for line in without_number_lines(coverage):
        out.paragraph(line, bullet="  without a number: ")


def _print_end(out: Output, coverage: Coverage | None, notes: Sequence[str]) -> None:
    """The names of what is usually not measured, and the notes."""
    usual = [] if coverage is None else left_out_as_usual(coverage)
    named = [str(entry) for entry in usual if entry.names]
    if named or notes:
        out.print()
    for entry in named:
        out.paragraph(entry, bullet="not measured: ")
    for note in notes:
        out.paragraph(note, bullet="note: ")


def _taken(run: RunRecord) -> str:
    if not run.tasks_from_store:
        return ""
    return f", {run.tasks_from_store} of {counted(run.tasks, 'task')} from the store"


def _print_summary(out: Output, summary: SummaryTable) -> None:
    """The table, its caption, and what each column that is shown says."""
    table, caption, shown = _summary(summary, out)
    out.table(table)
    out.paragraph(caption, style="dim")
    for line in summary.legend:
        if line.column in shown:
            out.paragraph(line.text, bullet=f"  {line.word}: ", style="dim")


def _summary(summary: SummaryTable, out: Output) -> tuple[Table, str, set[str]]:
    """The table, its caption and its columns: in a narrow console without ranges, then fewer."""
    columns, rows = list(summary.columns), [list(row) for row in summary.rows]
    caption = summary.caption
    table = grid(columns, rows)
    if not out.fits(table):
        caption = _RANGE.sub("", caption)
        rows = [[name, *(_RANGE.sub("", cell) for cell in cells)] for name, *cells in rows]
        table = grid(columns, rows)
    if not out.fits(table):
        while not out.fits(table := grid(columns, rows, gap=1)) and len(columns) > _FEWEST:
            # The last one counts what is undefined: it stays.
            for line in (columns, *rows):
                del line[-2]
        if len(columns) < len(summary.columns):
            caption += " A wider terminal shows more columns."
    # A column without a cell is left out of the table too.
    shown = {heading for i, (heading, _) in enumerate(columns) if any(row[i] for row in rows)}
    return table, caption, shown
