"""Wrong use gives 2 before any work, an error and a hint that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from cli.conftest import Answer, Run


def complaint(answer: Answer) -> tuple[str, str]:
    """The error and the hint, after what holds for every error."""
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    error, hint = answer.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return error, hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rank", "half"], "unknown rank rule 'half'"),
        (["--rank", "energy:2"], "energy"),
        (["--rank", "fixed:0"], "fixed"),
        (["--only", "pairs,tails"], "'tails' is not among health, pairs, heads, residual"),
        (["--only", ""], "nothing is not among"),
        (["--fdr", "0"], "--fdr"),
        (["--fdr", "1"], "--fdr"),
        (["--fdr", "nan"], "fdr"),
        (["--fdr", "much"], "'much' is not a valid float"),
        (["--heads", "0"], "--heads"),
        (["--workers", "0"], "--workers"),
        (["--memory", "much"], "--memory"),
        (["--seed", "x"], "--seed"),
        (["--fold-norms", "some"], "'some' is not one of"),
        (["--precision", "float16"], "--precision"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["--device", "meta"], "device 'meta' cannot be used"),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--revision", "main"], "revision"),
        (["--html"], "requires an argument"),
        (["--jason", "x"], "no such option '--jason'"),
        (["more"], "unexpected extra argument"),
        (["--json", "-", "--html", "-"], "only one"),
        (["--json", "x", "--html", "x"], "same file"),
    ],
)
def test_bad_options(run: Run, mlp: Path, monkeypatch, options: list[str], said: str) -> None:
    monkeypatch.setattr("flagscope.api.scan.run_scan", None)
    error, _ = complaint(run("scan", mlp, *options))
    assert said in error


@pytest.mark.parametrize("arguments", [["scan"], ["inspect"], ["scna"], ["--bogus"]])
def test_bad_commands(run: Run, arguments: list[str]) -> None:
    _, hint = complaint(run(*arguments))
    assert "--help" in hint


def test_the_hint_names_the_command(run: Run) -> None:
    assert complaint(run("inspect", "--bogus"))[1] == "hint: see `flagscope inspect --help`"


@pytest.mark.parametrize(
    ("family", "near"), [("lama", "llama"), ("gpt-2", "gpt2"), ("ReNet", "resnet"), ("xyz", None)]
)
@pytest.mark.parametrize("command", ["scan", "inspect"])
def test_an_unknown_family(run: Run, mlp: Path, command: str, family: str, near: str) -> None:
    error, hint = complaint(run(command, mlp, "--family", family))
    assert repr(family) in error
    assert "gpt_neox" in hint
    assert (f"did you mean {near}" in hint) if near else ("did you mean" not in hint)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flagscope.api.source.open_checkpoint", None)
    error, hint = complaint(run("scan", "some/model", "--device", "cuda"))
    assert "device 'cuda' cannot be used" in error
    assert "cpu" in hint


def test_the_bare_command_prints_its_help(run: Run) -> None:
    answer = run()
    assert answer.code == 0
    assert answer.out == run("--help").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(run: Run, monkeypatch, shell: str) -> None:
    monkeypatch.setenv("_FLAGSCOPE_COMPLETE", f"{shell}_source")
    assert "_FLAGSCOPE_COMPLETE" in run().out
    monkeypatch.setenv("_FLAGSCOPE_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", "flagscope com")
    monkeypatch.setenv("COMP_CWORD", "com" if shell == "fish" else "1")
    assert "compare" in run().out


@pytest.mark.parametrize(
    "line",
    [
        "scan mod",
        "heads mod",
        "compare a mod",
        "report mod",
        "scan x --html mod",
        "scan x --base mod",
    ],
)
def test_shells_complete_file_names(run: Run, monkeypatch, line: str) -> None:
    monkeypatch.setenv("_FLAGSCOPE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"flagscope {line}")
    monkeypatch.setenv("COMP_CWORD", str(len(line.split())))
    assert run().out == "file,mod\n"


def test_names_of_experiments_are_not_files(run: Run, monkeypatch) -> None:
    monkeypatch.setenv("_FLAGSCOPE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "flagscope lab mod")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert "file" not in run().out


def test_the_environment_sets_defaults_that_the_command_line_overrides(
    run: Run, monkeypatch, mlp: Path
) -> None:
    monkeypatch.setenv("FLAGSCOPE_SCAN_FDR", "0.01")
    monkeypatch.setenv("FLAGSCOPE_TIMEOUT", "20")  # not an option: the limit of requests

    def fdr(*options: str) -> float:
        answer = run("scan", mlp, "--json", "-", "--quiet", *options)
        assert answer.code == 0, answer.err
        return json.loads(answer.out)["settings"]["fdr"]

    assert fdr() == 0.01
    assert fdr("--fdr", "0.1") == 0.1


def test_a_wrong_default_names_its_variable(run: Run, monkeypatch, mlp: Path) -> None:
    monkeypatch.setenv("FLAGSCOPE_SCAN_FDR", "2")
    error, _ = complaint(run("scan", mlp))
    assert "FLAGSCOPE_SCAN_FDR" in error
    error, _ = complaint(run("scan", mlp, "--fdr", "3"))
    assert "FLAGSCOPE_SCAN_FDR" not in error
