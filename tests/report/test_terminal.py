"""The findings in the terminal: sorted as they look, plain first, the gauge folded."""

from __future__ import annotations

import itertools

import pytest

from flagscope.api.report import Report
from flagscope.cli.findings_text import _first
from flagscope.cli.table import print_report
from flagscope.records import ScanResult
from flagscope.report import EXPLANATIONS, folded
from flagscope.report.coverage import in_brief, left_out_as_usual
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
    told = [finding for finding in shown if finding.severity != "warning"][:5]
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
    assert sum(line.startswith("    not: ") for line in lines) == 2


def test_each_finding_says_what_to_check_next_once_for_a_kind(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _first(folded(Report(transformer).findings)[0])
    firsts = {finding.code: finding.next_step for finding in reversed(shown)}
    lines = _printed(transformer, capsys)
    told = [line.removeprefix("    next: ") for line in lines if line.startswith("    next: ")]
    assert len(told) > 3
    assert set(told) == set(firsts.values()) - {""}


def test_the_findings_come_before_the_table(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = _printed(transformer, capsys)
    starts = ["health: ", "Findings, ", "• ", "Query–key ", "Medians [range]."]
    places = [next(i for i, line in enumerate(lines) if line.startswith(word)) for word in starts]
    assert places == sorted(places)
    last = max(i for i, line in enumerate(lines) if line.startswith("• "))
    assert last < places[starts.index("Query–key ")]


def _legend(lines: list[str]) -> dict[str, str]:
    first = next(i for i, line in enumerate(lines) if line.startswith("Medians")) + 1
    rows = itertools.takewhile(lambda line: line.startswith("  "), lines[first:])
    return {word.strip(): text for word, _, text in (row.partition(": ") for row in rows)}


def test_a_legend_explains_the_columns_that_are_shown_and_no_other(
    transformer: ScanResult, stream: ScanResult, capsys: pytest.CaptureFixture[str]
) -> None:
    legend = _legend(_printed(transformer, capsys))
    assert list(legend) == [
        "n",
        "overlap",
        "R",
        "beyond chance",
        "C",
        "ρ",
        "ν",
        "undefined",
        "gauge",
    ]
    assert legend["C"] == EXPLANATIONS["commutator_ratio"].legend
    assert legend["n"] == "how many pairs of maps and layers with heads"
    assert "overlap of links" in _legend(_printed(stream, capsys))
    heads = synthetic.result(heads=transformer.heads[:4])
    assert list(_legend(_printed(heads, capsys))) == ["n", "R", "beyond chance"]
    pairs = _legend(_printed(synthetic.perceptron(), capsys))
    assert list(pairs) == ["n", "overlap", "beyond chance", "C", "ρ", "ν", "gauge"]
    assert " R" not in pairs["beyond chance"]


def test_a_narrow_terminal_has_a_legend_of_its_columns_alone(
    transformer: ScanResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    print_report(Report(transformer))
    shown = capsys.readouterr().out
    assert "A wider terminal shows more columns" in " ".join(shown.split())
    assert "\n  undefined: " in shown
    assert "\n  ν: " not in shown
    assert "\n  n: " in shown


def test_what_is_usually_not_measured_is_brief_and_its_names_come_last(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = synthetic.empty().model_copy(update={"coverage": synthetic.partly()})
    lines = _printed(result, capsys)
    (brief,) = [line for line in lines if line.endswith("; names at the end")]
    assert result.coverage is not None
    for entry in left_out_as_usual(result.coverage):
        assert in_brief([entry]) in brief
        if entry.names:
            assert entry.names not in brief
            assert lines.index(f"not measured: {entry}") > lines.index(_bullets(lines)[-1])


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
