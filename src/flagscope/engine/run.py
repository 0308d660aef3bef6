"""Running a scan: plan, carry out, put the records together."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from math import prod
from typing import TypeVar

import torch

from flagscope.arch import Graph
from flagscope.checkpoint import Checkpoint
from flagscope.diagnose import (
    FREEDOMS,
    EdgeRecord,
    FailureRecord,
    HeadRecord,
    PairRecord,
    RunRecord,
    ScanResult,
    labels,
)
from flagscope.engine.attempt import attempt
from flagscope.engine.execute import TaskResult, resolved_device
from flagscope.engine.executors import outcomes
from flagscope.engine.plan import Task, plan
from flagscope.engine.settings import Settings
from flagscope.engine.stream import adjusted_edges, furthest_edges
from flagscope.null import false_discovery_adjustment

# Incidence surfaces are for drawing; beyond this many pairs those furthest from chance keep theirs.
_SURFACES = 400
# Each worker holds the tensors of a task.
_MOST_WORKERS = 4
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")

Progress = Callable[[int, int, str], None]
R = TypeVar("R", PairRecord, HeadRecord)


def run_scan(
    checkpoint: Checkpoint,
    graph: Graph,
    settings: Settings,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
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

    Returns
    -------
    ScanResult
        A task that failed is listed in `failures`, and the others stand.
    """
    start = time.perf_counter()
    workers = workers or min(torch.get_num_threads(), _MOST_WORKERS)
    sizes = {name: info.nbytes for name, info in checkpoint.tensors.items()}
    tasks = plan(graph, settings, sizes)
    pairs: list[PairRecord] = []
    heads: list[HeadRecord] = []
    edges: list[EdgeRecord] = []
    edge_tests = 0
    failures: list[FailureRecord] = []
    for done, (task, outcome) in enumerate(
        _outcomes(tasks, checkpoint, settings, workers, executor), start=1
    ):
        if isinstance(outcome, FailureRecord):
            failures.append(outcome)
        else:
            pairs += outcome.pairs
            heads += outcome.heads
            edges += outcome.edges
            edge_tests += outcome.edge_tests
        if progress:
            progress(done, len(tasks), task.name)
    return ScanResult(
        version=version("flagscope"),
        source=checkpoint.source,
        fingerprint=checkpoint.fingerprint(),
        family=graph.family,
        parameters=parameter_count(checkpoint),
        dtype=_dtype(checkpoint),
        settings=settings.model_dump(mode="json", exclude={"device"}),
        labels={freedom: labels(freedom) for freedom in FREEDOMS},
        notes=[*checkpoint.notes, *graph.notes],
        unmapped=list(graph.unmapped),
        pairs=_limited_surfaces(_adjusted(pairs)),
        heads=_adjusted(heads),
        edges=adjusted_edges(furthest_edges(edges, settings.edges), edge_tests),
        edge_tests=edge_tests,
        failures=failures,
        run=RunRecord(
            seconds=round(time.perf_counter() - start, 3),
            peak_rss_bytes=_peak_rss(),
            device=str(resolved_device(settings.device)),
            workers=workers,
        ),
    )


def _outcomes(
    tasks: list[Task],
    checkpoint: Checkpoint,
    settings: Settings,
    workers: int,
    executor: Executor | None,
) -> Iterator[tuple[Task, TaskResult | FailureRecord]]:
    """Results in the order of the tasks, so that a report does not depend on timing."""
    if executor is None and workers == 1:
        for task in tasks:
            yield task, attempt(task, checkpoint, settings)
        return
    if executor is not None:
        yield from outcomes(executor, tasks, checkpoint, settings)
        return
    with _torch_threads(max(1, torch.get_num_threads() // workers)):
        pool = ThreadPoolExecutor(workers)
        try:
            yield from _outcomes(tasks, checkpoint, settings, workers, pool)
        finally:
            # Interrupted: what has not begun is not begun.
            pool.shutdown(cancel_futures=True)


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
