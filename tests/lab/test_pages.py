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
from flagscope.lab.digits import rounded
from flagscope.lab.pages import BEGIN, END, page_text, renewed_index, write_pages

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
    assert "**The paper's claim is refuted, in part at least: see which below.**\n" in text
    assert "Beyond the paper" not in text
    assert "flagscope lab toy --seeds 5\n" in text
    assert f"Python {platform.python_version()}, PyTorch" in text
    for e in result.findings[0].estimates:
        value, low, high = rounded(e.value, e.low, e.high)
        assert f"| {e.name} | {value} | {low} … {high} | 5 |" in text
    for target in re.findall(r"\]\(([^)]*)\)", text):
        assert (docs / target).is_file(), target
    index = (docs / "index.md").read_text()
    assert kept in index
    assert "| [toy](toy.md) | A fair coin | refuted | 1 refuted |" in index
    assert "stale" not in index
    assert index.endswith(f"{END}\n\nEnd.\n")
    for again in (tmp_path / "out", docs):
        write_pages(again, docs)
        assert (page.read_text(), (docs / "index.md").read_text()) == (text, index)
    kept_results = json.loads((docs / "toy/results.json").read_text())
    whole = json.loads((tmp_path / "out/toy/results.json").read_text())
    assert kept_results["findings"] == whole["findings"]
    assert [cell.keys() for cell in kept_results["cells"]] == [{"name", "settings"}] * 2


def finding(claim, verdict, **further):
    estimate = {"name": "x", "value": 0.84731, "low": 0.6, "high": 1.1, "n": 5}
    prediction = {"text": "it is so", "value": None, "source": "a book"}
    return {"claim": claim, "prediction": prediction, "estimates": [estimate], "verdict": verdict,
            "words": "Words.", **further}  # fmt: skip


def content(*findings, **further):
    return {"name": "toy", "title": "A toy", "claim": "All is so.", "source": "a book",
            "background": "", "version": "0", "verdict": "confirmed", "figures": {}, "cells": [],
            "settings": {"seeds": None, "quick": False, "data": None}, "findings": findings,
            "run": {"core_seconds": 60, "budget_minutes": 2}, **further}  # fmt: skip


def test_what_goes_beyond_the_paper_stands_apart():
    parts = finding("Further.", "refuted", beyond=True), finding("Own.", "confirmed", beyond=False)
    text = page_text(content(*parts), table=None)
    assert "**The paper's claim is confirmed: the measurement agrees" in text
    assert "** Beyond the paper: 1 refuted.\n" in text
    own, _, further = text.partition("\n## Beyond the paper\n")
    assert "\n## The paper's claim\n" in own
    for section, here, there in ((own, "Own.", "Further."), (further, "Further.", "Own.")):
        assert f"\n### {here}\n" in section
        assert there not in section
    assert "| x | 0.85 | 0.60 … 1.10 | 5 |" in own
    index = renewed_index(f"{BEGIN}\n{END}\n", [content(*parts)])
    first, _, second = index.partition("### What goes beyond the paper")
    assert "| [toy](toy.md) | A toy | confirmed | 1 confirmed |" in first
    assert "| [toy](toy.md) | A toy | 1 refuted |" in second


def test_an_experiment_of_its_own_has_no_verdict_on_the_paper():
    own = content(finding("Further.", "open", beyond=True), verdict=None)
    text = page_text(own, table=None)
    assert "**The paper makes no such claim: every part goes beyond it.**" in text
    assert "## The paper's claim" not in text
    before = f"{BEGIN}\n\n| [toy](toy.md) | A toy | refuted | 1 refuted |\n\n{END}\n"
    index = renewed_index(before, [own])
    assert index.count("[toy](toy.md)") == 1
    assert "| [toy](toy.md) | A toy | 1 open |" in index.partition("### What goes beyond")[2]


def test_results_of_before_the_distinction_are_read():
    """Everything was the paper's, and no rank rule was named."""
    text = page_text(content(finding("Own.", "confirmed")), table=None)
    assert "\n### Own.\n" in text.partition("## The paper's claim")[2]
    assert "rank rule" not in text
    named = page_text(content(finding("Own.", "confirmed"), rank_rule="energy:0.9"), table=None)
    assert "the dimensions of the rank rule `energy:0.9`" in named


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
