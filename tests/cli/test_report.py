"""`flagscope report`: what an earlier scan or comparison wrote, printed again or as a page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.conftest import Run
from series.made import mlp as mlp_run
from series.made import saved


@pytest.fixture
def scan(run: Run, mlp: Path, tmp_path: Path) -> Path:
    path = tmp_path / "scan.json"
    assert run("scan", mlp, "--json", path, "--quiet").code == 0
    return path


def without_time(text: str) -> str:
    return re.sub(r"\d+\.\d s", "s", text)


def test_a_scan_is_printed_as_it_was(run: Run, mlp: Path, scan: Path) -> None:
    assert without_time(run("report", scan).out) == without_time(run("scan", mlp).out).replace(
        str(mlp), mlp.name
    )


def test_a_page_is_made_of_the_json_alone(run: Run, mlp: Path, scan: Path, tmp_path: Path) -> None:
    mlp.unlink()
    answer = run("report", scan, "--html", tmp_path / "page.html")
    assert answer.code == 0
    assert "<!doctype html>" in (tmp_path / "page.html").read_text()


def test_a_comparison_is_printed_by_the_same_command(run: Run, mlp: Path, tmp_path: Path) -> None:
    path = tmp_path / "comparison.json"
    run("compare", mlp, mlp, "--json", path, "--quiet")
    answer = run("report", path, "--fail-on", "identical")
    assert answer.code == 4
    assert answer.out.startswith("identical: ")
    assert run("report", path, "--fail-on", "unrelated").code == 0


def test_a_series_is_printed_and_has_a_page_by_the_same_command(run: Run, tmp_path: Path) -> None:
    folder, path = saved(mlp_run(0, steps=4), tmp_path / "run"), tmp_path / "series.json"
    page, again = tmp_path / "page.html", tmp_path / "again.html"
    run("track", folder, "--json", path, "--html", page, "--title", "Mine", "--quiet")
    assert '<h1 data-model="Mine">Mine</h1>' in page.read_text()
    assert run("report", path, "--html", again, "--title", "Mine", "--quiet").code == 0
    assert again.read_text() == page.read_text()
    printed = run("report", path)
    assert printed.out == run("track", folder).out.replace(str(folder), folder.name)
    assert printed.code == run("report", path, "--fail-on", "any").code == 0
    record = json.loads(path.read_text())
    record["integrity"]["faults"] = [
        {"code": "gap", "steps": [], "plain": "Step 20 is missing.", "evidence": "By names."}
    ]
    path.write_text(json.dumps(record))
    assert run("report", path, "--fail-on", "gap").code == 4
    assert run("report", path, "--fail-on", "equal").code == 0
    assert run("report", path, "--fail-on", "identical").code == 2


def test_gates_go_with_the_kind_of_the_file(run: Run, scan: Path) -> None:
    assert run("report", scan, "--fail-on", "not-finite").code == 0
    wrong = run("report", scan, "--fail-on", "identical")
    assert wrong.code == 2
    assert "'identical' is not among not-finite" in wrong.err


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "flagscope.track/9"}', json.dumps({"schema": [1]})]
)
def test_other_files_are_refused(run: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    answer = run("report", path)
    assert answer.code == 2
    assert "hint: " in answer.err


def test_the_json_is_not_overwritten(run: Run, scan: Path) -> None:
    before = scan.read_bytes()
    assert run("report", scan, "--html", scan).code == 2
    assert scan.read_bytes() == before


def test_a_page_has_a_title_of_ones_own(run: Run, mlp: Path, scan: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for command in (("scan", mlp, "--quiet"), ("demo", "--quiet"), ("report", scan)):
        assert run(*command, "--html", page, "--title", "Mine & <theirs>").code == 0
        text = page.read_text()
        assert "<title>Mine &amp; &lt;theirs&gt; · flagscope</title>" in text
        assert "<h1>Mine &amp; &lt;theirs&gt;</h1>" in text
    assert run("compare", mlp, mlp, "--html", page, "--title", "A pair", "--quiet").code == 0
    assert "<h1>A pair</h1>" in page.read_text()


@pytest.mark.parametrize("command", ["report", "scan"])
def test_a_title_without_a_page_is_refused(
    run: Run, mlp: Path, scan: Path, command: str, tmp_path: Path
) -> None:
    source = scan if command == "report" else mlp
    answer = run(command, source, "--title", "Mine")
    assert answer.code == 2
    assert "--title needs --html" in answer.err
    answer = run(command, source, "--title", " ", "--html", tmp_path / "page.html")
    assert answer.code == 2
    assert "--title is empty" in answer.err
