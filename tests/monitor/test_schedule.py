"""Schedules: fixed once by a calibration, and by the step number alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

from flagscope.monitor import monitor as module
from flagscope.monitor.monitor import AlignmentMonitor
from flagscope.monitor.schedule import Part, Schedule, fitted_schedule
from monitor.nets import gpt, mlp

WHOLE = Part("all", ("pairs",), None)
PARTS = [Part(name, ("pairs",), (name,)) for name in ("qk", "ov", "mlp")]


class Clock:
    """Time that passes only as a test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def run(monitor: AlignmentMonitor, clock: Clock, steps: range, seconds: float = 1.0) -> list[int]:
    measured = []
    for step in steps:
        clock.now += seconds
        if monitor.step(step) is not None:
            measured.append(step)
    return measured


@pytest.fixture
def costs(monkeypatch, clock):
    """Each part takes what is said here; a real measurement of health stands in for it."""
    seconds = {"all": 1.5}
    parts = [Part(name, ("health",), None) for name in ("qk", "heads")]
    real = module.measured

    def measured(*given: Any, part: Part, **more: Any) -> Any:
        clock.now += seconds[part.name]
        return real(*given, part=Part(part.name, ("health",), None), **more)

    monkeypatch.setattr(module, "measured", measured)
    monkeypatch.setattr(module, "parts_in", lambda *_: parts)
    monkeypatch.setattr(module, "part_seconds", lambda *_: [0.5, 1.0])
    return seconds


def test_the_calibration_fixes_the_steps_for_the_budget(clock, costs):
    monitor = AlignmentMonitor(mlp(), budget=0.01)
    assert monitor.schedule is None
    assert run(monitor, clock, range(1, 1001)) == [215, 430, 645, 860]
    assert monitor.schedule == Schedule(215, (WHOLE_AS_GIVEN,), (1.5,), 26)
    assert monitor.gaps == []


WHOLE_AS_GIVEN = Part("all", ("health", "pairs", "heads", "residual"), None)


def test_a_network_that_takes_long_is_measured_part_by_part():
    schedule = fitted_schedule(WHOLE, PARTS, [30, 20, 10], step_seconds=1, budget=0.01, after=26)
    assert schedule.every == 4286
    turns = [schedule.part_at(4286 * turn) for turn in range(1, 7)]
    assert [part.name for part in turns if part] == ["ov", "mlp", "qk", "ov", "mlp", "qk"]


def test_a_measurement_over_the_budget_is_a_gap_and_the_steps_stay(clock, costs, tmp_path):
    monitor = AlignmentMonitor(mlp(), budget=0.01, out=tmp_path)
    run(monitor, clock, range(1, 300))
    costs["all"] = 4.0
    assert run(monitor, clock, range(300, 1300)) == [430, 860, 1290]
    assert monitor.gaps == [(step, "over the budget of 1 %") for step in (645, 1075)]
    lines = [json.loads(line) for line in (tmp_path / "monitor.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "gap"] == [645, 1075]
    assert lines[0]["kind"] == "schedule"
    assert lines[0]["every"] == 215


def test_a_schedule_survives_json():
    schedule = Schedule(5, tuple(PARTS), (1.0, 2.0, 3.0), 26)
    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_a_resumed_training_is_not_calibrated_again(clock, costs):
    monitor = AlignmentMonitor(mlp(), budget=0.01)
    run(monitor, clock, range(1, 100))
    again = AlignmentMonitor(mlp(), budget=0.01)
    again.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert again.schedule == monitor.schedule
    assert run(again, clock, range(50, 300)) == [215]


def test_the_parts_of_a_gpt_cover_what_a_scan_measures():
    from flagscope.monitor.calibration import part_seconds, parts_in

    state, settings = gpt().state_dict(), {"config": {"model_type": "gpt2", "n_head": 2}}
    parts = parts_in(state, WHOLE_AS_GIVEN, settings)
    assert [part.name for part in parts] == ["mlp", "ov", "qk", "heads", "residual"]
    assert all("health" in part.only for part in parts)
    assert all(seconds > 0 for seconds in part_seconds(state, parts, settings))
    assert [p.name for p in parts_in(state, Part("all", ("pairs",), ("qk",)), settings)] == ["qk"]


def test_a_real_calibration_measures_each_part():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    monitor = AlignmentMonitor(net, budget=0.9)
    for step in range(1, 40):
        torch.ones(100, 100) @ torch.ones(100, 100)
        monitor.step(step)
    assert monitor.schedule is not None
    assert monitor.schedule.after == 26
    assert monitor.schedule.seconds[0] > 0
