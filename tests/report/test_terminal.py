"""The findings in the terminal: severity, label, and what the first kinds mean."""

from __future__ import annotations

import pytest

from flagscope.api.report import Report
from flagscope.cli.table import print_report
from flagscope.records import ScanResult
from report import synthetic


def _printed(result: ScanResult, capsys: pytest.CaptureFixture[str]) -> list[str]:
    # A width that is given, as by a terminal, would break the lines.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        print_report(Report(result))
    return capsys.readouterr().out.splitlines()


def test_findings_carry_severity_and_label(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in _printed(transformer, capsys) if line.startswith("• ")]
    findings = Report(transformer).findings
    words = {"strong": "strong: ", "notable": "", "warning": "warning: ", "info": "remark: "}
    for line, finding in zip(lines, findings, strict=False):
        label = f" [{finding.label}]" if finding.label else ""
        assert line == f"• {words[finding.severity]}{finding.text}{label}"
    assert any(line.endswith(" [gauge]") for line in lines)
    assert any(line.endswith(" [functional]") for line in lines)


def test_the_first_three_kinds_say_what_they_mean_and_what_not(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(transformer, capsys)
    for word in ("means", "next", "not"):
        told = [line for line in lines if line.startswith(f"    {word}: ")]
        assert len(told) == 3
    told = [line for line in lines if line.startswith("    means: ")]
    assert len(set(told)) == 3
    shown = "\n".join(lines)
    assert "It does not mean that one of them can be removed cheaply" in shown


def test_nothing_beyond_chance_has_no_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(synthetic.perceptron(), capsys)
    assert "• remark: Nothing in this scan lies beyond chance." in lines
    assert not any("means: " in line for line in lines)
