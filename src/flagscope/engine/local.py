"""Tasks carried out in threads of this process, as many at once as memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from queue import SimpleQueue

import torch

from flagscope.engine.attempt import attempt
from flagscope.engine.executors import Outcome
from flagscope.engine.plan import Task
from flagscope.engine.settings import Settings
from flagscope.engine.tensors import Tensors

_MOST_WORKERS = 4
# Enough for a layer of a model of 7 billion parameters, whose eigenproblems take 2 GB.
MEMORY = 3_000_000_000
# The part of it in which tensors are held for tasks to come.
_HELD = 0.25


def default_workers() -> int:
    """Tasks at once: one for each of PyTorch's threads, at most four."""
    return min(torch.get_num_threads(), _MOST_WORKERS)


def held_bytes(memory: int) -> int:
    """Bytes of tensors that may be held for tasks to come."""
    return int(_HELD * memory)


def slots(tasks: Sequence[Task], *, workers: int, room: float) -> list[int]:
    """How many of the slots for tasks at once each task takes, and with them of the cores.

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
        Bytes that tasks at once may take beside the tensors that are held for all.
    """
    found: list[int] = []
    for large, run in groupby(tasks, key=lambda task: workers * task.bytes_working > room):
        count = len(list(run))
        each = workers if large else max(1, workers // count)
        found += [each] * count
    return found


def carried_out_here(
    tasks: Sequence[Task],
    taken: Sequence[int],
    tensors: Tensors,
    settings: Settings,
    *,
    workers: int,
    memory: int = MEMORY,
) -> Generator[list[tuple[int, Outcome]]]:
    """(place of the task, its outcome) as they come; those that wait at one time together.

    Parameters
    ----------
    tasks
        In the order in which they begin.
    taken
        From `slots`.
    tensors
        Of these tasks.
    settings
        Of the scan.
    workers
        Number of slots.
    memory
        Bytes for all tasks at once and the tensors held for them: a task that runs alone has those
        held go that it leaves no room for.
    """
    if workers == 1:
        for place, task in enumerate(tasks):
            tensors.limit(memory - task.bytes_working)
            tensors.prefetch(place + 1)
            yield [(place, _carried_out(task, place, tensors, settings))]
        return
    cores = torch.get_num_threads()
    arrived: SimpleQueue[tuple[int, Future[Outcome]]] = SimpleQueue()
    pending, free, running = deque(range(len(tasks))), workers, 0
    with _torch_threads(max(1, cores // workers)):
        pool = ThreadPoolExecutor(workers)
        try:
            while pending or running:
                while pending and taken[pending[0]] <= free:
                    place = pending.popleft()
                    alone = taken[place] == workers
                    tensors.limit(memory - alone * tasks[place].bytes_working)
                    free, running = free - taken[place], running + 1
                    threads = max(1, cores * taken[place] // workers)
                    future = pool.submit(
                        _in_thread, threads, tasks[place], place, tensors, settings
                    )
                    future.add_done_callback(partial(_arrive, arrived, place))
                if pending:
                    tensors.prefetch(pending[0])
                batch = [arrived.get()]
                while not arrived.empty():
                    batch.append(arrived.get())
                for place, _ in batch:
                    free, running = free + taken[place], running - 1
                yield [(place, future.result()) for place, future in batch]
        finally:
            # Interrupted: what has not begun is not begun.
            pool.shutdown(cancel_futures=True)


def _arrive(
    arrived: SimpleQueue[tuple[int, Future[Outcome]]], place: int, future: Future[Outcome]
) -> None:
    arrived.put((place, future))


def _in_thread(
    threads: int, task: Task, place: int, tensors: Tensors, settings: Settings
) -> Outcome:
    # The number counts for the thread that sets it, unless PyTorch has yet to ask for the first
    # time in this thread: then it takes what another thread set last.
    torch.get_num_threads()
    torch.set_num_threads(threads)
    return _carried_out(task, place, tensors, settings)


def _carried_out(task: Task, place: int, tensors: Tensors, settings: Settings) -> Outcome:
    try:
        return attempt(task, tensors, settings)
    finally:
        tensors.finished(place)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """PyTorch's threads per operation, for a while.

    Most operations of a scan are small: several tasks at once with few threads each keep the
    cores busy where many threads on one operation wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
