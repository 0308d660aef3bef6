"""How many tasks run at once, and in how much memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from flagscope.engine.plan.tasks import Task

_MOST_WORKERS = 4
# Bytes that all tasks at once and the cached tensors take by default: enough for a layer of a model
# of 7 billion parameters, whose eigenproblems take 2 GB.
TASK_MEMORY = 3_000_000_000
# The part of it for tensors cached for tasks to come.
_CACHED = 0.25


def default_workers() -> int:
    """Tasks at once: one for each of PyTorch's threads, at most four."""
    return min(torch.get_num_threads(), _MOST_WORKERS)


def cache_bytes(memory: int) -> int:
    """Bytes of tensors that may be cached for tasks to come."""
    return int(_CACHED * memory)


def slots_per_task(tasks: Sequence[Task], *, workers: int, room: float) -> list[int]:
    """Number of worker slots, and so of cores, given to each task.

    One, if that many tasks of its size have room together. A larger task takes all slots, runs
    alone and has all cores; tasks too few to fill the slots between two such ones share them. The
    plan alone decides, not the time that tasks take: sums over other numbers of threads may round
    differently, and a scan repeated is to give the same digits.

    Parameters
    ----------
    tasks
        In the order in which they begin.
    workers
        Number of slots.
    room
        Bytes that tasks at once may take next to the cached tensors.
    """
    slots: list[int] = []
    for large, run in groupby(tasks, key=lambda task: workers * task.bytes_working > room):
        count = len(list(run))
        each = workers if large else max(1, workers // count)
        slots += [each] * count
    return slots
