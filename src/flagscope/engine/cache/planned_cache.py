"""Cache of values whose future uses are known, shared by the threads that run tasks.

A value is dropped after the last task that needs it. Where memory is short, the value needed
furthest in the future is evicted first (Belády, IBM Systems Journal 5, 1966).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

# Index of the next use of a key that no later task needs: after every task.
_NEVER = 2**62

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry:
    value: object
    size: int  # bytes that evicting it frees


class PlannedCache:
    """Values by key; each is computed by one thread while the others wait for it.

    Parameters
    ----------
    needs
        Keys that each task needs, in the order in which tasks start.
    budget
        Bytes kept at most. The memory of the tasks themselves is not counted.

    Attributes
    ----------
    bytes, budget
        Bytes kept now, and allowed now.
    most_bytes
        The most bytes kept so far.
    """

    def __init__(self, needs: Sequence[Iterable[Hashable]], budget: int) -> None:
        self._needs = [tuple(keys) for keys in needs]
        self._users: dict[Hashable, set[int]] = {}  # tasks yet to run, by key
        for task, keys in enumerate(self._needs):
            for key in keys:
                self._users.setdefault(key, set()).add(task)
        self._first_budget = self.budget = budget
        self._lock = Lock()
        self._entries: dict[Hashable, _Entry] = {}
        self._making: dict[Hashable, Future[None]] = {}
        self.bytes = self.most_bytes = 0

    @property
    def keys(self) -> set[Hashable]:
        """Keys of the values kept now."""
        with self._lock:
            return set(self._entries)

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of a key, computed if it is not in the cache.

        Parameters
        ----------
        key
            Values of one key have one type.
        make
            Computes the value; its exceptions are raised here.
        size
            Bytes of the value.
        """
        while True:
            with self._lock:
                if key in self._entries:
                    return self._entries[key].value  # pyright: ignore[reportReturnType] (of its key)
                making = self._making.get(key)
                if making is None:
                    self._making[key] = Future()
            if making is None:
                break
            # Another thread computes it. If that fails, or there is no room to keep the value,
            # this thread computes it again, so that an error is raised in the task that needs it.
            making.result()
        try:
            value = make()
            with self._lock:
                self._keep(key, _Entry(value, size(value)))
            return value
        finally:
            with self._lock:
                done = self._making.pop(key)
            done.set_result(None)

    def is_present(self, key: Hashable) -> bool:
        """Whether a value is in the cache, or is being computed."""
        with self._lock:
            return key in self._entries or key in self._making

    def is_shared(self, key: Hashable) -> bool:
        """Whether a value is in the cache, or several tasks yet to run need it."""
        with self._lock:
            return key in self._entries or len(self._users.get(key, ())) > 1

    def make_room(self, size: int, *, task: int) -> bool:
        """Evict values needed after a task until `size` bytes are free; False if it is impossible.

        If it is impossible, nothing is evicted.
        """
        with self._lock:
            return self._make_room(size, task)

    def limit(self, budget: int) -> None:
        """Lower the budget to this many bytes, or raise it again up to the initial one."""
        with self._lock:
            self.budget = min(self._first_budget, max(0, budget))
            self._make_room(0, task=-1)

    def finish(self, task: int) -> None:
        """Drop the values that no task after this one needs."""
        with self._lock:
            for key in self._needs[task]:
                self._users[key].discard(task)
                if not self._users[key]:
                    self._drop(key)

    def clear(self) -> None:
        """Drop all values."""
        with self._lock:
            self._entries.clear()
            self.bytes = 0

    # Callers of the methods below hold the lock.

    def _keep(self, key: Hashable, entry: _Entry) -> None:
        if not self._make_room(entry.size, self._next_use(key)):
            return
        self._entries[key] = entry
        self.bytes += entry.size
        self.most_bytes = max(self.most_bytes, self.bytes)

    def _make_room(self, size: int, task: int) -> bool:
        later = sorted(
            (key for key in self._entries if self._next_use(key) > task), key=self._next_use
        )
        free = self.budget - self.bytes
        if size > free + sum(self._entries[key].size for key in later):
            return False
        while later and size > self.budget - self.bytes:
            self._drop(later.pop())
        return True

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def _next_use(self, key: Hashable) -> int:
        return min(self._users.get(key, ()), default=_NEVER)
