"""The findings in the terminal: sorted as they look, plain first, the gauge folded."""

from __future__ import annotations

import pytest

from flagscope.api.report import Report
from flagscope.cli.table import print_report
from flagscope.records import ScanResult
from flagscope.report import folded
from flagscope.report.wording import number
from report import synthetic


def _printed(result: ScanResult, capsys: pytest.CaptureFixture[str]) -> list[str]:
    # A width that is given, as by a terminal, would break the lines.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        print_report(Report(result))
    return capsys.readouterr().out.splitlines()


def _bullets(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("• ")]


def test_a_finding_begins_with_severity_effect_and_the_plain_sentence(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, _ = folded(Report(transformer).findings)
    told = [finding for finding in shown if finding.severity != "warning"][:6]
    told = [finding for finding in shown if finding in told or finding.severity == "warning"]
    expected = []
    for finding in told:
        severity = "remark" if finding.severity == "info" else finding.severity
        effect = "" if finding.effect is None else f" {number(finding.effect, 2)}"
        expected.append(f"• {severity}{effect}: {finding.plain}")
    assert _bullets(_printed(transformer, capsys)) == expected
    assert {finding.severity for finding in told} >= {"strong", "notable", "warning"}


def test_it_reads_as_sorted(transformer: ScanResult, capsys: pytest.CaptureFixture[str]) -> None:
    for severity in ("strong", "notable"):
        told = [line.split()[2] for line in _bullets(_printed(transformer, capsys))
                if line.startswith(f"• {severity} ")]  # fmt: skip
        effects = [float(word.rstrip(":")) for word in told]
        assert effects
        assert effects == sorted(effects, reverse=True)


def test_the_first_two_say_what_to_check_next_and_what_they_do_not_mean(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(transformer, capsys)
    first, second = _bullets(lines)[:2]
    under = lines[lines.index(first) + 1 : lines.index(second)]
    finding = Report(transformer).findings[0]
    assert under == [
        f"    {finding.text}", f"    next: {finding.next_step}", f"    not: {finding.not_meaning}",
    ]  # fmt: skip
    assert finding.code == "near-copies"
    assert "It does not mean that one of them can be removed cheaply" in under[2]
    assert sum(line.startswith("    next: ") for line in lines) == 2


def test_findings_on_the_gauge_are_one_line(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(transformer, capsys)
    _, gauge = folded(Report(transformer).findings)
    assert len(gauge) > 1
    folded_line = f"+ {len(gauge)} findings about numbers that depend on the choice of basis"
    assert sum(line.startswith(folded_line) for line in lines) == 1
    for finding in gauge:
        assert not any(finding.plain in line or finding.text in line for line in lines)
    assert any(line.startswith("  all are functional: ") for line in lines)


def test_where_the_gauge_is_all_there_is_it_is_shown(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    result = synthetic.result([pair for pair in transformer.pairs if pair.freedom == "gl"][:-1:2])
    (finding,) = [f for f in Report(result).findings if f.severity == "notable"][:1]
    assert finding.label == "gauge"
    lines = _printed(result, capsys)
    assert any(finding.plain in line for line in lines)
    assert any(line.startswith("  all depend on the choice of basis (gauge): ") for line in lines)
    assert not any(line.startswith("+ ") for line in lines)


def test_nothing_beyond_chance_has_no_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _printed(synthetic.perceptron(), capsys)
    assert "• remark: Nothing in this scan lies beyond chance." in lines
    assert not any(line.startswith(("    next", "Findings")) for line in lines)
