"""The health of the weights as text on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flagscope.report.health import health_text

if TYPE_CHECKING:
    from flagscope.cli.console import Output
    from flagscope.records import ScanResult


def print_health(out: Output, result: ScanResult) -> None:
    """Print what is wrong with the weights, or that nothing is, and what was not looked at."""
    text = health_text(result)
    out.paragraph(text.headline, bullet="health: ", style="bold" if text.wrong else None)
    for line in text.wrong:
        out.paragraph(line, bullet="  wrong: ")
    for line in text.notices:
        out.paragraph(line, bullet="  notice: ")
    for line in text.seen:
        out.paragraph(line, bullet="  as in sound models: ", style="dim")
    for line in text.left:
        out.paragraph(line, bullet="  ", style="dim")
