"""Runs tasks on an executor, whose workers may be on other machines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Executor, Future

from flagscope.checkpoint import Checkpoint
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.plan.tasks import Task
from flagscope.engine.run.arrivals import Arrivals
from flagscope.engine.run.executors import submit, task_outcome, threads_per_process
from flagscope.engine.run.outcome import Outcome
from flagscope.engine.run.proof import Proven, Verifier
from flagscope.engine.run.remote_task import RemoteTask
from flagscope.engine.settings import Settings


def run_on_executor(
    executor: Executor,
    tasks: Sequence[Task],
    tensors: TensorCache,
    checkpoint: Checkpoint,
    settings: Settings,
) -> Generator[list[tuple[int, Outcome]]]:
    """Yield batches of (task index, outcome) as tasks finish, even while others are submitted.

    Parameters
    ----------
    executor
        Left open.
    tasks
        In the order in which they are submitted.
    tensors
        Cache for these tasks, which workers in this process share.
    checkpoint, settings
        Of the scan.
    """
    arrivals: Arrivals[Outcome | Proven] = Arrivals()
    waiting: dict[int, Future[Outcome | Proven]] = {}
    verifier = Verifier(checkpoint)
    submitted = 0
    threads = threads_per_process(executor)
    try:
        while submitted < len(tasks) or waiting:
            if submitted < len(tasks):
                remote = RemoteTask(
                    tasks[submitted], checkpoint, settings,
                    threads=threads, tensors=tensors, index=submitted,
                )  # fmt: skip
                waiting[submitted] = submit(executor, remote)
                arrivals.watch(submitted, waiting[submitted])
                submitted += 1
            # Finished tasks are stored together, so that a slow disk keeps up with them.
            batch = arrivals.batch(wait=submitted == len(tasks))
            for index, _ in batch:
                del waiting[index]
            if batch:
                yield [
                    (index, verifier.accepted(tasks[index], task_outcome(tasks[index], future)))
                    for index, future in batch
                ]
    finally:
        for future in waiting.values():
            future.cancel()
