"""Pages of the gallery, drawn from stored numbers when the documentation is built."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

from flagscope.api.comparison_report import ComparisonReport
from flagscope.api.report import Report


def report(file: Path) -> Report | ComparisonReport:
    """The scan or comparison of a compressed JSON file."""
    text = gzip.decompress(file.read_bytes()).decode()
    compared = json.loads(text)["schema"].startswith("flagscope.compare/")
    kind: type[Report] | type[ComparisonReport] = ComparisonReport if compared else Report
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "numbers.json")
        plain.write_text(text, encoding="utf-8")
        return kind.from_json(plain)


def page(file: Path) -> str:
    """Its page, as `flagscope report FILE.json --html F` draws it today."""
    return report(file).to_html()


def facts(file: Path) -> str:
    """What was read, and what was found, in one line."""
    given = report(file)
    if isinstance(given, ComparisonReport):
        return f"Verdict: {given.result.verdict.text}."
    result, kinds = given.result, Counter(finding.severity for finding in given.findings)
    found = ", ".join(f"{kinds[name]} {name}" for name in ("strong", "notable", "warning", "info"))
    return (
        f"{result.parameters:,} parameters, {len(result.pairs)} pairs, {len(result.heads)} groups "
        f"of heads; findings: {found}."
    )
