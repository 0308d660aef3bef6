"""0 done, 1 some tasks failed, 2 wrong use, 3 internal error, 4 a gate, 130 interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cli.conftest import Run, perceptron
from flagscope.engine.run import attempt as engine
from flagscope.errors import SourceError


def test_a_scan_that_worked_gives_0(run: Run, mlp: Path) -> None:
    answer = run("scan", mlp)
    assert answer.code == 0
    assert "2 pairs" in answer.out


def test_nan_weights_are_a_status_and_0(run: Run, tmp_path: Path) -> None:
    state = perceptron()
    state["4.weight"][0, 0] = torch.nan
    path = tmp_path / "nan.safetensors"
    save_file(state, path)
    answer = run("scan", path)
    assert answer.code == 0
    assert "1 × read map 4.weight is not finite" in answer.out
    assert "failed" not in answer.err


@pytest.mark.parametrize(
    ("codes", "code"),
    [("not-finite", 4), ("near-copies,warning", 4), ("near-copies", 0), ("strong,notable", 0)],
)
def test_a_gate_gives_4_where_a_finding_is_named(
    run: Run, tmp_path: Path, codes: str, code: int
) -> None:
    state = perceptron()
    state["4.weight"][0, 0] = torch.nan
    path = tmp_path / "nan.safetensors"
    save_file(state, path)
    answer = run("scan", path, "--fail-on", codes, "--json", "-", "--quiet")
    assert answer.code == code
    assert ("that is what was found" in answer.err) == (code == 4)
    found = {finding["code"] for finding in json.loads(answer.out)["findings"]}
    assert found >= {"not-finite", "missing-numbers"}


def test_a_gate_needs_a_code_that_there_is(run: Run, mlp: Path) -> None:
    answer = run("scan", mlp, "--fail-on", "copies")
    assert answer.code == 2
    assert "'copies' is not among not-finite, missing-layers, missing-tensors" in answer.err


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (SourceError("tensor gone", hint="look for it"), "hint: look for it"),
        (SourceError("tensor gone"), "hint: try --only"),
        (RuntimeError("out of memory"), "hint: try --workers 1"),
    ],
)
def test_a_failed_task_gives_1_and_is_listed(
    run: Run, mlp: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, hint: str
) -> None:
    execute = engine.execute

    def failing(task, *further):
        if task.name == "2-4":
            raise error
        return execute(task, *further)

    monkeypatch.setattr(engine, "execute", failing)
    answer = run("scan", mlp)
    assert answer.code == 1
    assert "1 pair," in answer.out
    assert "failed: 2-4: " in answer.err
    assert str(error) in answer.err
    assert hint in answer.err


# EOFError: click takes it for an interrupt.
@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), EOFError("oops")])
def test_an_internal_error_gives_3(
    run: Run, mlp: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("flagscope.api.scan.scan", broken)
    answer = run("scan", mlp)
    assert answer.code == 3
    assert answer.out == ""
    assert "oops" in answer.err
    assert "Traceback" not in answer.err
    assert answer.err.splitlines()[-1].startswith("hint: ")


def started(*arguments: object, **settings) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flagscope", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def read_so_far(pid: int) -> int:
    return int(Path(f"/proc/{pid}/io").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for how far the scan is")
def test_an_interrupted_scan_gives_130_at_once(tmp_path: Path) -> None:
    # One matrix operation on these takes many seconds, in which Python looks for no signal.
    path = tmp_path / "wide.safetensors"
    save_file(perceptron(width=3000), path)
    process = started("scan", path)
    # What it has read: the libraries' Python code first, a third of this, and then the weights.
    while process.poll() is None and read_so_far(process.pid) < path.stat().st_size / 2:
        time.sleep(0.02)
    time.sleep(0.5)
    before = time.perf_counter()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.perf_counter() - before < 2
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise on Windows")
@pytest.mark.parametrize("arguments", [["--json", "-"], ["--html", "-"], []])
def test_a_reader_that_went_away_is_no_error(
    run: Run, mlp: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stdout:  # noqa: PTH123 (a descriptor)
        monkeypatch.setattr(sys, "stdout", stdout)
        answer = run("scan", mlp, *arguments)
        monkeypatch.undo()
    assert answer.code == 0
    assert "Traceback" not in answer.err
    assert "BrokenPipe" not in answer.err


def test_a_code_of_health_needs_health(run: Run, mlp: Path) -> None:
    answer = run("scan", mlp, "--only", "pairs", "--fail-on", "not-finite,aligned")
    assert answer.code == 2
    assert "--fail-on not-finite is about health" in answer.err
    assert run("scan", mlp, "--only", "pairs", "--fail-on", "near-copies").code == 0
    assert run("scan", mlp, "--only", "health", "--fail-on", "not-finite").code == 0
