"""Runs a scan: plans it, runs its tasks, puts the records together."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version

from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint, checkpoint_fingerprint
from flagscope.diagnose import labels
from flagscope.engine.cache.tensor_cache import TensorCache
from flagscope.engine.device import resolved_device
from flagscope.engine.health.assemble import health_of
from flagscope.engine.plan.coverage import Outcomes, coverage_of
from flagscope.engine.plan.health_tasks import health_tasks
from flagscope.engine.plan.order import task_order
from flagscope.engine.plan.slots import TASK_MEMORY, cache_bytes, default_workers, slots_per_task
from flagscope.engine.plan.tasks import Task, plan
from flagscope.engine.plan.weights import main_dtype, weights_of
from flagscope.engine.run.collector import ScanCollector
from flagscope.engine.run.error_rate import with_one_error_rate
from flagscope.engine.run.executor_runner import run_on_executor
from flagscope.engine.run.outcome import Outcome, TaskResult
from flagscope.engine.run.peak_memory import peak_rss
from flagscope.engine.run.proof import is_unstamped
from flagscope.engine.run.stream_pairs import shared_keys
from flagscope.engine.run.thread_runner import run_in_threads
from flagscope.engine.settings import Settings
from flagscope.engine.store.store import Store
from flagscope.engine.store.task_keys import task_keys, weights_identity
from flagscope.errors import CorruptFileError
from flagscope.records import FREEDOMS, RunRecord, ScanResult

Progress = Callable[[int, int, str], None]
"""Called with (parts done, parts in all, name of the part)."""
_UNSTAMPED = (
    "no results were kept or taken from the store: the server says neither an ETag nor a time of "
    "change, so that the file cannot be recognised another time"
)


def run_scan(
    checkpoint: Checkpoint,
    graph: Graph,
    settings: Settings,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    store: Store | None = None,
    memory: int = TASK_MEMORY,
) -> ScanResult:
    """Run all tasks of a scan and combine their records.

    Parameters
    ----------
    checkpoint, graph, settings
        The weights, the graph of their maps, and what to compute.
    workers
        Tasks that run at once in threads, where memory allows. By default one for each of
        PyTorch's threads, at most four; PyTorch's threads are divided among them.
    executor
        Any `concurrent.futures.Executor` instead.
    progress
        Called with (tasks done, tasks in all, name of the task).
    store
        Store to which results are written as they come, and from which known ones are taken.
    memory
        Bytes that the threads of this process may take together, a quarter of them for tensors
        cached for later tasks. A task that needs more runs alone, and exceeds it.

    Returns
    -------
    ScanResult
        A task that failed is listed in `failures`; the others are not affected. A failure is not
        stored, so that another run tries the task again.

    Raises
    ------
    StoreError
        If the store is damaged or cannot be written; results stored before remain.
    CorruptFileError
        If a remote file without a tag or a modification time changed during the scan.
    """
    start = time.perf_counter()
    workers = workers or default_workers()
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tasks = plan(graph, settings, sizes)
    # By names and config alone: tensors that only their bytes show to be equal are looked at twice.
    stated = weights_of(checkpoint, read=False)
    tasks += health_tasks(checkpoint, graph, settings, tasks, stated)
    fingerprint = checkpoint_fingerprint(checkpoint)
    unstamped = is_unstamped(checkpoint)
    stored = _ScanStore(None if unstamped else store, tasks, settings, checkpoint, fingerprint)
    where = _Where(executor, workers, memory)
    gathered, from_store = _carried_out(tasks, stored, checkpoint, settings, where, progress)
    if unstamped and checkpoint_fingerprint(checkpoint) != fingerprint:
        raise CorruptFileError(
            f"{checkpoint.source} was changed while it was being read.",
            hint="wait until it is uploaded, and start again.",
        )
    family = with_one_error_rate(
        gathered.pairs, gathered.heads, gathered.edges, edge_tests=gathered.edge_tests
    )
    weights = weights_of(checkpoint, read=True)
    outcomes = Outcomes(
        family.pairs, family.heads, gathered.failures, gathered.edge_tests,
        gathered.not_finite, gathered.links_not_finite,
    )  # fmt: skip
    return ScanResult(
        version=version("flagscope"),
        source=checkpoint.source,
        fingerprint=fingerprint,
        family=graph.family,
        parameters=weights.parameters,
        dtype=main_dtype(checkpoint),
        coverage=coverage_of(checkpoint, graph, tasks, weights, outcomes),
        health=health_of(
            checkpoint,
            graph,
            settings,
            tasks,
            stated,
            health=gathered.health,
            unread=gathered.unread,
        ),
        settings=settings.recorded(),
        labels={freedom: labels(freedom) for freedom in FREEDOMS},
        notes=[
            *checkpoint.notes,
            *weights.notes,
            *graph.notes,
            *([_UNSTAMPED] if unstamped and store is not None else []),
        ],
        unmapped=list(graph.unmapped),
        pairs=family.pairs,
        heads=family.heads,
        edges=family.edges,
        edge_tests=gathered.edge_tests,
        tests=family.tests,
        failures=gathered.failures,
        run=RunRecord(
            seconds=round(time.perf_counter() - start, 3),
            peak_rss_bytes=peak_rss(),
            device=str(resolved_device(settings.device)),
            workers=workers,
            tasks=len(tasks),
            tasks_from_store=from_store,
        ),
    )


@dataclass(frozen=True)
class _Where:
    """How tasks run: on an executor or in threads, how many at once, and in how much memory."""

    executor: Executor | None
    workers: int
    memory: int


class _ScanStore:
    """The results of one scan in a store, by task index; keeps none if the store is None."""

    def __init__(
        self,
        store: Store | None,
        tasks: list[Task],
        settings: Settings,
        checkpoint: Checkpoint,
        fingerprint: str,
    ) -> None:
        self._store, self._tasks = store, tasks
        self._keys: list[bytes] = []
        if store is not None:
            self._keys += task_keys(tasks, settings, weights_identity(checkpoint, fingerprint))

    def results(self) -> Iterator[tuple[int, TaskResult]]:
        """Yield (task index, result) for the results in the store."""
        if self._store is None:
            return
        for i, key in enumerate(self._keys):
            result = self._store.get(key)
            if result is not None:
                yield i, result

    def append(self, outcomes: list[tuple[int, Outcome]]) -> None:
        """Store results; what failed or was not read is not stored, so that another run tries."""
        if self._store is None:
            return
        done = [
            (self._keys[i], self._tasks[i].name, outcome)
            for i, outcome in outcomes
            if isinstance(outcome, TaskResult) and not outcome.unread
        ]
        if done:
            self._store.append(done)


def _carried_out(
    tasks: list[Task],
    stored: _ScanStore,
    checkpoint: Checkpoint,
    settings: Settings,
    where: _Where,
    progress: Progress | None,
) -> tuple[ScanCollector, int]:
    """The collected outcomes of all tasks, and how many of them came from the store."""
    gathered = ScanCollector(edges=settings.edges)

    def take(i: int, outcome: Outcome) -> None:
        gathered.add(i, outcome)
        if progress:
            progress(len(gathered), len(tasks), tasks[i].name)

    missing = set(range(len(tasks)))
    for i, result in stored.results():
        missing.remove(i)
        take(i, result)
    from_store = len(gathered)
    # Closed at once when an error leaves the loop, so that no further task starts.
    with closing(_batches(tasks, missing, checkpoint, settings, where)) as batches:
        for batch in batches:
            stored.append(batch)
            for i, outcome in batch:
                take(i, outcome)
    return gathered, from_store


def _batches(
    tasks: Sequence[Task],
    missing: Container[int],
    checkpoint: Checkpoint,
    settings: Settings,
    where: _Where,
) -> Generator[list[tuple[int, Outcome]]]:
    """Yield batches of (task index, outcome) as tasks finish."""
    budget = cache_bytes(where.memory)
    # Order and slots are those of all tasks, so that a resumed scan runs the rest in the same way.
    order = task_order(tasks, checkpoint.tensors, workers=where.workers)
    taken = slots_per_task(
        [tasks[i] for i in order], workers=where.workers, room=where.memory - budget
    )
    shares = {i: share for i, share in zip(order, taken, strict=True) if i in missing}
    indices = list(shares)
    ordered = [tasks[i] for i in indices]
    shared = [shared_keys(task.pairs, settings) for task in ordered]
    with TensorCache(checkpoint, ordered, budget=budget, shared=shared) as tensors:
        if where.executor is not None:
            work = run_on_executor(where.executor, ordered, tensors, checkpoint, settings)
        else:
            share = list(shares.values())
            work = run_in_threads(
                ordered, share, tensors, settings, workers=where.workers, memory=where.memory
            )
        with closing(work) as batches:
            for batch in batches:
                yield [(indices[position], outcome) for position, outcome in batch]
