"""`flagscope lab` as it is typed."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from cli.conftest import run  # noqa: F401
from flagscope.lab import experiment_names


def lab(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "flagscope", "lab", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_a_refuted_claim_is_a_result(toy, tmp_path):
    done = lab(toy, "--out", tmp_path, "--workers", 1, "--seeds", 3, TOY_BIASES="0.5,0.9")
    assert done.returncode == 0
    assert "refuted: A coin falls on either side alike." in done.stdout
    assert "(n = 3)" in done.stdout
    # Cells that end at one time are told in any order.
    assert re.search(r"toy: coin-[01] \(1 of 2 cells, \d+%\)", done.stderr)
    assert "(a full run may take 0.1 core-minutes)" in done.stderr
    assert (tmp_path / "toy/results.json").exists()


def test_a_failed_cell_is_exit_one(toy, tmp_path):
    done = lab(toy, "--out", tmp_path, "--workers", 1, "--quiet", TOY_FAILS="coin-0")
    assert done.returncode == 1
    assert done.stderr == "failed: toy: coin-0: ArithmeticError: the coin rolled away\n"


def test_the_list_names_every_experiment(run):  # noqa: F811
    answer = run("lab", "--list")
    assert answer.code == 0
    listed = [line.split()[0] for line in answer.out.splitlines()[1:]]
    assert listed == list(experiment_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the name of an experiment, --all or --list"),
        (["strata", "--all"], "give the name of an experiment, --all or --list"),
        (["strato"], "there is no experiment 'strato'"),
        (["nowhere.py"], "there is no file nowhere.py"),
        (["strata", "--seeds", "0"], "seeds"),
        (["strata", "--data", "pydoc"], "strata works on none"),
    ],
)
def test_wrong_use_is_exit_two_with_a_hint(run, arguments, message, tmp_path):  # noqa: F811
    answer = run("lab", *arguments, "--out", tmp_path)
    assert answer.code == 2
    assert message in answer.err
    assert "hint:" in answer.err
