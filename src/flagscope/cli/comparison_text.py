"""A comparison as text on stdout: the verdict first."""

from __future__ import annotations

from flagscope.cli.console import Output, grid
from flagscope.records.comparison import ChangeRecord, Comparison, ComparisonFinding, Side
from flagscope.report.comparison.whereabouts import place_of, relative_change
from flagscope.report.wording import counted, number, percent, size

_EVIDENCE = 6
_FINDINGS = 8
_NOTES = 5
_LAYERS = 8
_SEVERITIES = {"strong": "strong: ", "notable": "", "warning": "warning: ", "info": "remark: "}
_LETTERS = (("A", "a"), ("B", "b"))


def print_comparison(comparison: Comparison) -> None:
    """Print the verdict, what it rests on, the findings and what moved most."""
    out = Output()
    verdict = comparison.verdict
    out.paragraph(verdict.text, style="bold")
    for letter, field in _LETTERS:
        out.paragraph(_side(getattr(comparison, field)), bullet=f"  {letter}  ", style="dim")
    if comparison.adapter is not None:
        out.paragraph(_side(comparison.adapter), bullet="  adapter  ", style="dim")
    out.print()
    for line in verdict.evidence[:_EVIDENCE]:
        out.paragraph(line, bullet="• ")
    for line in verdict.cannot_tell[:_NOTES]:
        out.paragraph(line, bullet="  cannot tell: ")
    known = {*verdict.evidence}
    findings = [finding for finding in comparison.findings if finding.text not in known]
    if findings:
        out.print()
    for finding in findings[:_FINDINGS]:
        _print_finding(out, finding)
    if len(findings) > _FINDINGS:
        out.paragraph(f"… and {counted(len(findings) - _FINDINGS, 'more finding')} in the page")
    if comparison.change is not None:
        _print_layers(out, comparison.change)
        _print_pairs(out, comparison.change)
    elif comparison.change_status != "ok":
        out.paragraph(f"what moved was not measured: {comparison.change_status}", style="dim")
    for note in comparison.notes[:_NOTES]:
        out.paragraph(note, bullet="note: ")
    left = len(comparison.notes) - _NOTES
    if left > 0:
        out.paragraph(f"… and {counted(left, 'more note')} in the JSON")


def _side(side: Side) -> str:
    family = f"{side.family}, " if side.family else ""
    return f"{side.source} ({side.kind}, {family}{size(side.parameters)} parameters, {side.dtype})"


def _print_finding(out: Output, finding: ComparisonFinding) -> None:
    out.paragraph(finding.text, bullet=f"• {_SEVERITIES[finding.severity]}")
    for line in finding.evidence:
        out.paragraph(line, bullet="    ", style="dim")


def _print_pairs(out: Output, change: ChangeRecord) -> None:
    """ρ and C of each pair before and after, or of those that changed most."""
    if not change.pairs:
        return
    out.print()
    columns = (("pair", "left"), ("ρ in A → B", "right"), ("C in A → B", "right"), ("", "left"))
    lines = [
        (
            pair.pair,
            f"{number(pair.gram_correlation_a)} → {number(pair.gram_correlation_b)}",
            f"{number(pair.commutator_ratio_a)} → {number(pair.commutator_ratio_b)}",
            pair.label or "not known",
        )
        for pair in change.pairs
    ]
    out.table(grid(columns, lines))
    words = "chance: ρ 0, C 1"
    if any(pair.label == "gauge" for pair in change.pairs):
        words += "; gauge: a change of basis that leaves the function as it is moves ρ or C"
    if any(pair.label is None for pair in change.pairs):
        words += "; not known: what lies between the two maps is not"
    out.paragraph(words, style="dim")
    if change.pairs_compared > len(change.pairs):
        out.paragraph(
            f"the {len(change.pairs)} that changed most of {change.pairs_compared:,}", style="dim"
        )


def _print_layers(out: Output, change: ChangeRecord) -> None:
    """The layers and roles that moved furthest, by their change over both norms."""
    rows = sorted(
        (row for row in change.layers if relative_change(row)),
        key=lambda row: -(relative_change(row) or 0.0),
    )
    if not rows:
        return
    out.print()
    columns = (("moved most", "left"), ("of both norms", "right"), ("maps", "right"))
    lines = [
        (
            place_of(row),
            percent(relative_change(row) or 0.0),
            f"{row.maps:,}",
        )
        for row in rows[:_LAYERS]
    ]
    out.table(grid(columns, lines))
    out.paragraph("of both norms: of the geometric mean of A's and B's", style="dim")
    if len(rows) > _LAYERS:
        out.paragraph(f"… of {len(rows):,}; the page has all", style="dim")
