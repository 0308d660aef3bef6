"""Pages are written from results.json, and the experiment shown in the docs runs."""

from __future__ import annotations

import gzip
import json
import platform
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flagscope.errors import CorruptFileError, InputError
from flagscope.lab import Options, run_lab
from flagscope.lab.pages import BEGIN, END, write_pages

NEW = Path(__file__).parents[2] / "docs/lab/new.md"


def carry_out(reference, out, options=None):
    with ThreadPoolExecutor(1) as pool:
        (result,) = run_lab([reference], options, out=out, executor=pool)
    return result


def test_a_page_holds_prediction_numbers_verdict_command_and_figures(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_BIASES", "0.5,0.9")
    (result,) = [carry_out(toy, tmp_path / "out", Options(seeds=5))]
    docs = tmp_path / "docs"
    docs.mkdir()
    kept = "| [other](other.md) | Something | open | 1 open |"
    stale = "| [toy](toy.md) | stale | open | |"
    (docs / "index.md").write_text(f"# Lab\n\n{BEGIN}\n{kept}\n{stale}\n{END}\n\nEnd.\n")
    (page,) = write_pages(tmp_path / "out", docs)
    text = page.read_text()
    assert page == docs / "toy.md"
    assert text.startswith("# A fair coin\n")
    assert "Refuted, in part at least" in text
    assert "flagscope lab toy --seeds 5\n" in text
    assert f"Python {platform.python_version()}, PyTorch" in text
    for e in result.findings[0].estimates:
        assert f"| {e.name} | {e.value:.6g} | {e.low:.6g} … {e.high:.6g} | 5 |" in text
    for target in re.findall(r"\]\(([^)]*)\)", text):
        assert (docs / target).is_file(), target
    index = (docs / "index.md").read_text()
    assert kept in index
    assert "| [toy](toy.md) | A fair coin | refuted | 1 refuted |" in index
    assert "stale" not in index
    assert index.endswith(f"{END}\n\nEnd.\n")
    write_pages(tmp_path / "out", docs)
    assert (page.read_text(), (docs / "index.md").read_text()) == (text, index)


def test_a_large_table_is_compressed_and_a_larger_one_left_out(toy, tmp_path, monkeypatch):
    carry_out(toy, tmp_path / "out")
    raw = (tmp_path / "out/toy/table.csv").read_bytes()
    (page,) = write_pages(tmp_path / "out", tmp_path)
    assert (tmp_path / "toy/table.csv").read_bytes() == raw
    assert "[table.csv](toy/table.csv)" in page.read_text()
    monkeypatch.setattr("flagscope.lab.pages._LARGEST_TABLE", len(raw) - 1)
    write_pages(tmp_path / "out", tmp_path)
    assert gzip.decompress((tmp_path / "toy/table.csv.gz").read_bytes()) == raw
    assert not (tmp_path / "toy/table.csv").exists()
    assert "[table.csv.gz](toy/table.csv.gz)" in page.read_text()
    monkeypatch.setattr("flagscope.lab.pages._LARGEST_TABLE", 10)
    write_pages(tmp_path / "out", tmp_path)
    assert not [*(tmp_path / "toy").glob("table*")]
    assert "The command writes every number to table.csv." in page.read_text()


def test_failed_or_foreign_results_give_no_page(toy, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="holds no results"):
        write_pages(tmp_path, tmp_path)
    monkeypatch.setenv("TOY_FAILS", "coin-0")
    carry_out(toy, tmp_path / "out")
    with pytest.raises(InputError, match="lists failed cells"):
        write_pages(tmp_path / "out", tmp_path)
    file = tmp_path / "out/toy/results.json"
    file.write_text(json.dumps({"schema": "flagscope.scan/1"}))
    with pytest.raises(CorruptFileError, match="does not follow"):
        write_pages(tmp_path / "out", tmp_path)


def test_the_experiment_of_the_docs_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", NEW.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) < 110
    file = tmp_path / "chance_overlap.py"
    file.write_text(code, encoding="utf-8")
    result = carry_out(str(file), tmp_path / "out", Options(quick=True))
    assert result.verdict == "confirmed"
    (page,) = write_pages(tmp_path / "out", tmp_path)
    # Its docstring tells why.
    assert "has mean (p/d) I" in page.read_text()
