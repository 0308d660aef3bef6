"""Cache of stored tensors shared by the tasks of a process: each read once where memory allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Self, TypeVar

from flagscope.checkpoint import Checkpoint
from flagscope.engine.cache.planned_cache import PlannedCache
from flagscope.engine.cache.prefetch import Prefetcher
from flagscope.engine.cache.stored_tensor import StoredTensor, read_piece
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.tasks import Task
from flagscope.errors import InputError
from flagscope.null import StorageNoise

# A layer of a model of 7 billion parameters in 16 bits, and the maps it meets in the next layer.
BUDGET = 750_000_000

T = TypeVar("T")


class TensorCache:
    """Pieces of tensors as stored, and values that several tasks share; a context manager.

    Tensors that are in memory anyway take no room.

    Parameters
    ----------
    checkpoint
        An open checkpoint.
    tasks
        In the order in which they start.
    budget
        Bytes kept at most. The memory of the tasks themselves is not counted.
    shared
        For each task, keys of the values that it shares with others; see `shared_value`.

    Attributes
    ----------
    cache
        The values kept.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tasks: Sequence[Task],
        *,
        budget: int = BUDGET,
        shared: Sequence[Collection[Hashable]] = (),
    ) -> None:
        self._checkpoint, self._tasks = checkpoint, tasks
        needs = [[*task.pieces, *(shared[i] if shared else ())] for i, task in enumerate(tasks)]
        self.cache = PlannedCache(needs, budget)
        # A few numbers per map; two threads that measure one at the same time get the same.
        self._noise: dict[Hashable, StorageNoise | None] = {}
        self._prefetcher: Prefetcher | None = None

    def get(self, piece: Piece) -> StoredTensor:
        """A piece, from the cache or read from the checkpoint.

        Raises
        ------
        SourceError, OSError
            If it cannot be read.
        """
        return self.cache.get(
            piece,
            lambda: read_piece(self._checkpoint, piece),
            lambda stored: stored.nbytes if self._is_read(piece) else 0,
        )

    def once(self, piece: Piece) -> StoredTensor:
        """A piece that no other task reads: from the checkpoint, and not kept."""
        return read_piece(self._checkpoint, piece)

    def shared_value(
        self, key: Hashable, version: Hashable, make: Callable[[], T], size: Callable[[T], int]
    ) -> T:
        """A value that several tasks use: computed once where memory allows.

        Parameters
        ----------
        key
            One of `shared`; a value that no later task needs is not kept.
        version
            What else the value depends on: tasks share it only if their versions are equal.
        make
            Computes the value, in the first task that needs it.
        size
            Bytes of the value.
        """
        if not self.cache.is_shared(key):
            return make()
        made_for, value = self.cache.get(key, lambda: (version, make()), lambda made: size(made[1]))
        return value if made_for == version else make()

    def whole(self, tensor: str) -> StoredTensor:
        """A whole tensor, such as the gain of a norm."""
        shape = self._checkpoint.tensors[tensor].shape
        return self.get(Piece(tensor, 0, shape[0] if shape else 1))

    def dtype(self, tensor: str) -> str:
        """The dtype that a tensor is stored in."""
        return self._checkpoint.tensors[tensor].dtype

    def noise(self, maps: Hashable, stored: StoredTensor) -> StorageNoise | None:
        """The storage noise of some maps, measured once; None if some of them are not finite."""
        if maps not in self._noise:
            try:
                self._noise[maps] = stored.noise()
            except InputError:
                self._noise[maps] = None
        return self._noise[maps]

    def limit(self, budget: int) -> None:
        """Lower the budget to this many bytes, or raise it again up to the initial one."""
        self.cache.limit(budget)

    def finish(self, task: int) -> None:
        """Drop the values that no task after this one (by index) needs."""
        self.cache.finish(task)

    def prefetch(self, task: int) -> None:
        """Prefetch the tensors of the task with this index in the background, if there is room.

        This ends a prefetch for another task.
        """
        if task < len(self._tasks) and any(map(self._is_read, self._tasks[task].pieces)):
            self._prefetcher = self._prefetcher or Prefetcher(self._tasks, self.cache, self.get)
            self._prefetcher.start(task)

    def close(self) -> None:
        """Drop all values and join the prefetching thread."""
        if self._prefetcher is not None:
            self._prefetcher.stop()
            self._prefetcher = None
        self.cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_read(self, piece: Piece) -> bool:
        """Whether reading takes memory: for weights in memory, only dequantising does."""
        info = self._checkpoint.tensors[piece.tensor]
        return info.file is not None or info.quantised is not None
