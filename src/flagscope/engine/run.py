"""Running a scan: plan, carry out, put the records together."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from importlib.metadata import version
from math import prod
from queue import SimpleQueue
from typing import TypeVar

import torch

from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.diagnose import (
    FREEDOMS,
    FailureRecord,
    HeadRecord,
    PairRecord,
    RunRecord,
    ScanResult,
    labels,
)
from flagscope.engine.attempt import attempt
from flagscope.engine.execute import TaskResult, resolved_device
from flagscope.engine.executors import handed, settled, threads_elsewhere
from flagscope.engine.identity import task_keys, weights_identity
from flagscope.engine.parcel import Parcel
from flagscope.engine.plan import Task, plan
from flagscope.engine.settings import Settings
from flagscope.engine.store import Store
from flagscope.engine.stream import adjusted_edges, furthest_edges
from flagscope.null import false_discovery_adjustment

# Incidence surfaces are for drawing; beyond this many pairs those furthest from chance keep theirs.
_SURFACES = 400
# Each worker holds the tensors of a task.
_MOST_WORKERS = 4
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

Progress = Callable[[int, int, str], None]
Outcome = TaskResult | FailureRecord
R = TypeVar("R", PairRecord, HeadRecord)


def run_scan(
    checkpoint: Checkpoint,
    graph: Graph,
    settings: Settings,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    store: Store | None = None,
) -> ScanResult:
    """Carry out all tasks of a scan and put their records together.

    Parameters
    ----------
    checkpoint, graph, settings
        What to read, what its tensors are, and what to compute.
    workers
        Threads that carry out tasks at once; peak memory grows with them. By default one for each
        of PyTorch's threads, at most four; PyTorch's threads are shared out among them.
    executor
        Any `concurrent.futures.Executor` instead.
    progress
        Called with (tasks done, tasks in all, name of the task).
    store
        Where results are kept as they come, and taken from if they are there.

    Returns
    -------
    ScanResult
        A task that failed is listed in `failures`, and the others stand. It is not kept in the
        store, so that another run tries it again.

    Raises
    ------
    StoreError
        If the store is damaged or cannot be written; results kept before stand.
    """
    start = time.perf_counter()
    workers = workers or min(torch.get_num_threads(), _MOST_WORKERS)
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tasks = plan(graph, settings, sizes)
    fingerprint = checkpoint.fingerprint()
    kept = _Kept(store, tasks, settings, checkpoint, fingerprint)
    outcomes = _carried_out(tasks, kept, checkpoint, settings, workers, executor, progress)
    results = [outcome for outcome in outcomes if isinstance(outcome, TaskResult)]
    edge_tests = sum(result.edge_tests for result in results)
    edges = [edge for result in results for edge in result.edges]
    return ScanResult(
        version=version("flagscope"),
        source=checkpoint.source,
        fingerprint=fingerprint,
        family=graph.family,
        parameters=parameter_count(checkpoint),
        dtype=_dtype(checkpoint),
        settings=settings.model_dump(mode="json", exclude={"device"}),
        labels={freedom: labels(freedom) for freedom in FREEDOMS},
        notes=[*checkpoint.notes, *graph.notes],
        unmapped=list(graph.unmapped),
        pairs=_limited_surfaces(_adjusted([one for result in results for one in result.pairs])),
        heads=_adjusted([one for result in results for one in result.heads]),
        edges=adjusted_edges(furthest_edges(edges, settings.edges), edge_tests),
        edge_tests=edge_tests,
        failures=[one for one in outcomes if isinstance(one, FailureRecord)],
        run=RunRecord(
            seconds=round(time.perf_counter() - start, 3),
            peak_rss_bytes=_peak_rss(),
            device=str(resolved_device(settings.device)),
            workers=workers,
            tasks=len(tasks),
            tasks_from_store=len(kept.found),
        ),
    )


class _Kept:
    """The store as one scan sees it: results by the place of their task; or none is kept."""

    def __init__(
        self,
        store: Store | None,
        tasks: list[Task],
        settings: Settings,
        checkpoint: Checkpoint,
        fingerprint: str,
    ) -> None:
        self._store, self._tasks = store, tasks
        self.found: dict[int, TaskResult] = {}
        if store is None:
            return
        self._keys = list(task_keys(tasks, settings, weights_identity(checkpoint, fingerprint)))
        for i, key in enumerate(self._keys):
            result = store.get(key)
            if result is not None:
                self.found[i] = result

    def append(self, outcomes: list[tuple[int, Outcome]]) -> None:
        """Keep results; what failed is tried again another time."""
        if self._store is None:
            return
        done = [
            (self._keys[i], self._tasks[i].name, outcome)
            for i, outcome in outcomes
            if isinstance(outcome, TaskResult)
        ]
        if done:
            self._store.append(done)


def _carried_out(
    tasks: list[Task],
    kept: _Kept,
    checkpoint: Checkpoint,
    settings: Settings,
    workers: int,
    executor: Executor | None,
    progress: Progress | None,
) -> list[Outcome]:
    """Outcomes in the order of the tasks, so that a report does not depend on timing."""
    outcomes: dict[int, Outcome] = {}
    missing = [i for i in range(len(tasks)) if i not in kept.found]

    def take(batch: list[tuple[int, Outcome]]) -> None:
        for i, outcome in batch:
            outcomes[i] = outcome
            if progress:
                progress(len(outcomes), len(tasks), tasks[i].name)

    take(list(kept.found.items()))
    work = _batches([tasks[i] for i in missing], checkpoint, settings, workers, executor)
    # Closed at once when an error leaves the loop: what has not begun is not begun.
    with closing(work) as batches:
        for batch in batches:
            placed = [(missing[at], outcome) for at, outcome in batch]
            kept.append(placed)
            take(placed)
    return [outcomes[i] for i in range(len(tasks))]


def _batches(
    tasks: list[Task],
    checkpoint: Checkpoint,
    settings: Settings,
    workers: int,
    executor: Executor | None,
) -> Generator[list[tuple[int, Outcome]]]:
    """(place of the task, its outcome) as they come; those that wait at one time together."""
    if executor is not None:
        yield from _submitted(tasks, checkpoint, settings, executor)
        return
    if workers == 1:
        for i, task in enumerate(tasks):
            yield [(i, attempt(task, checkpoint, settings))]
        return
    with _torch_threads(max(1, torch.get_num_threads() // workers)):
        pool = ThreadPoolExecutor(workers)
        try:
            yield from _submitted(tasks, checkpoint, settings, pool)
        finally:
            # Interrupted: what has not begun is not begun.
            pool.shutdown(cancel_futures=True)


def _submitted(
    tasks: list[Task], checkpoint: Checkpoint, settings: Settings, executor: Executor
) -> Generator[list[tuple[int, Outcome]]]:
    """Outcomes from an executor, also while tasks are still being submitted to it."""
    arrived: SimpleQueue[tuple[int, Future[Outcome]]] = SimpleQueue()
    waiting: dict[int, Future[Outcome]] = {}
    begun = 0
    threads = threads_elsewhere(executor)
    try:
        while begun < len(tasks) or waiting:
            if begun < len(tasks):
                parcel = Parcel(tasks[begun], checkpoint, settings, threads=threads)
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
                yield [(i, settled(tasks[i], future)) for i, future in batch]
    finally:
        for future in waiting.values():
            future.cancel()


def _arrive(
    arrived: SimpleQueue[tuple[int, Future[Outcome]]], place: int, future: Future[Outcome]
) -> None:
    arrived.put((place, future))


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


def _adjusted(records: list[R]) -> list[R]:
    """The records with p-values adjusted for the number of tests."""
    log10_p = [record.log10_p for record in records]
    independent = false_discovery_adjustment(log10_p, method="bh").p
    dependent = false_discovery_adjustment(log10_p, method="by").p
    return [
        record.model_copy(update={"p_adjusted": bh, "p_adjusted_dependent": by})
        for record, bh, by in zip(records, independent, dependent, strict=True)
    ]


def _limited_surfaces(pairs: list[PairRecord]) -> list[PairRecord]:
    if len(pairs) <= _SURFACES:
        return pairs
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].log10_p or 0.0)
    dropped = set(order[_SURFACES:])
    return [
        pair.model_copy(update={"incidence": None}) if i in dropped else pair
        for i, pair in enumerate(pairs)
    ]


def parameter_count(checkpoint: Checkpoint) -> int:
    """Number of stored floating-point numbers, running statistics left out."""
    return sum(
        prod(info.shape)
        for name, info in checkpoint.tensors.items()
        if ("float" in info.dtype or name in checkpoint.scaled)
        and name not in checkpoint.auxiliary
        and not name.endswith(_BUFFERS)
    )


def _dtype(checkpoint: Checkpoint) -> str:
    """The type that most of the bytes are stored in."""
    bytes_of: Counter[str] = Counter()
    for info in checkpoint.tensors.values():
        bytes_of[info.quantised or info.dtype] += info.nbytes
    return bytes_of.most_common(1)[0][0]


def _peak_rss() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
