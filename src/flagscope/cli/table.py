"""The report as text on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flagscope.report import summary_table

if TYPE_CHECKING:
    from flagscope.api import Report

_FINDINGS = 12


def print_report(report: Report) -> None:
    """Print the summary table, the findings and what could not be mapped."""
    result = report.result
    console = Console()
    console.print(
        f"[bold]{escape(result.source)}[/]  family {escape(result.family)}, "
        f"{result.parameters:,} parameters, {result.dtype}; {len(result.pairs)} pairs, "
        f"{len(result.heads)} head groups, {result.run.seconds:.1f} s\n"
    )
    summary = summary_table(result)
    table = Table(box=None, pad_edge=False, caption=escape(summary.caption), caption_justify="left")
    for i, (heading, justify) in enumerate(summary.columns):
        side: Any = justify
        table.add_column(heading, justify=side, no_wrap=i == 0)
    for row in summary.rows:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print()
    findings = report.findings
    for finding in findings[:_FINDINGS]:
        console.print(f"• {finding.text}", markup=False)
    if len(findings) > _FINDINGS:
        console.print(f"… and {len(findings) - _FINDINGS} more findings in the page (--html F)")
    for note in result.notes:
        console.print(f"note: {note}", markup=False)
