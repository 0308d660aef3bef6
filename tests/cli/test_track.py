"""`flagscope track`: faults first, with their steps; outputs, and exit codes of a gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Run
from series.gpts import dead_neurons, equal_keys, gpts, saved_gpts
from series.made import linear, mlp, saved
from series.test_products import with_a_turn


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = mlp(0, steps=6)
    run[3] = (run[3][0], run[5][1])
    folder = saved(run, tmp_path_factory.mktemp("damaged"))
    (folder / "checkpoint-10" / "model.safetensors").write_bytes(b"")
    return folder


def test_faults_come_first_and_name_their_steps(run: Run, damaged: Path) -> None:
    answer = run("track", damaged)
    assert answer.code == 0
    lines = [line for line in answer.out.splitlines() if line.strip()]
    assert lines[1] == "6 checkpoints; 2 faults"
    assert lines[2].startswith("• truncated: checkpoint-10 is damaged or cut short")
    assert any(line.startswith("• equal: checkpoint-30") for line in lines)
    assert "not looked at: " in answer.out
    assert "Gram correlation" in answer.out


def test_a_sound_series_says_so_and_what_was_compared(run: Run, tmp_path: Path) -> None:
    answer = run("track", saved(mlp(0, steps=6), tmp_path), "--verify")
    assert "6 checkpoints; no fault found" in answer.out
    assert "tensors in each step" in answer.out
    assert "Gram correlation" not in answer.out


@pytest.mark.parametrize(
    ("codes", "code"), [("any", 4), ("equal,gap", 4), ("gap", 0), ("foreign", 2)]
)
def test_a_gate(run: Run, damaged: Path, codes: str, code: int) -> None:
    answer = run("track", damaged, "--verify", "--fail-on", codes, "--quiet")
    assert answer.code == code
    assert answer.out == ""


def test_json_and_both_tables(run: Run, damaged: Path, tmp_path: Path) -> None:
    answer = run("track", damaged, "--json", "-", "--csv", tmp_path / "a.csv", "--store",
                 tmp_path / "store", "--kinds", "sequential")  # fmt: skip
    record = json.loads(answer.out)
    assert record["schema"] == "flagscope.track/1"
    assert [step["status"] for step in record["steps"]].count("truncated") == 1
    assert (tmp_path / "a.csv").read_text().count("\n") == 7
    run("track", damaged, "--csv", tmp_path / "b.csv", "--csv-table", "curves", "--store",
        tmp_path / "store", "--kinds", "sequential")  # fmt: skip
    rows = (tmp_path / "b.csv").read_text().splitlines()
    assert rows[0].split(",")[:3] == ["step", "number", "pair"]
    assert len(rows) == 1 + sum(
        value is not None for curve in record["curves"] for value in curve["values"]
    )


def test_what_it_cannot_take_is_said(run: Run, tmp_path: Path) -> None:
    assert run("track").code == 2
    answer = run("track", tmp_path / "nowhere*")
    assert answer.code == 2
    assert "no checkpoint matches" in answer.err
    assert "is not among qk, ov" in run("track", tmp_path, "--kinds", "dense").err


def test_the_motion_of_maps_is_said_and_written(run: Run, damaged: Path, tmp_path: Path) -> None:
    answer = run("track", damaged, "--store", tmp_path / "store")
    assert "way of 4 maps: path length" in answer.out
    assert "leading directions" in answer.out.lower()
    answer = run("track", damaged, "--csv", "-", "--csv-table", "motion", "--store",
                 tmp_path / "store")  # fmt: skip
    rows = answer.out.splitlines()
    assert rows[0].split(",")[:8] == [
        "step", "number", "part", "map", "role", "layer", "side", "freedom"
    ]  # fmt: skip
    assert len(rows) == 1 + 4 * 2 * 4  # one step is damaged, one is a copy of another


def test_the_motion_of_products_is_said(run: Run, tmp_path: Path) -> None:
    folder = with_a_turn(tmp_path / "run")
    said = " ".join(run("track", folder).out.split())
    assert "16 products of two maps: the last change of the product is a median of 1.0" in said
    assert "Leading directions of 1 of 32 sides of products turned more than" in said
    assert "layer.1.head.2.ov write " in said
    assert "functional: no change of the basis between the two maps moves a product." in said


def test_rates_by_a_schedule_given_by_hand(run: Run, tmp_path: Path) -> None:
    folder, table = saved(list(linear()), tmp_path / "run"), tmp_path / "rates.csv"
    options = ("--weight-decay", "0.02", "--optimiser", "sgd", "--momentum", "0")
    store = ("--store", tmp_path / "store")
    assert run("track", folder, "--learning-rate", "0.1", *options, *store, "--csv-table", "rates",
               "--csv", table).code == 0  # fmt: skip
    rows = table.read_text().splitlines()
    assert len(rows) == 3
    assert rows[1].startswith("0-2,all,rate,")
    logged = run("track", folder, "--learning-rate", "100:0.1,1200:0.1", *options, *store)
    assert "2 pairs: rate 1.00" in logged.out
    assert "rates of ‖A - B‖ in decay time; schedule: given; optimiser: sgd" in logged.out
    assert "neither a number nor" in run("track", folder, "--learning-rate", "high").err
    by_names = ("--weight-decay", "[02].*:0.02,4.*:0.01", "--optimiser", "sgd")
    grouped = run("track", folder, "--learning-rate", "0.1", *by_names, *store)
    assert "1 pair: rate 1.00" in grouped.out
    assert "1 pair: mixed-decay" in grouped.out
    assert "neither a number nor NAMES" in run("track", folder, "--weight-decay", "a:1,2").err


def test_heads_and_health_are_printed_and_written(run: Run, tmp_path: Path) -> None:
    made = gpts(0, steps=3, since=1, plants=[equal_keys, dead_neurons])
    folder = saved_gpts(made, tmp_path / "a")
    store = ("--store", tmp_path / "store")
    answer = run("track", folder, "--only", "heads,health", *store)
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["network", "Dead", "neurons", "0", "7", "–"] in lines
    distinct = ["key", "heads", "Distinct", "heads", "2", "layers", "4", "3.50", "4", "functional"]
    assert distinct in lines
    assert ["key", "heads", "near-copies", "1", "0", "1", "by", "10", "0"] in lines
    assert (
        "dead: layer.0.mlp: 7 dead neurons at checkpoint-20; the first step with any is "
        "checkpoint-10"
    ) in " ".join(answer.out.split())
    assert "or two heads" in " ".join(answer.out.split())
    assert "Medians over pairs" not in answer.out
    table = tmp_path / "curves.csv"
    run("track", folder, "--only", "heads,health", *store, "--csv", table, "--csv-table", "curves")
    header, *rows = [line.split(",") for line in table.read_text().splitlines()]
    assert header[-3:] == ["label", "run", "part"]
    assert {row[-1] for row in rows} == {"heads", "health"}
    dead = [row for row in rows if row[2:6] == ["layer.0.mlp", "mlp", "0", "dead_neurons"]]
    assert [(row[1], row[6], row[7]) for row in dead] == [
        ("0", "0.0", ""), ("10", "7.0", ""), ("20", "7.0", "")
    ]  # fmt: skip
    assert "is not among health, pairs" in run("track", folder, "--only", "head").err
