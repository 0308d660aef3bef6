"""Joins files to mathematics: a scan is a plan of tasks, each of which reads its own tensors."""

from flagscope.engine.across import all_head_overlaps
from flagscope.engine.coverage import coverage_of
from flagscope.engine.estimate import Estimate, estimated
from flagscope.engine.execute import resolved_device
from flagscope.engine.executors import chosen_executor, width
from flagscope.engine.local import MEMORY
from flagscope.engine.plan import Task, plan
from flagscope.engine.run import Progress, run_scan
from flagscope.engine.settings import Settings
from flagscope.engine.store import Store
from flagscope.engine.weights import Weights, parameter_count, weights_of

__all__ = [
    "MEMORY",
    "Estimate",
    "Progress",
    "Settings",
    "Store",
    "Task",
    "Weights",
    "all_head_overlaps",
    "chosen_executor",
    "coverage_of",
    "estimated",
    "parameter_count",
    "plan",
    "resolved_device",
    "run_scan",
    "weights_of",
    "width",
]
