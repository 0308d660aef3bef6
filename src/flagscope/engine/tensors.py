"""What the tasks of a process share, stored tensors above all: read once where memory allows.

The plan says which task needs what. So a piece is let go with its last task, and where memory is
short the piece goes first whose next task is furthest away (Belády, IBM Systems Journal 5, 1966).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

import torch

from flagscope.checkpoint import Checkpoint
from flagscope.engine.ahead import Ahead
from flagscope.engine.pieces import Piece
from flagscope.engine.plan import Task
from flagscope.engine.stored import Stored, read_piece
from flagscope.errors import InputError
from flagscope.null import StorageNoise

# A layer of a model of 7 billion parameters in 16 bits, and what meets it in the next one.
BUDGET = 750_000_000
# Behind every task: pieces of which the plan does not know, such as the gains of norms.
_NEVER = 2**62
_PAGE = 4096


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Held:
    value: object
    size: int  # bytes that letting go of it frees


class Tensors:
    """Pieces of tensors as stored, held for the tasks that are still to come; a context manager.

    What else tasks have in common is held beside them. Tensors that were in memory before take no
    room.

    Parameters
    ----------
    checkpoint
        Open.
    tasks
        In the order in which they begin.
    budget
        Bytes held at most. What a task has in its hands beyond that is its own.
    common
        For each task, names of what it has in common with others; see `made`.

    Attributes
    ----------
    most_held
        The most bytes held so far.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tasks: Sequence[Task],
        *,
        budget: int = BUDGET,
        common: Sequence[Collection[Hashable]] = (),
    ) -> None:
        self._checkpoint, self._tasks, self._budget = checkpoint, tasks, budget
        self._needs: list[list[Hashable]] = [list(task.pieces) for task in tasks]
        for needs, names in zip(self._needs, common, strict=False):
            needs += names
        self._left: dict[Hashable, set[int]] = {}
        for place, needs in enumerate(self._needs):
            for name in needs:
                self._left.setdefault(name, set()).add(place)
        self._most = budget
        self._lock = Lock()
        self._held: dict[Hashable, _Held] = {}
        self._making: dict[Hashable, Future[None]] = {}
        self._bytes = self.most_held = 0
        # A few numbers a map; what two threads measure at once is the same.
        self._noise: dict[Hashable, StorageNoise | None] = {}
        self._ahead: Ahead | None = None

    def get(self, piece: Piece) -> Stored:
        """A piece, from memory or read.

        Raises
        ------
        SourceError, OSError
            If it cannot be read.
        """
        return self._obtained(
            piece,
            lambda: read_piece(self._checkpoint, piece),
            lambda stored: stored.nbytes if self._is_read(piece) else 0,
        )

    def made(
        self, name: Hashable, under: Hashable, make: Callable[[], T], size: Callable[[T], int]
    ) -> T:
        """What several tasks make alike: made once where memory allows.

        Parameters
        ----------
        name
            One of those told at first; what no other task to come has is not kept.
        under
            What else it depends on: it serves tasks for which that is equal.
        make
            Makes it, in the task that needs it first.
        size
            Its bytes.
        """
        with self._lock:
            wanted = name in self._held or len(self._left.get(name, ())) > 1
        if not wanted:
            return make()
        circumstances, value = self._obtained(
            name, lambda: (under, make()), lambda made: size(made[1])
        )
        return value if circumstances == under else make()

    def _obtained(self, name: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        while True:
            with self._lock:
                if name in self._held:
                    return self._held[name].value  # pyright: ignore[reportReturnType] (of its name)
                other = self._making.get(name)
                if other is None:
                    self._making[name] = Future()
            if other is None:
                break
            # Another thread makes it. Where that fails, or there is no room to keep it, it is made
            # once more, so that an error is that of the task that needs it.
            other.result()
        try:
            value = make()
            with self._lock:
                self._keep(name, _Held(value, size(value)))
            return value
        finally:
            with self._lock:
                done = self._making.pop(name)
            done.set_result(None)

    def whole(self, tensor: str) -> Stored:
        """A whole tensor, such as the gain of a norm."""
        shape = self._checkpoint.tensors[tensor].shape
        return self.get(Piece(tensor, 0, shape[0] if shape else 1))

    def dtype(self, tensor: str) -> str:
        """The type that a tensor is stored in."""
        return self._checkpoint.tensors[tensor].dtype

    def noise(self, maps: Hashable, stored: Stored) -> StorageNoise | None:
        """The storage noise of some maps, measured once; None if some of them are not finite."""
        if maps not in self._noise:
            try:
                self._noise[maps] = stored.noise()
            except InputError:
                self._noise[maps] = None
        return self._noise[maps]

    def limit(self, budget: int) -> None:
        """Hold no more than this from now on, and never more than was allowed at first."""
        with self._lock:
            self._budget = min(self._most, max(0, budget))
            self._has_room(0, before=-1)

    def finished(self, place: int) -> None:
        """The task at a place of the order is over: what it was the last to read is let go."""
        with self._lock:
            for name in self._needs[place]:
                self._left[name].discard(place)
                if not self._left[name]:
                    self._drop(name)

    def prefetch(self, place: int) -> None:
        """Read what the task at a place needs, in a thread of its own and as far as there is room.

        What was asked for before is left.
        """
        if place < len(self._tasks) and any(map(self._is_read, self._tasks[place].pieces)):
            self._ahead = self._ahead or Ahead(self._read_ahead)
            self._ahead.turn_to(place)

    def close(self) -> None:
        """Let go of everything, and wait for the thread that reads ahead to end."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_ahead(self, place: int, wanted: Callable[[], bool]) -> None:
        for piece, size in self._tasks[place].pieces.items():
            with self._lock:
                there = piece in self._held or piece in self._making
                room = there or self._has_room(size, before=place)
            if not room or not wanted():
                return
            if not there:
                _touch(self.get(piece).values)

    def _keep(self, name: Hashable, one: _Held) -> None:
        if not self._has_room(one.size, before=self._next(name)):
            return
        self._held[name] = one
        self._bytes += one.size
        self.most_held = max(self.most_held, self._bytes)

    def _has_room(self, size: int, *, before: int) -> bool:
        """Whether there is room, after what is needed later than at a place has gone for it."""
        later = sorted((name for name in self._held if self._next(name) > before), key=self._next)
        free = self._budget - self._bytes
        if size > free + sum(self._held[name].size for name in later):
            return False
        while later and size > self._budget - self._bytes:
            self._drop(later.pop())
        return True

    def _drop(self, name: Hashable) -> None:
        one = self._held.pop(name, None)
        if one is not None:
            self._bytes -= one.size

    def _next(self, name: Hashable) -> int:
        return min(self._left.get(name, ()), default=_NEVER)

    def _is_read(self, piece: Piece) -> bool:
        """Whether reading takes memory: of weights in memory, only what is dequantised does."""
        info = self._checkpoint.tensors[piece.tensor]
        return info.file is not None or info.quantised is not None


def _touch(values: torch.Tensor) -> None:
    """Have the bytes read, also where a file is mapped and a tensor is but a promise of them."""
    if values.is_contiguous():
        values.view(-1).view(torch.uint8)[::_PAGE].max()
