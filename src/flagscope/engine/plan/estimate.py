"""Estimates time and memory of a scan from its plan and rates timed on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from flagscope.checkpoint import TensorInfo
from flagscope.engine.plan.order import task_order
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.rates import measured_rates
from flagscope.engine.plan.slots import TASK_MEMORY, cache_bytes, default_workers, slots_per_task
from flagscope.engine.plan.tasks import Task

_READ, _CHUNK = 64 * 2**20, 2**22
_LONG = 0.3
# Bytes of a pair's record in Python (measured), without surfaces, which are few; and of each of
# the overlaps in the record of a head group.
PAIR_RECORD, _OVERLAP = 11_000, 32

# Bytes that a task takes in addition to its matrices: BLAS buffers, null draws (measured).
_SCRATCH = 18_000_000
# Share of its peak that a task takes while another task is at its own peak (measured).
_NEXT = 0.6


@dataclass(frozen=True)
class Estimate:
    """Estimated time and memory of a scan in threads of this process, on this machine.

    Attributes
    ----------
    seconds
        Wall time of all tasks.
    seconds_reading
        Time of the disk, which reads during the computation; None if its rate is not known.
    bytes_memory
        Peak memory, beyond what the program takes before it reads weights.
    workers
        Number of tasks at once.
    assumptions
        Assumptions behind the numbers, in words.
    """

    seconds: float
    seconds_reading: float | None
    bytes_memory: int
    workers: int
    assumptions: tuple[str, ...]


def estimated(
    tasks: Sequence[Task],
    tensors: Mapping[str, TensorInfo],
    *,
    workers: int | None = None,
    memory: int = TASK_MEMORY,
) -> Estimate:
    """Estimate a scan in threads of this process.

    Times matrix products, decompositions and eigenproblems for about a second, once per process,
    and the disk on at most 64 MiB of the checkpoint's largest file.

    Parameters
    ----------
    tasks
        The plan.
    tensors
        Headers of the checkpoint.
    workers, memory
        As for `run_scan`.
    """
    workers = workers or default_workers()
    cores = torch.get_num_threads()
    order = [tasks[i] for i in task_order(tasks, tensors, workers=workers)]
    budget = cache_bytes(memory)
    slots = slots_per_task(order, workers=workers, room=memory - budget)
    computing = _computing(order, slots, workers, cores)
    rate = read_rate(tensors)
    size = sum(_pieces(order).values()) + sum(task.bytes_streamed for task in order)
    reading = None if rate is None else size / rate
    return Estimate(
        seconds=max(computing, reading or 0.0),
        seconds_reading=reading,
        bytes_memory=_most_memory(order, slots, workers, budget, memory) + _record_bytes(tasks),
        workers=workers,
        assumptions=_assumptions(order, rate, workers, cores),
    )


def _computing(tasks: Sequence[Task], slots: Sequence[int], workers: int, cores: int) -> float:
    """Seconds until the last task ends: total work over the slots, or the longest task alone."""
    seconds = []
    # Largest thread counts first: single-thread timings disturb later ones of thread teams.
    for share in sorted(set(slots), reverse=True):
        at_once = workers // share
        rates = measured_rates(min(at_once, cores), max(1, cores * share // workers))
        # Tasks beyond the cores take turns.
        slower = max(1.0, at_once / cores)
        seconds += [
            (slower * rates.of(task.work), share)
            for task, taken in zip(tasks, slots, strict=True)
            if taken == share
        ]
    busy = sum(share * taken for taken, share in seconds) / workers
    return max(busy, max((taken for taken, _ in seconds), default=0.0))


def _record_bytes(tasks: Sequence[Task]) -> int:
    pairs = sum(len(pair.members) for task in tasks for pair in task.pairs)
    return PAIR_RECORD * pairs + _OVERLAP * sum(
        head.count**2 for task in tasks for head in task.heads
    )


def _pieces(tasks: Sequence[Task]) -> dict[Piece, int]:
    return {piece: size for task in tasks for piece, size in task.pieces.items()}


def most_cached(tasks: Sequence[Task]) -> int:
    """Peak bytes of the cache, if it has room for all tensors that tasks share."""
    last = {piece: index for index, task in enumerate(tasks) for piece in task.pieces}
    most = now = 0
    seen: set[Piece] = set()
    for index in range(len(tasks)):
        # The task that starts, and the next one, whose tensors are prefetched.
        for task in tasks[index : index + 2]:
            now += sum(size for piece, size in task.pieces.items() if piece not in seen)
            seen.update(task.pieces)
        most = max(most, now)
        now -= sum(size for piece, size in tasks[index].pieces.items() if last[piece] == index)
    return most


def _most_memory(
    tasks: Sequence[Task], slots: Sequence[int], workers: int, budget: int, memory: int
) -> int:
    """Peak memory of concurrent tasks as large as any of these, and of the cached tensors."""
    cached, most = min(budget, most_cached(tasks)), 0
    for task, share in zip(tasks, slots, strict=True):
        at_once = workers // share
        working = int(task.bytes_working * (1 + _NEXT * (at_once - 1))) + _SCRATCH * at_once
        room = max(0, memory - working) if share == workers else budget
        most = max(most, working + min(cached, room))
    return most


def read_rate(tensors: Mapping[str, TensorInfo]) -> float | None:
    """Bytes per second at which the largest file is read; None if it is remote or sparse."""
    sizes: dict[str, int] = {}
    for info in tensors.values():
        if info.file is not None:
            sizes[info.file] = sizes.get(info.file, 0) + info.nbytes
    if not sizes:
        return None
    path = Path(max(sizes, key=lambda name: sizes[name]))
    try:
        status = path.stat()
        if getattr(status, "st_blocks", status.st_size) * 512 < status.st_size // 2:
            return None
        return _timed_reading(path, status.st_size // 3)
    except OSError:
        return None


def _timed_reading(path: Path, start: int) -> float | None:
    done, begin = 0, time.perf_counter()
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while done < _READ and time.perf_counter() - begin < _LONG:
            block = file.read(_CHUNK)
            if not block:
                break
            done += len(block)
    return done / (time.perf_counter() - begin) if done else None


def _assumptions(
    tasks: Sequence[Task], rate: float | None, workers: int, cores: int
) -> tuple[str, ...]:
    largest = max(
        (size for task in tasks for kind, size in task.work.amounts if kind == "eigh"), default=0
    )
    said = [
        f"tasks at once: {workers}, on {cores} cores of the processor, and nothing else running",
        "products, QR decompositions and eigenproblems as fast as those timed here just now, up to "
        "1024 × 1024",
    ]
    if largest > 1024:
        said.append(
            f"eigenproblems up to {largest} × {largest} extrapolated as a n² + b n³: memory slower "
            "than caches, or swapping, is not in it"
        )
    said.append("dominant spaces of 0.7 of all directions, as of random maps; trained ones are "
                "smaller")  # fmt: skip
    said.append(
        "the time of the disk is not known: the files lie elsewhere, in memory, or have holes"
        if rate is None
        else f"the disk reads {rate / 1e6:,.0f} MB a second, as it did now, while tasks compute; "
        "what the system has in memory is faster than what it has not"
    )
    return tuple(said)
