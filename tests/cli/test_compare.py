"""`flagscope compare`: what it prints, writes and exits with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.conftest import Run
from flagscope.demo import checkpoints


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The bundled model before and after the last steps of its training."""
    places = []
    for name, path in zip(("before", "after"), checkpoints()[-2:], strict=True):
        place = tmp_path / name
        place.mkdir()
        shutil.copy(path, place / "model.safetensors")
        shutil.copy(path.parent / "config.json", place)
        places.append(place)
    return places[0], places[1]


def test_the_first_line_is_the_verdict(run: Run, pair: tuple[Path, Path]) -> None:
    answer = run("compare", *pair, "--only", "content,change")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0].startswith("fine-tuned: ")
    assert "cannot tell: which of the two was made of the other" in answer.out
    assert "moved most" in answer.out
    assert "of both norms: of the geometric mean of A's and B's" in answer.out


def test_it_writes_json_page_and_table(run: Run, pair: tuple[Path, Path], tmp_path: Path) -> None:
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "html", "csv")}
    options = [part for kind, path in files.items() for part in (f"--{kind}", path)]
    answer = run("compare", *pair, "--csv-table", "maps", *options, "--quiet")
    assert (answer.code, answer.out) == (0, "")
    written = json.loads(files["json"].read_text())
    assert written["schema"] == "flagscope.compare/1"
    assert written["verdict"]["code"] == "fine-tuned"
    assert "<title>" in files["html"].read_text()
    rows = files["csv"].read_text().splitlines()
    assert len(rows) == 1 + len(written["change"]["maps"])


def test_json_goes_to_stdout(run: Run, pair: tuple[Path, Path]) -> None:
    answer = run("compare", pair[0], pair[0], "--json", "-")
    assert json.loads(answer.out)["verdict"]["code"] == "identical"


@pytest.mark.parametrize(
    ("codes", "code"),
    [("fine-tuned", 4), ("identical,unrelated", 0), ("heads-moved,fine-tuned", 4)],
)
def test_a_gate_gives_4(run: Run, pair: tuple[Path, Path], codes: str, code: int) -> None:
    answer = run("compare", *pair, "--only", "content", "--fail-on", codes)
    assert answer.code == code
    assert ("--fail-on" in answer.err) == (code == 4)


@pytest.mark.parametrize(("codes", "code"), [("fine-tuned,identical", 0), ("identical", 4)])
def test_a_verdict_that_is_not_expected_gives_4(
    run: Run, pair: tuple[Path, Path], codes: str, code: int
) -> None:
    answer = run("compare", *pair, "--only", "content", "--expect", codes)
    assert answer.code == code
    assert ("--expect identical: the verdict is fine-tuned" in answer.err) == (code == 4)


def test_maps_that_moved_too_far_are_named(run: Run, pair: tuple[Path, Path]) -> None:
    state = load_file(pair[0] / "model.safetensors")
    name = "transformer.h.2.mlp.c_proj.weight"
    moved = state | {name: (1.5 * state[name].float()).to(state[name].dtype)}
    save_file(moved, pair[1] / "model.safetensors")
    only = ("--only", "content,change", "--quiet")
    answer = run("compare", *pair, *only, "--max-moved", "40%")
    assert answer.code == 4
    (line,) = [line for line in answer.err.splitlines() if "--max-moved 40%" in line]
    assert line.count("moved by") == 1
    assert "layer.2.down moved by 50" in line
    assert "of A's norm" in line
    assert run("compare", *pair, *only, "--max-moved", "60%").code == 0
    assert run("compare", pair[0], pair[0], *only, "--max-moved", "0%").code == 0


def test_what_was_not_measured_is_not_within_a_bound(
    run: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    save_file({"fc.weight": torch.ones(4, 3)}, tmp_path / "other.safetensors")
    answer = run("compare", pair[0], tmp_path / "other.safetensors", "--max-moved", "20%")
    assert answer.code == 4
    assert "what moved was not measured: the two are of different architectures" in answer.err
    assert run("compare", *pair, "--max-moved", "20").code == 2
    assert run("compare", *pair, "--only", "content", "--max-moved", "20%").code == 2


def test_a_gate_takes_severities(run: Run, pair: tuple[Path, Path]) -> None:
    state = load_file(pair[1] / "model.safetensors")
    state["transformer.ln_f.weight"][3] = float("nan")
    save_file(state, pair[1] / "model.safetensors")
    answer = run("compare", *pair, "--only", "content", "--fail-on", "warning")
    assert answer.code == 4
    assert "--fail-on warning: that is what was found" in answer.err


def test_a_gate_needs_a_code_that_there_is(run: Run, pair: tuple[Path, Path]) -> None:
    answer = run("compare", *pair, "--fail-on", "tuned")
    assert answer.code == 2
    assert "'tuned' is not among identical, re-encoded" in answer.err


def test_different_architectures_are_a_verdict_and_0(
    run: Run, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    save_file({"fc.weight": torch.ones(4, 3)}, tmp_path / "other.safetensors")
    answer = run("compare", pair[0], tmp_path / "other.safetensors")
    assert answer.code == 0
    assert answer.out.startswith("different architectures")


def test_it_overwrites_neither_side(run: Run, pair: tuple[Path, Path]) -> None:
    for side in pair:
        answer = run("compare", *pair, "--json", side / "model.safetensors")
        assert answer.code == 2
        assert "would overwrite the source" in answer.err
        assert load_file(side / "model.safetensors")


def test_a_missing_side_is_an_error_with_a_hint(run: Run, pair: tuple[Path, Path]) -> None:
    answer = run("compare", pair[0], pair[0] / "nothing")
    assert answer.code == 2
    assert "hint: " in answer.err
