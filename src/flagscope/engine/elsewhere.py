"""Tasks handed to an executor, whose workers may be on other machines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Executor, Future
from functools import partial
from queue import SimpleQueue

from flagscope.checkpoint import Checkpoint
from flagscope.engine.executors import Outcome, handed, settled, threads_elsewhere
from flagscope.engine.parcel import Parcel
from flagscope.engine.plan import Task
from flagscope.engine.proof import Proven, Verifier
from flagscope.engine.settings import Settings
from flagscope.engine.tensors import Tensors


def carried_out_by(
    executor: Executor,
    tasks: Sequence[Task],
    tensors: Tensors,
    checkpoint: Checkpoint,
    settings: Settings,
) -> Generator[list[tuple[int, Outcome]]]:
    """(place of the task, its outcome) as they come, also while tasks are still being submitted.

    Parameters
    ----------
    executor
        Is left open.
    tasks
        In the order in which they are submitted.
    tensors
        Of these tasks; workers in this process share them.
    checkpoint, settings
        Of the scan.
    """
    arrived: SimpleQueue[tuple[int, Future[Outcome | Proven]]] = SimpleQueue()
    waiting: dict[int, Future[Outcome | Proven]] = {}
    verifier = Verifier(checkpoint)
    begun = 0
    threads = threads_elsewhere(executor)
    try:
        while begun < len(tasks) or waiting:
            if begun < len(tasks):
                parcel = Parcel(
                    tasks[begun], checkpoint, settings,
                    threads=threads, tensors=tensors, place=begun,
                )  # fmt: skip
                future = handed(executor, parcel)
                waiting[begun] = future
                future.add_done_callback(partial(_arrive, arrived, begun))
                begun += 1
            # All that wait are stored at once, so that a slow disk is not left behind by the tasks.
            batch = [arrived.get()] if begun == len(tasks) else []
            while not arrived.empty():
                batch.append(arrived.get())
            for i, _ in batch:
                del waiting[i]
            if batch:
                yield [
                    (i, verifier.accepted(tasks[i], settled(tasks[i], future)))
                    for i, future in batch
                ]
    finally:
        for future in waiting.values():
            future.cancel()


def _arrive(
    arrived: SimpleQueue[tuple[int, Future[Outcome | Proven]]],
    place: int,
    future: Future[Outcome | Proven],
) -> None:
    arrived.put((place, future))
