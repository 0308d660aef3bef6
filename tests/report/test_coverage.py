"""What was measured is the first thing that a report says, in every form that it takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import flagscope
from engine.models import own_names
from flagscope.api.report import Report
from flagscope.cli.table import print_report
from flagscope.records import ScanResult
from flagscope.report import findings, left_out, measured_share, without_number_lines
from flagscope.report.coverage import percent
from report import synthetic


@pytest.fixture(scope="module")
def partly() -> Report:
    return flagscope.scan(own_names(), workers=1)


SHARE = "measured 12 of 36 matrices, 50 % of the parameters"
LEFT = (
    "24 matrices, 50 % of the parameters: left unplaced: what it is connected to is not known "
    "[layers.{0-5}.mix.{w_a,w_b,w_c,w_d}.weight]"
)


def test_the_terminal_says_it_before_any_number(
    partly: Report, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_report(partly)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("health: nothing wrong in ")
    measured = lines.index(SHARE)
    assert all(line.startswith("  ") for line in lines[3:measured])
    assert lines[measured + 1] == f"  not measured: {LEFT}"
    assert lines[measured + 2] == ""


def test_a_warning_says_that_findings_are_about_the_rest(partly: Report) -> None:
    (warning,) = [finding for finding in partly.findings if finding.severity == "warning"]
    assert warning.text == (
        "24 of 36 matrices, 50 % of the parameters, could not be placed or measured: no finding "
        "here is about them."
    )
    assert "--family" in warning.evidence[0]


def test_repr_json_notebook_and_page_say_it(partly: Report, tmp_path: Path) -> None:
    assert SHARE in repr(partly)
    written = json.loads(partly.to_json(tmp_path / "scan.json"))
    assert list(written).index("coverage") < list(written).index("pairs")
    assert (written["coverage"]["measured"], written["coverage"]["matrices"]) == (12, 36)
    assert Report.from_json(tmp_path / "scan.json").result == partly.result
    assert SHARE in partly._repr_html_()
    assert LEFT in partly._repr_html_()
    page = partly.to_html()
    start = page.index('<section id="coverage"')
    assert start < page.index('<section id="findings"')
    head = re.sub(r"<[^>]*>", "", page[start : page.index('<section id="findings"')])
    assert SHARE.removeprefix("m") in head
    assert "layers.{0-5}.mix.{w_a,w_b,w_c,w_d}.weight" in head


def test_all_that_is_expected_is_listed_and_no_warning() -> None:
    state = {f"{i}.weight": tensor for i, tensor in enumerate(own_names(1).values()) if i > 3}
    report = flagscope.scan(
        state | {"embed_tokens.weight": own_names(1)["layers.0.mix.w_a.weight"]}
    )
    assert report.result.coverage is not None
    assert report.result.coverage.matrices == 3
    assert not [finding for finding in report.findings if finding.severity == "warning"]


def test_what_has_no_number_is_counted_at_the_head(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    result = synthetic.stream()
    assert result.coverage is not None
    lines = without_number_lines(result.coverage)
    assert lines == [
        "2 of 150 pairs: weights that are all zero",
        "12 of 288 links between heads: heads are zero",
    ]
    print_report(Report(result))
    shown = capsys.readouterr().out.splitlines()
    assert [f"  without a number: {line}" for line in lines] == [
        line for line in shown[:12] if "without a number" in line
    ]
    assert [f.text for f in findings(result) if "12 of 288 links" in f.text] == [
        "12 of 288 links between heads have no number."
    ]
    page = Report(result).to_html()
    assert "<dt>Results without numbers</dt><dd>12</dd>" in page
    assert all(line in page for line in lines)


@pytest.mark.parametrize(("count", "noun"), [(1, "matrix"), (2, "matrices"), (0, "matrices")])
def test_one_matrix_is_one(count: int, noun: str) -> None:
    coverage = synthetic.partly().model_copy(update={"measured": 0, "matrices": count})
    assert measured_share(coverage).startswith(f"measured 0 of {count} {noun}, ")


def test_an_older_file_says_nothing_of_it(tmp_path: Path) -> None:
    result = synthetic.empty()
    document = json.loads(result.model_dump_json(by_alias=True))
    del document["coverage"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = Report.from_json(tmp_path / "old.json")
    assert old.result.coverage is None
    assert "measured" not in repr(old)
    assert '<section id="coverage"' not in old.to_html()
    assert any("2 matrices could not be placed" in finding.text for finding in old.findings)


def test_markup_in_names_stays_text() -> None:
    result: ScanResult = synthetic.hostile()
    for text in (Report(result).to_html(), Report(result)._repr_html_()):
        assert "&lt;img src=x" in text
        assert "<img src=x" not in text


def test_everything_is_named_and_adds_up() -> None:
    coverage = synthetic.partly()
    assert measured_share(coverage) == "measured 72 of 86 matrices, 50 % of the parameters"
    amounts = [entry.amount for entry in left_out(coverage)]
    assert amounts == [
        "12 matrices, 9 % of the parameters", "2 matrices, 41 % of the parameters",
        "vectors, 0.5 % of the parameters", "buffers",
    ]  # fmt: skip


@pytest.mark.parametrize("part", [1, 3, 999, 999_999])
def test_no_share_is_rounded_to_all_or_none(part: int) -> None:
    assert percent(part, 1_000_000) != "0 %"
    assert percent(1_000_000 - part, 1_000_000) != "100 %"
