"""Loggers: what they send, against stand-ins and, where they are installed, the real packages."""

from __future__ import annotations

import sqlite3
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from flagscope import scan
from flagscope.demo import checkpoints
from flagscope.errors import MissingExtraError
from flagscope.monitor import Alert, Logger, MLflowLogger, TensorBoardLogger, WandbLogger
from flagscope.monitor.monitor import AlignmentMonitor
from flagscope.monitor.scalars import scalars_of
from monitor.nets import gpt, mlp

ALERT = Alert("spike", 7, "h.0", "h.0 has norm 9, 3 before")


class Recorder(Logger):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def log(self, step, scalars):
        self.calls.append(("log", (step, dict(scalars))))

    def artifact(self, path):
        self.calls.append(("artifact", path.name))

    def alert(self, alert):
        self.calls.append(("alert", alert.code))

    def close(self):
        self.calls.append(("close", None))


def test_heads_that_are_merely_related_are_not_counted_as_near_copies():
    result = scan(checkpoints()[-1], only="heads", workers=1).result
    numbers = scalars_of(result, {})
    listed = [pair for head in result.heads for pair in head.near_copies]
    near = [
        pair for pair in listed
        if (pair.p_familywise or 0.0) <= 0.05
        and pair.mean_squared_cosine >= 0.5 * (1 + pair.mean_squared_cosine / pair.overlap_ratio)
    ]  # fmt: skip
    assert numbers["heads/near_copies"] == len(near)
    assert 0 < len(near) < len(listed)


class Calls:
    """A stand-in that records each call of a method."""

    def __init__(self, **values: Any) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        return lambda *given, **more: self.calls.append((name, given, more))


def test_a_logger_gets_numbers_scan_and_alerts(tmp_path):
    net, recorder, seen = mlp(), Recorder(), []
    net[0].weight.data[0, 0] = float("inf")
    with AlignmentMonitor(
        net, every=1, out=tmp_path, loggers=[recorder], on_alert=seen.append
    ) as monitor:
        measurement = monitor.step(3)
    assert measurement is not None
    assert recorder.calls == [
        ("log", (3, measurement.scalars)),
        ("artifact", "step-000000003.json"),
        ("alert", "not-finite"),
        ("close", None),
    ]
    assert seen == monitor.alerts
    assert [(alert.code, alert.step) for alert in seen] == [("not-finite", 3)]
    bare = Recorder()
    AlignmentMonitor(mlp(), every=1, loggers=[bare]).step(1)
    assert [name for name, _ in bare.calls] == ["log"]


def test_a_logger_that_fails_is_warned_of_and_the_others_are_not_affected():
    class Offline(Logger):
        def log(self, step, scalars):
            raise ConnectionError("no network")

    recorder = Recorder()
    monitor = AlignmentMonitor(mlp(), every=1, only="health", loggers=[Offline(), recorder])
    with pytest.warns(UserWarning, match="Offline failed at step 1: no network"):
        assert monitor.step(1) is not None
    assert [name for name, _ in recorder.calls] == ["log"]
    assert monitor.gaps == []


def test_on_alert_may_end_the_training(tmp_path):
    class BrokenError(Exception):
        pass

    def stop(alert: Alert) -> None:
        raise BrokenError(alert.code)

    net = mlp()
    net[0].weight.data[0, 0] = float("nan")
    monitor = AlignmentMonitor(net, every=1, only="health", on_alert=stop, out=tmp_path)
    with pytest.raises(BrokenError, match="not-finite"):
        monitor.step(1)
    assert len((tmp_path / "monitor.jsonl").read_text().splitlines()) == 2


def test_some_twenty_numbers_are_logged_of_a_gpt():
    measurement = AlignmentMonitor(gpt(), every=1).step(1)
    assert measurement is not None
    names = {f"pairs/{kind}/{number}" for kind in ("mlp", "ov", "qk", "residual")
             for number in ("gram_correlation", "overlap_ratio", "participation_min")}  # fmt: skip
    names |= {"pairs/beyond_chance", "heads/overlap_ratio_max", "heads/near_copies",
              "health/not_finite", "health/dead_neurons", "health/dead_heads", "weights/norm",
              "weights/block_norm_max"}  # fmt: skip
    assert set(measurement.scalars) <= names
    assert len(measurement.scalars) > 15
    pairs = [pair for pair in measurement.report.result.pairs if pair.kind == "qk"]
    mean = sum(pair.gram_correlation or 0 for pair in pairs) / len(pairs)
    assert measurement.scalars["pairs/qk/gram_correlation"] == pytest.approx(mean, rel=1e-12)
    least = min(min(p.participation_write or 99, p.participation_read or 99) for p in pairs)
    assert measurement.scalars["pairs/qk/participation_min"] == least
    ratios = [head.overlap_ratio or 0 for head in measurement.report.result.heads]
    assert measurement.scalars["heads/overlap_ratio_max"] == max(ratios)


def test_tensorboard_gets_a_curve_for_each_number():
    writer = Calls()
    logger = TensorBoardLogger(writer)
    logger.log(5, {"a/b": 1.5})
    logger.alert(ALERT)
    logger.close()
    assert writer.calls == [
        ("add_scalar", ("flagscope/a/b", 1.5, 5), {}),
        ("flush", (), {}),
        ("add_text", ("flagscope/alerts/spike", ALERT.text, 7), {}),
    ]


def test_wandb_gets_a_step_of_its_own():
    run = Calls(id="abc")
    logger = WandbLogger(run)
    logger.log(5, {"a": 1.5})
    logger.artifact(Path("x.json"))
    logger.alert(ALERT)
    logger.close()
    assert run.calls == [
        ("define_metric", ("flagscope/step",), {}),
        ("define_metric", ("flagscope/*",), {"step_metric": "flagscope/step"}),
        ("log", ({"flagscope/step": 5, "flagscope/a": 1.5},), {}),
        ("log_artifact", ("x.json",), {"name": "flagscope-abc", "type": "flagscope"}),
        ("alert", (), {"title": "flagscope: spike", "text": f"step 7: {ALERT.text}",
                       "level": "WARN"}),
    ]  # fmt: skip


def test_mlflow_gets_numbers_and_files(monkeypatch):
    package: Any = types.ModuleType("mlflow")
    calls = Calls()
    for name in ("log_metrics", "log_artifact", "log_dict"):
        setattr(package, name, getattr(calls, name))
    monkeypatch.setitem(sys.modules, "mlflow", package)
    logger = MLflowLogger("run")
    logger.log(5, {"a": 1.5})
    logger.artifact(Path("x.json"))
    logger.alert(ALERT)
    assert calls.calls == [
        ("log_metrics", ({"flagscope/a": 1.5},), {"step": 5, "run_id": "run"}),
        ("log_artifact", ("x.json", "flagscope"), {"run_id": "run"}),
        ("log_dict", (ALERT.to_dict(), "flagscope/alerts/spike-7.json"), {"run_id": "run"}),
    ]


@pytest.mark.parametrize(
    ("package", "make"),
    [("mlflow", MLflowLogger), ("torch.utils.tensorboard", lambda: TensorBoardLogger("nowhere"))],
)
def test_a_missing_package_is_named(package, make, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"is not installed"):
        make()


# The real packages, where they are installed -----------------------------------------------------


def watched(folder: Path, logger: Logger) -> dict[str, float]:
    with AlignmentMonitor(mlp(), every=1, out=folder, loggers=[logger]) as monitor:
        measurement = monitor.step(1)
    logger.alert(ALERT)
    assert measurement is not None
    return measurement.scalars


@pytest.mark.filterwarnings("ignore")
def test_the_real_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "board"))
    scalars = watched(tmp_path, TensorBoardLogger(writer))
    writer.close()
    read = EventAccumulator(str(tmp_path / "board"))
    read.Reload()
    assert {tag.removeprefix("flagscope/") for tag in read.Tags()["scalars"]} == set(scalars)
    event = read.Scalars("flagscope/weights/norm")[0]
    assert (event.step, event.value) == (1, pytest.approx(scalars["weights/norm"], rel=1e-6))


@pytest.mark.filterwarnings("ignore")
def test_the_real_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=tmp_path, project="p") as run:
        scalars = watched(tmp_path, WandbLogger(run))
        assert run.summary["flagscope/weights/norm"] == scalars["weights/norm"]
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy", reason="MLflow writes to SQLite with it")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = mlflow.create_experiment("e", artifact_location=str(tmp_path / "files"))
    with mlflow.start_run(experiment_id=experiment) as run:
        scalars = watched(tmp_path, MLflowLogger(run.info.run_id))
    with sqlite3.connect(tmp_path / "mlflow.db") as base:
        rows = dict(base.execute("select key, value from metrics where step = 1").fetchall())
    base.close()
    assert rows == {f"flagscope/{name}": value for name, value in scalars.items()}
    assert len(list((tmp_path / "files").rglob("*.json"))) == 2
