"""Loggers: where the numbers of a measurement are sent. Their packages are imported on use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flagscope.errors import MissingExtraError

if TYPE_CHECKING:
    from flagscope.monitor.alerts import Alert

PREFIX = "flagscope/"


class Logger:
    """What a monitor sends to a logger. A logger of your own overrides what it needs."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take the numbers of a measurement, by the names of `flagscope.monitor.scalars`."""

    def artifact(self, path: Path) -> None:
        """Take the file with the whole scan of a measurement."""

    def alert(self, alert: Alert) -> None:
        """Take an alert."""

    def close(self) -> None:
        """Write what is left; the monitor is done."""


class TensorBoardLogger(Logger):
    """Numbers and alerts for TensorBoard, which has no place for files.

    Parameters
    ----------
    writer
        A `torch.utils.tensorboard.SummaryWriter`, which stays open, or a folder to write to.

    Raises
    ------
    MissingExtraError
        If a folder is given and tensorboard is not installed.
    """

    def __init__(self, writer: Any) -> None:
        self._own = isinstance(writer, (str, os.PathLike))
        if self._own:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingExtraError(
                    "tensorboard is not installed", hint="pip install tensorboard"
                ) from error
            writer = SummaryWriter(os.fspath(writer))
        self._writer = writer

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add a scalar for each number."""
        for name, value in scalars.items():
            self._writer.add_scalar(PREFIX + name, value, step)
        self._writer.flush()

    def alert(self, alert: Alert) -> None:
        """Add the sentence to the texts."""
        self._writer.add_text(f"{PREFIX}alerts/{alert.code}", alert.text, alert.step)

    def close(self) -> None:
        """Close a writer that was made here."""
        if self._own:
            self._writer.close()


class WandbLogger(Logger):
    """Numbers, alerts and scans for a run of Weights & Biases.

    Numbers are drawn over a step of their own, `flagscope/step`: steps of a run may only grow, and
    the training counts them too.

    Parameters
    ----------
    run
        What `wandb.init()` returns, also with `mode="offline"`. The run stays open.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric(f"{PREFIX}step")
        run.define_metric(f"{PREFIX}*", step_metric=f"{PREFIX}step")

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log all numbers at once."""
        named = {PREFIX + name: value for name, value in scalars.items()}
        self._run.log({f"{PREFIX}step": step, **named})

    def artifact(self, path: Path) -> None:
        """Log the file as a version of one artifact."""
        self._run.log_artifact(os.fspath(path), name=f"flagscope-{self._run.id}", type="flagscope")

    def alert(self, alert: Alert) -> None:
        """Send an alert of Weights & Biases."""
        self._run.alert(
            title=f"flagscope: {alert.code}", text=f"step {alert.step}: {alert.text}", level="WARN"
        )


class MLflowLogger(Logger):
    """Numbers, alerts (as files) and scans for a run of MLflow.

    Parameters
    ----------
    run_id
        Of the run; None for the one that is active, of which MLflow starts one if there is none.

    Raises
    ------
    MissingExtraError
        If mlflow is not installed.
    """

    def __init__(self, run_id: str | None = None) -> None:
        try:
            import mlflow  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingExtraError("mlflow is not installed", hint="pip install mlflow") from error
        self._mlflow, self._run_id = mlflow, run_id

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log all numbers at once."""
        named = {PREFIX + name: value for name, value in scalars.items()}
        self._mlflow.log_metrics(named, step=step, run_id=self._run_id)

    def artifact(self, path: Path) -> None:
        """Log the file below `flagscope`."""
        self._mlflow.log_artifact(os.fspath(path), "flagscope", run_id=self._run_id)

    def alert(self, alert: Alert) -> None:
        """Keep the alert next to the numbers, as a file of its own."""
        name = f"flagscope/alerts/{alert.code}-{alert.step}.json"
        self._mlflow.log_dict(alert.to_dict(), name, run_id=self._run_id)
