"""Runs scans: plans tasks, reads and caches their tensors, runs them, and stores their results."""

from flagscope.engine.device import resolved_device
from flagscope.engine.head_overlaps import all_head_overlaps, unplaced_matrices
from flagscope.engine.plan.coverage import coverage_of
from flagscope.engine.plan.depth import is_sharp
from flagscope.engine.plan.estimate import Estimate, estimated
from flagscope.engine.plan.health_tasks import health_tasks
from flagscope.engine.plan.slots import TASK_MEMORY, default_workers
from flagscope.engine.plan.tasks import Task, plan
from flagscope.engine.plan.weights import Weights, main_dtype, weights_of
from flagscope.engine.run.executors import chosen_executor, max_concurrency
from flagscope.engine.run.freed_memory import return_freed_memory
from flagscope.engine.run.peak_memory import peak_rss
from flagscope.engine.run.torch_threads import torch_threads
from flagscope.engine.scan import Progress, run_scan
from flagscope.engine.settings import Settings
from flagscope.engine.store.store import Store

__all__ = [
    "TASK_MEMORY",
    "Estimate",
    "Progress",
    "Settings",
    "Store",
    "Task",
    "Weights",
    "all_head_overlaps",
    "chosen_executor",
    "coverage_of",
    "default_workers",
    "estimated",
    "health_tasks",
    "is_sharp",
    "main_dtype",
    "max_concurrency",
    "peak_rss",
    "plan",
    "resolved_device",
    "return_freed_memory",
    "run_scan",
    "torch_threads",
    "unplaced_matrices",
    "weights_of",
]
