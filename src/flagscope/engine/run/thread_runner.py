"""Runs tasks in threads of this process, as many at once as memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.slots import TASK_MEMORY
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.arrivals import Arrivals
from flagscope.engine.run.attempt import attempt
from flagscope.engine.run.freed_memory import return_freed_memory
from flagscope.engine.run.outcome import Outcome
from flagscope.engine.run.torch_threads import torch_threads
from flagscope.engine.settings import Settings


def run_in_threads(
    tasks: Sequence[Task],
    slots: Sequence[int],
    tensors: TensorCache,
    settings: Settings,
    *,
    workers: int,
    memory: int = TASK_MEMORY,
) -> Generator[list[tuple[int, Outcome]]]:
    """Yield batches of (task index, outcome) as tasks finish.

    Parameters
    ----------
    tasks
        In the order in which they start.
    slots
        From `slots_per_task`.
    tensors
        Cache for these tasks.
    settings
        Of the scan.
    workers
        Number of slots.
    memory
        Bytes for all concurrent tasks and the tensors cached for them. Before a task that runs
        alone, cached tensors are evicted until it has room.
    """
    if workers == 1:
        for index, task in enumerate(tasks):
            tensors.limit(memory - task.bytes_working)
            tensors.prefetch(index + 1)
            yield [(index, _attempt(task, index, tensors, settings))]
        return
    cores = torch.get_num_threads()
    arrivals: Arrivals[Outcome] = Arrivals()
    pending, free, running = deque(range(len(tasks))), workers, 0
    with torch_threads(workers):
        pool = ThreadPoolExecutor(workers)
        try:
            while pending or running:
                while pending and slots[pending[0]] <= free:
                    index = pending.popleft()
                    alone = slots[index] == workers
                    tensors.limit(memory - alone * tasks[index].bytes_working)
                    free, running = free - slots[index], running + 1
                    threads = max(1, cores * slots[index] // workers)
                    future = pool.submit(
                        _attempt_in_thread, threads, tasks[index], index, tensors, settings
                    )
                    arrivals.watch(index, future)
                if pending:
                    tensors.prefetch(pending[0])
                batch = arrivals.batch(wait=True)
                for index, _ in batch:
                    free, running = free + slots[index], running - 1
                yield [(index, future.result()) for index, future in batch]
        finally:
            # If the scan is interrupted, tasks that have not started are cancelled.
            pool.shutdown(cancel_futures=True)


def _attempt_in_thread(
    threads: int, task: Task, index: int, tensors: TensorCache, settings: Settings
) -> Outcome:
    # The setting holds for the thread that sets it, unless this thread has not queried PyTorch
    # before: then PyTorch takes the number that another thread set last.
    torch.get_num_threads()
    torch.set_num_threads(threads)
    return _attempt(task, index, tensors, settings)


def _attempt(task: Task, index: int, tensors: TensorCache, settings: Settings) -> Outcome:
    try:
        return attempt(task, tensors, settings)
    finally:
        tensors.finish(index)
        return_freed_memory(task.bytes_working)
