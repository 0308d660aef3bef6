"""Watching a training: measurements of the weights at set steps, loggers and alerts."""

from flagscope.monitor.alerts import Alert
from flagscope.monitor.loggers import Logger, MLflowLogger, TensorBoardLogger, WandbLogger
from flagscope.monitor.measurement import Measurement
from flagscope.monitor.monitor import AlignmentMonitor
from flagscope.monitor.schedule import Part, Schedule

__all__ = [
    "Alert",
    "AlignmentMonitor",
    "Logger",
    "MLflowLogger",
    "Measurement",
    "Part",
    "Schedule",
    "TensorBoardLogger",
    "WandbLogger",
]
