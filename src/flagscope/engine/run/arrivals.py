"""Finished tasks, in the order in which they finish."""

from __future__ import annotations

from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Arrivals(Generic[T]):
    """Queue of finished futures, each with the index of its task."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[int, Future[T]]] = SimpleQueue()

    def watch(self, index: int, future: Future[T]) -> None:
        """Queue a future as soon as it is done."""
        future.add_done_callback(lambda done: self._queue.put((index, done)))

    def batch(self, *, wait: bool) -> list[tuple[int, Future[T]]]:
        """All futures that finished since the last call; with `wait`, at least one."""
        batch = [self._queue.get()] if wait else []
        while not self._queue.empty():
            batch.append(self._queue.get())
        return batch
