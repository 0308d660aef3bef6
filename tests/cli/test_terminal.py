"""Tables in real terminals of several widths, in pipes, without colour and without ρ."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cli.conftest import Run, perceptron

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(width: int, *arguments: object, errors: bool = False, **environment: str) -> str:
    """What a terminal of this width is sent on stdout, with its control sequences; stderr too."""
    import fcntl
    import struct
    import termios

    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "flagscope", *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs if errors else subprocess.PIPE,
        env=kept | {"TERM": "xterm-256color"} | environment,
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            chunk = os.read(mine, 4096)
        except OSError:  # Linux says so when the other end is closed
            break
        if not chunk:
            break
        sent += chunk
    os.close(mine)
    if process.stderr is not None:
        process.stderr.close()
    assert process.wait() == 0
    return sent.decode().replace("\r\n", "\n")


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


# With NO_COLOR set, bold and dim remain.
COLOUR = re.compile(r"\x1b\[[0-9;]*(3|4|9|10)[0-8]m")


@pytest.mark.parametrize(("width", "ranges"), [(80, False), (120, True)])
def test_a_scan_fits_the_terminal(minilm: Path, width: int, ranges: bool) -> None:
    sent = in_terminal(width, "scan", minilm, NO_COLOR="1")
    assert "\x1b[1m" in sent
    assert not COLOUR.search(sent)
    shown = ESCAPES.sub("", sent).splitlines()
    assert max(map(cells, shown)) <= width
    row = next(line for line in shown if line.startswith("MLP (gelu)"))
    assert row.split()[2] == "6"
    assert row.count("[") == (4 if ranges else 0)
    assert any(line.startswith("• strong 1.1: In all 6 MLPs, strong directions") for line in shown)


@pytest.mark.parametrize("width", [40, 60, 79, 80, 90, 100, 120, 200])
def test_no_number_is_cut_at_any_width(
    run: Run, resnet: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    number = re.compile(r"[−-]?\d+\.\d+|\d+ of \d+")
    in_a_pipe = run("scan", resnet, "--only", "pairs").out
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run("scan", resnet, "--only", "pairs").out.splitlines()
    assert max(map(cells, lines)) <= width
    row = next(line for line in lines if line.startswith("Convolution (relu)"))
    numbers = number.findall(row)
    assert numbers
    assert set(numbers) <= set(number.findall(in_a_pipe))
    assert "…" not in row


def test_the_count_of_undefined_results_stays_at_any_width(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = perceptron() | {"4.weight": torch.full((16, 16), torch.nan)}
    save_file(state, tmp_path / "nan.safetensors")
    monkeypatch.setenv("COLUMNS", "50")
    shown = run("scan", tmp_path / "nan.safetensors").out
    assert "undefined" in shown
    assert "more columns" in shown


def test_inspect_in_80_columns(run: Run, minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = run("inspect", minilm).out.splitlines()
    assert max(map(cells, shown)) <= 80
    assert sum("12 qk, 12 ov" in line for line in shown) == 6


def test_inspect_counts_experts_by_kind(run: Run, tmp_path: Path) -> None:
    """A block of 60 experts is one short row, in a pipe too."""
    at, d, f = "model.layers.0.", 8, 4
    state = {f"{at}self_attn.{one}_proj.weight": torch.zeros(d, d) for one in "qkvo"}
    for expert in range(60):
        for one, shape in (("gate", (f, d)), ("up", (f, d)), ("down", (d, f))):
            state[f"{at}mlp.experts.{expert}.{one}_proj.weight"] = torch.zeros(*shape)
    save_file(state, tmp_path / "model.safetensors")
    config = {"model_type": "qwen3_moe", "num_attention_heads": 2, "hidden_act": "silu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    rows = run("inspect", tmp_path).out.splitlines()
    row = next(row for row in rows if row.startswith("decoder.0.mlp")).split()
    assert row[:5] == ["decoder.0.mlp", "120", "mlp", "gated,", "silu"]
    assert max(map(len, rows)) < 200


def test_a_pipe_gets_whole_lines_and_no_control(run: Run, minilm: Path) -> None:
    answer = run("scan", minilm)
    assert "\x1b" not in answer.out + answer.err
    lines = answer.out.splitlines()
    assert not any(line.endswith(" ") for line in lines)
    row = next(line for line in lines if line.startswith("MLP (gelu)"))
    assert row.count("[") == 4
    assert any(len(line) > 150 for line in lines)


def test_an_encoding_without_rho(run: Run, mlp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    answer = run("scan", mlp)
    sent = stdout.buffer.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.undo()
    assert answer.code == 0
    assert b"rho (chance 0)" in sent
    assert b"nu (chance ~ 1)" in sent


@pytest.mark.parametrize("command", ["scan", "compare"])
def test_a_terminal_shows_how_far_the_work_is(mlp: Path, command: str) -> None:
    sources = [mlp] * (1 + (command == "compare"))
    sent = in_terminal(100, command, *sources, errors=True)
    assert "━" in sent
    assert re.search(r"(\d+)/\1 ", ESCAPES.sub("", sent))
    assert "━" not in in_terminal(100, command, *sources, "--quiet", errors=True)
