"""What a scan would take on this machine, from its plan and from rates timed here."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from flagscope.checkpoint import TensorInfo
from flagscope.engine.plan.order import task_order
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.rates import Rates, measured_rates
from flagscope.engine.plan.slots import TASK_MEMORY, cache_bytes, default_workers, slots_per_task
from flagscope.engine.plan.tasks import Task

_READ, _CHUNK = 64 * 2**20, 2**22
_LONG = 0.3
# Bytes of the record of a pair as Python holds it (measured), surfaces apart, which are few; and
# of each of the overlaps that the record of a group of heads holds.
PAIR_RECORD, _OVERLAP = 11_000, 32


@dataclass(frozen=True)
class Estimate:
    """Time and memory of a scan in threads of this process, on this machine.

    Attributes
    ----------
    seconds
        From the first task to the last.
    seconds_reading
        Of the disk, which reads while the processor computes; None if its rate is not known.
    bytes_memory
        Peak, beyond what the program takes before it reads.
    workers
        Tasks at once.
    assumptions
        What the numbers rest on, in words.
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

    Times matrix products, decompositions and eigenproblems for about a second, once in a process,
    and the disk by at most 64 MiB of the checkpoint's largest file.

    Parameters
    ----------
    tasks
        Of a plan.
    tensors
        Headers of the checkpoint.
    workers, memory
        As for `run_scan`.
    """
    workers = workers or default_workers()
    order = [tasks[i] for i in task_order(tasks, tensors, workers=workers)]
    held = cache_bytes(memory)
    taken = slots_per_task(order, workers=workers, room=memory - held)
    cores = torch.get_num_threads()
    rates = {
        share: _rates(workers // share, cores, max(1, cores * share // workers))
        # The most threads first: threads that were timed one each disturb later ones in a team.
        for share in sorted(set(taken), reverse=True)
    }
    computing = _computing(order, taken, rates, workers)
    read = sum(_pieces(order).values())
    rate = read_rate(tensors)
    reading = None if rate is None else read / rate
    records = PAIR_RECORD * sum(len(pair.members) for task in tasks for pair in task.pairs)
    records += _OVERLAP * sum(head.count**2 for task in tasks for head in task.heads)
    held = min(held, _most_held(order))
    return Estimate(
        seconds=max(computing, reading or 0.0),
        seconds_reading=reading,
        bytes_memory=_most_memory(order, taken, workers, held, memory) + records,
        workers=workers,
        assumptions=_assumptions(order, rate, workers, cores),
    )


def _rates(at_once: int, cores: int, threads: int) -> Rates:
    """While so many tasks run at once; those beyond the cores wait for them."""
    timed = min(at_once, cores)
    return measured_rates(timed, threads).slower(at_once / timed)


def _computing(
    tasks: Sequence[Task], taken: Sequence[int], rates: Mapping[int, Rates], workers: int
) -> float:
    """When the last task ends, if each takes its slots as soon as they are free."""
    now, free = 0.0, workers
    running: list[tuple[float, int]] = []
    for task, share in zip(tasks, taken, strict=True):
        while free < share:
            now, given = heapq.heappop(running)
            free += given
        heapq.heappush(running, (now + rates[share].of(task.work), share))
        free -= share
    return max((end for end, _ in running), default=0.0)


def _pieces(tasks: Sequence[Task]) -> dict[Piece, int]:
    return {piece: size for task in tasks for piece, size in task.pieces.items()}


def _most_held(tasks: Sequence[Task]) -> int:
    """The most bytes of tensors that are read and needed once more, if there is room for all."""
    last = {piece: at for at, task in enumerate(tasks) for piece in task.pieces}
    ending: dict[int, int] = {}
    for piece, size in _pieces(tasks).items():
        ending[last[piece]] = ending.get(last[piece], 0) + size
    most = now = 0
    seen: set[Piece] = set()
    for at in range(len(tasks)):
        # The task that begins, and the one behind it, which is read meanwhile.
        for task in tasks[at : at + 2]:
            now += sum(size for piece, size in task.pieces.items() if piece not in seen)
            seen.update(task.pieces)
        most = max(most, now)
        now -= ending.get(at, 0)
    return most


def _most_memory(
    tasks: Sequence[Task], taken: Sequence[int], workers: int, held: int, memory: int
) -> int:
    """The most of what tasks like each one take at once, and what is held beside them."""
    most = 0
    for task, share in zip(tasks, taken, strict=True):
        working = task.bytes_working * (workers // share)
        beside = max(0, memory - working) if share == workers else held
        most = max(most, working + min(held, beside))
    return most


def read_rate(tensors: Mapping[str, TensorInfo]) -> float | None:
    """Bytes a second at which the largest file is read; None if it lies elsewhere or has holes."""
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
            part = file.read(_CHUNK)
            if not part:
                break
            done += len(part)
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
