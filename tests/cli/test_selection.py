"""--layers, --kinds and --depth."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from cli.conftest import Run
from flagscope.cli.options import KINDS, PARTS
from flagscope.demo import final
from flagscope.records import PARTS as RECORDED
from flagscope.records import PairKind


def test_layers_and_kinds(run: Run) -> None:
    answer = run("scan", final(), "--layers", "0, 2-3", "--kinds", "qk,mlp", "--json", "-")
    assert answer.code == 0
    scan = json.loads(answer.out)
    assert {pair["layer"] for pair in scan["pairs"]} == {0, 2, 3}
    assert {pair["kind"] for pair in scan["pairs"]} == {"qk", "mlp"}
    assert scan["settings"]["layers"] == [0, 2, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layers", "3-1"], "'3-1' is not a number or a range"),
        (["--layers", "x"], "'x' is not a number or a range"),
        (["--layers", "0-999999999"], "is not a number or a range"),
        (["--kinds", "mpl"], "'mpl' is not among qk, ov, mlp"),
        (["--layers", "77"], "there is no layer 77"),
    ],
)
def test_wrong_choices(run: Run, options: list[str], said: str) -> None:
    answer = run("scan", final(), *options)
    assert answer.code == 2
    assert said in answer.err


def test_depth_is_recorded(run: Run) -> None:
    answer = run("scan", final(), "--depth", "sharp", "--layers", "1", "--json", "-")
    assert json.loads(answer.out)["settings"]["depth"] == "sharp"


def test_the_choices_are_those_of_the_records() -> None:
    assert set(KINDS) == set(get_args(PairKind))
    assert PARTS == RECORDED
