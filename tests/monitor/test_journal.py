"""The record on disk: whole lines, no step twice, also after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flagscope.monitor.journal import Journal
from flagscope.monitor.monitor import AlignmentMonitor
from monitor.nets import mlp, train


def lines(folder: Path, name: str = "monitor.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def without_times(folder: Path) -> list[dict]:
    return [{**line, "seconds": None} for line in lines(folder)]


def test_a_resumed_training_gives_the_lines_of_one_that_ran_through(tmp_path):
    whole = mlp()
    monitor = AlignmentMonitor(whole, every=2, only="health", out=tmp_path / "whole")
    states = {}
    train(whole, 8, after=lambda step: (monitor.step(step), states.update({step: saved(monitor)})))

    again = AlignmentMonitor(mlp(), every=2, only="health", out=tmp_path / "parts")
    train(mlp(), 6, after=again.step)
    before = without_times(tmp_path / "parts")
    resumed = AlignmentMonitor(mlp(), every=2, only="health", out=tmp_path / "parts")
    resumed.load_state_dict(states[4])  # a checkpoint of step 4: step 6 comes again
    train(mlp(), 4, first=5, after=resumed.step)
    assert [line["step"] for line in without_times(tmp_path / "parts")] == [2, 4, 6, 8]
    assert without_times(tmp_path / "parts")[:2] == before[:2]
    assert [line["step"] for line in lines(tmp_path / "parts", "rolled-back.jsonl")] == [6]


def saved(monitor: AlignmentMonitor) -> dict:
    return json.loads(json.dumps(monitor.state_dict()))


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_the_half_line_of_a_killed_process_is_passed_over(tmp_path, cut):
    journal = Journal(tmp_path)
    for step in (0, 5, 10):
        journal.append({"step": step, "kind": "gap", "reason": "x" * 60})
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-cut])
    assert [line["step"] for line in journal.lines()] == [0, 5]
    assert journal.cut_from(8) == 0
    journal.append({"step": 10, "kind": "gap"})
    assert [line["step"] for line in lines(tmp_path)] == [0, 5, 10]


def test_a_training_that_starts_anew_in_the_folder_starts_anew_there(tmp_path):
    for _ in range(2):
        monitor = AlignmentMonitor(mlp(), every=1, only="health", out=tmp_path)
        for step in range(3):
            monitor.step(step)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2]
    assert len(lines(tmp_path, "rolled-back.jsonl")) == 3


def test_a_loop_that_goes_back_within_the_process_measures_again(tmp_path):
    monitor = AlignmentMonitor(mlp(), every=1, only="health", out=tmp_path)
    monitor.step(1)
    state = monitor.state_dict()
    monitor.step(2)
    monitor.load_state_dict(state)
    assert monitor.step(2) is not None
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_lines_are_json_also_of_weights_that_are_not_finite(tmp_path):
    net = mlp()
    net[0].weight.data[0, 0] = float("nan")
    AlignmentMonitor(net, every=1, only="health", out=tmp_path).step(1)
    first, second = lines(tmp_path)
    assert first["norms"]["0"] is None
    assert "weights/norm" not in first["scalars"]
    assert second["code"] == "not-finite"
