"""Findings on stdout: a plain sentence, what to check next, and the technical sentence of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flagscope.cli.console import Output
from flagscope.records import Finding
from flagscope.report import folded
from flagscope.report.wording import counted, joined, number

_FULL = 2  # findings with their technical sentence and what they do not mean
_SHORT = 3  # findings after these, with what to check next alone: a screen of text in all
_HEADING = "Findings, with severity and effect (distance from chance): the largest of each first"
_LABELS = {
    "functional": "all are functional: no change of basis inside a pair or a head that keeps the "
    "function moves them (moving a gain or a mean into a norm can)",
    "gauge": "all depend on the choice of basis (gauge): a rewriting of the weights that keeps the "
    "function can move them",
}


def print_findings(out: Output, findings: Sequence[Finding]) -> None:
    """Print the first findings in full, some without the technical part, and count the rest.

    What to check next is said once for a kind. Warnings are printed in full wherever they stand.
    Findings about the gauge are one line, unless nothing else is claimed.
    """
    shown, gauge = folded(findings)
    claims = [finding for finding in shown if finding.severity in ("strong", "notable")]
    explained: set[str] = set()
    printed = _first(shown)
    # Faults of the weights stand first, and no label is about them.
    while printed and printed[0].severity == "warning":
        fault = printed.pop(0)
        _print_head(out, fault)
        _print_details(out, fault, explained, full=True)
    if claims:
        out.paragraph(_HEADING, style="bold")
        # Folding leaves claims of one label: said once, and not behind each of them.
        for label in dict.fromkeys(finding.label for finding in claims if finding.label):
            out.paragraph(_LABELS[label], bullet="  ", style="dim")
    for finding in printed:
        _print_head(out, finding)
        _print_details(out, finding, explained, full=finding in claims[:_FULL])
    rest = len(shown) - len(_first(shown))
    if rest > 0:
        out.paragraph(f"… and {counted(rest, 'more finding')} in the page (--html F) and the JSON")
    if gauge:
        out.paragraph(_folded(gauge))


def _first(shown: Sequence[Finding]) -> list[Finding]:
    """The findings to print: all warnings, and the first of the others."""
    kept = [finding for finding in shown if finding.severity != "warning"][: _FULL + _SHORT]
    return [finding for finding in shown if finding.severity == "warning" or finding in kept]


def _print_head(out: Output, finding: Finding) -> None:
    """The plain sentence, after the severity and the effect that findings are sorted by."""
    severity = {"info": "remark"}.get(finding.severity, finding.severity)
    effect = "" if finding.effect is None else f" {number(finding.effect, 2)}"
    style = None if finding.severity == "info" else "bold"
    out.paragraph(finding.plain or finding.text, bullet=f"• {severity}{effect}: ", style=style)


def _print_details(out: Output, finding: Finding, explained: set[str], *, full: bool) -> None:
    """What to check next, once for a kind; in full, the technical sentence and what it is not."""
    warning = finding.severity == "warning"
    lines: list[tuple[str, str]] = []
    if (full or warning) and finding.plain and finding.text != finding.plain:
        lines.append(("", finding.text))
    if warning:
        lines += [("", reason) for reason in finding.evidence]
    if finding.code not in explained:
        explained.add(finding.code)
        lines.append(("next: ", finding.next_step))
        if full and not warning:
            lines.append(("not: ", finding.not_meaning))
    for word, text in lines:
        if text:
            out.paragraph(text, bullet=f"    {word}", style="dim")


def _folded(gauge: Sequence[Finding]) -> str:
    kinds = Counter(finding.code for finding in gauge)
    words = joined(f"{code} ({count})" if count > 1 else code for code, count in kinds.items())
    return (
        f"+ {counted(len(gauge), 'finding')} about numbers that depend on the choice of basis "
        f"(gauge): {words}; in the page (--html F) and the JSON"
    )
