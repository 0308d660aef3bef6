"""Background thread that prefetches the tensors of the next task while others compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Condition, Thread

import torch

from flagscope.engine.cache.planned_cache import PlannedCache
from flagscope.engine.cache.stored_tensor import StoredTensor
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.tasks import Task

_PAGE = 4096


class Prefetcher:
    """Thread that reads the tensors of the task requested last, as far as there is room.

    Errors are dropped: the task that needs the tensor reads it again and raises them.

    Parameters
    ----------
    tasks
        In the order in which they start.
    cache
        Where tensors are kept.
    read
        Reads a piece into the cache.
    """

    def __init__(
        self, tasks: Sequence[Task], cache: PlannedCache, read: Callable[[Piece], StoredTensor]
    ) -> None:
        self._tasks, self._cache, self._read = tasks, cache, read
        self._change = Condition()
        self._next: int | None = None
        self._requests = 0
        self._stopped = False
        self._thread = Thread(target=self._run, name="flagscope-prefetch", daemon=True)
        self._thread.start()

    def start(self, task: int) -> None:
        """Prefetch for a task, and abandon the previous one."""
        with self._change:
            self._next, self._requests = task, self._requests + 1
            self._change.notify()

    def stop(self) -> None:
        """Stop the thread and join it."""
        with self._change:
            self._stopped, self._requests = True, self._requests + 1
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopped or self._next is not None)
                if self._stopped or self._next is None:
                    return
                task, request, self._next = self._next, self._requests, None
            try:
                prefetch(
                    task,
                    self._tasks[task],
                    self._cache,
                    self._read,
                    is_wanted=lambda mine=request: self._requests == mine,
                )
            except Exception:
                continue


def prefetch(
    index: int,
    task: Task,
    cache: PlannedCache,
    read: Callable[[Piece], StoredTensor],
    *,
    is_wanted: Callable[[], bool],
) -> None:
    """Read the pieces of a task until the cache is full, or they are no longer wanted.

    Parameters
    ----------
    index
        Index of the task; values that earlier tasks need are not evicted.
    task, cache, read
        As for `Prefetcher`.
    is_wanted
        Asked before each piece.
    """
    for piece, size in task.pieces.items():
        present = cache.is_present(piece)
        if not (present or cache.make_room(size, task=index)) or not is_wanted():
            return
        if not present:
            _touch(read(piece).values)


def _touch(values: torch.Tensor) -> None:
    """Load every page of the tensor's memory: a mapped file is read only where it is touched."""
    if values.is_contiguous():
        values.view(-1).view(torch.uint8)[::_PAGE].max()
