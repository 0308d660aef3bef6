"""Each line of `monitor.jsonl` follows its published schema, which an independent reader checks."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import flagscope
from flagscope.monitor import monitor as module
from flagscope.records.monitor_lines import MonitorLine
from flagscope.schema import MONITOR_SCHEMA_FILE, monitor_schema
from monitor.nets import mlp


def _lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "monitor.jsonl").read_text().splitlines()]


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Lines of all kinds: a schedule from a calibration, measurements, an alert, and a gap."""
    net = mlp()
    with flagscope.AlignmentMonitor(net, budget=0.5, only="health", out=tmp_path / "a") as monitor:
        for step in range(40):
            monitor.step(step)
    with flagscope.AlignmentMonitor(net, every=1, only="health", out=tmp_path / "b") as monitor:
        monitor.step(1)
        next(net.parameters()).data.view(-1)[0] = torch.nan
        monitor.step(2)
        monkeypatch.setattr(module, "measured", lambda *_, **__: 1 / 0)
        with pytest.warns(UserWarning, match="not measured"):
            monitor.step(3)
    return [*_lines(tmp_path / "a"), *_lines(tmp_path / "b")]


def test_every_line_follows_it(lines: list[dict]) -> None:
    schema = monitor_schema()
    assert json.loads(MONITOR_SCHEMA_FILE.read_text(encoding="utf-8")) == schema
    validator = jsonschema.Draft202012Validator(schema)
    for line in lines:
        validator.validate(line)
        assert MonitorLine.model_validate(line).model_dump(by_alias=True) == line
    assert {line["kind"] for line in lines} == {"schedule", "measurement", "alert", "gap"}
    assert {line["schema"] for line in lines} == {"flagscope.monitor/1"}


@pytest.mark.parametrize("wrong", [{"kind": "scan"}, {"step": "1"}, {"schema": "flagscope.scan/2"}])
def test_other_lines_do_not(wrong: dict, lines: list[dict]) -> None:
    validator = jsonschema.Draft202012Validator(monitor_schema())
    assert not validator.is_valid({**lines[0], **wrong})
    assert not validator.is_valid({k: v for k, v in lines[0].items() if k != "step"})
