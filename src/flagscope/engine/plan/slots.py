"""How many tasks run at once, and in how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from flagscope.engine.plan.tasks import Task

_MOST_WORKERS = 4
# Default bytes for all concurrent tasks and the cached tensors: enough for a layer of a model of
# 7 billion parameters, whose eigenproblems take 2 GB.
TASK_MEMORY = 3_000_000_000
# Share of the memory for tensors cached for later tasks.
_CACHED = 0.25


def default_workers() -> int:
    """Default number of tasks at once: one for each of PyTorch's threads, at most four."""
    return min(torch.get_num_threads(), _MOST_WORKERS)


def cache_bytes(memory: int) -> int:
    """Bytes of tensors that may be cached for later tasks."""
    return int(_CACHED * memory)


def slots_per_task(tasks: Sequence[Task], *, workers: int, room: float) -> list[int]:
    """Number of worker slots, and so of cores, given to each task.

    A task gets one slot if `workers` tasks of its size fit in memory together. A larger task takes
    all slots, runs alone and has all cores; between two such tasks, tasks too few to fill the slots
    share them. The plan alone decides, not the time that tasks take: sums over other numbers of
    threads may round differently, and a repeated scan must give the same digits. Sharp tasks share
    what they know of maps, so they get as many as the largest of them.

    Parameters
    ----------
    tasks
        In the order in which they start.
    workers
        Number of slots.
    room
        Bytes that concurrent tasks may take in addition to the cached tensors.
    """
    slots: list[int] = []
    sharp = max((task.bytes_working for task in tasks if task.sharp), default=0)

    def is_large(task: Task) -> bool:
        return workers * (sharp if task.sharp else task.bytes_working) > room

    for large, run in groupby(tasks, key=is_large):
        count = len(list(run))
        share = workers if large else max(1, workers // count)
        slots += [share] * count
    return slots
