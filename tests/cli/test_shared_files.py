"""Files that are passed on: no paths of this machine, no formulas, no credentials."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import flagscope
from cli.conftest import Run, perceptron
from flagscope.api.sharing import shareable
from flagscope.engine.run import attempt as engine


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a model in it."""
    home = tmp_path / "home" / "ann-smith"
    (home / "work" / "model").mkdir(parents=True)
    save_file(perceptron(), home / "work" / "model" / "model.safetensors")
    monkeypatch.setenv("HOME", str(home))
    return home


def written(run: Run, folder: Path, *arguments: object) -> str:
    """All that a scan and an inspection write."""
    texts = []
    for command, kinds in (("scan", ("json", "html", "csv")), ("inspect", ("json",))):
        files = {kind: folder / f"{command}.{kind}" for kind in kinds}
        answer = run(command, *arguments, *(f"--{kind}={path}" for kind, path in files.items()))
        assert answer.code in (0, 1)
        texts += [path.read_text("utf-8") for path in files.values()]
    return "\n".join(texts)


def test_absolute_paths_are_left_out_unless_asked_for(
    run: Run, private: Path, tmp_path: Path
) -> None:
    for source in (private / "work/model", private / "work/model/model.safetensors"):
        text = written(run, tmp_path, source)
        assert "ann-smith" not in text
        assert str(tmp_path) not in text
        assert json.loads((tmp_path / "scan.json").read_text())["source"] == source.name
        assert str(private) in written(run, tmp_path, source, "--paths")
        assert run("scan", source).out.splitlines()[0] == str(source)  # one's own screen


def test_what_was_typed_relative_stays(
    run: Run, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(private / "work")
    assert "ann-smith" not in written(run, tmp_path, "model/model.safetensors")
    assert json.loads((tmp_path / "scan.json").read_text())["source"] == "model/model.safetensors"


def test_failures_and_notes_name_no_folder(
    run: Run, private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, config = private / "work/model/model.safetensors", private / "work/config.json"
    config.write_text("{}")
    execute = engine.execute

    def failing(task, *further):
        if task.name == "2-4":
            raise OSError(5, "Input/output error", str(source))
        return execute(task, *further)

    monkeypatch.setattr(engine, "execute", failing)
    text = written(run, tmp_path, source, "--config", config)
    assert "Input/output error" in text
    assert "ann-smith" not in text
    report = flagscope.scan(source)
    assert str(private) in report.result.source
    assert "ann-smith" not in repr(report) + report._repr_html_()
    assert "ann-smith" not in report.to_json() + report.to_html()
    assert str(private) in report.to_json(paths=True)


def test_names_of_tensors_that_look_like_paths_stay() -> None:
    short = shareable(["/model", "/data/model/a.onnx", "b.onnx"])
    assert (
        short("/model/layers.0/MatMul and /layers.1/Add")
        == "model/layers.0/MatMul and /layers.1/Add"
    )
    assert short("/layers.0/data/model/MatMul") == "/layers.0/data/model/MatMul"
    assert short("/data/model/a.onnx: 3 maps") == "a.onnx: 3 maps"


def test_a_snapshot_of_the_hub_keeps_the_name_of_its_model() -> None:
    cached = "/home/ann/.cache/huggingface/hub/models--org--name/snapshots/0a1b"
    assert shareable([cached])(f"{cached}/a.bin") == "models--org--name/snapshots/0a1b/a.bin"


FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "＝1+1", "a;=1", "a; @b"]
BREAKS = ["\t=1", "\r=1", "a\r=1", "a\n=1", "\x00=1", "a\u2028=1"]


@pytest.mark.parametrize("formula", [*FORMULAS, *BREAKS])
def test_a_name_is_no_formula_in_a_spreadsheet(run: Run, tmp_path: Path, formula: str) -> None:
    names = [f"{formula}.{layer}.weight" for layer in (0, 1)]
    save_file(dict(zip(names, (torch.randn(6, 4), torch.randn(4, 6)), strict=True)),
              tmp_path / "model.safetensors")  # fmt: skip
    out = run("scan", tmp_path, "--csv", "-").out
    rows = list(csv.reader(io.StringIO(out, newline="")))
    assert len(rows) == 2
    texts = [cell for row in rows for cell in row if not _is_number(cell)]
    assert formula in BREAKS or any("'" in cell for cell in texts)
    cells = [
        part.strip() for text in texts for line in text.splitlines() for part in line.split(";")
    ]
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@＝"))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
