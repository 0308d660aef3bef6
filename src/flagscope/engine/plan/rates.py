"""How fast this machine does each kind of work: timed in about a second, for estimates.

Every kind is timed at a few sizes, on as many threads at once as tasks will run, since they share
memory and caches. Between the sizes rates are interpolated, beyond them they grow as the theory
says.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Barrier

import torch
from torch import Tensor

from flagscope.engine.plan.sample import record_seconds
from flagscope.engine.plan.work import Kind, Work, amount_of
from flagscope.null import storage_noise

# Sizes at which each kind is timed; the largest take some tenths of a second on one core.
_SIZES: dict[Kind, tuple[int, ...]] = {
    "product": (32, 128, 512, 1024),
    "qr": (32, 128, 512),
    "eigh": (32, 128, 512, 1024),
    "eigvalsh": (32, 128, 512),
    "svdvals": (32, 128, 512, 1024),
}
_PASS = 2**20
# Seconds for which something short is repeated; what takes longer is timed once.
_LONG = 0.02


@dataclass(frozen=True)
class Rates:
    """Seconds that this machine takes.

    Parameters
    ----------
    seconds
        By kind, and by size where it has one, for the amount that `Work` counts as one: a problem,
        an operation, a number, a record.
    """

    seconds: Mapping[Kind, Mapping[int, float]]

    def slower(self, factor: float) -> Rates:
        """The rates of tasks that have the machine for one part in `factor` of the time."""
        if factor == 1:
            return self
        return Rates(
            {kind: {size: factor * one for size, one in table.items()}
             for kind, table in self.seconds.items()}
        )  # fmt: skip

    def of(self, work: Work) -> float:
        """Seconds that work takes."""
        return sum(amount * self._one(kind, size) for (kind, size), amount in work.amounts.items())

    def _one(self, kind: Kind, size: int) -> float:
        table = self.seconds[kind]
        if 0 in table:
            return table[0]
        sizes = sorted(table)
        if size >= sizes[-1]:
            return _beyond(table, sizes[-2], sizes[-1], size, kind)
        if size <= sizes[0]:
            # So small that it is the call which takes the time.
            ratio = amount_of(kind, sizes[0]) / amount_of(kind, max(1, size))
            return table[sizes[0]] * (ratio if kind in ("product", "qr") else 1)
        above = next(one for one in sizes if one >= size)
        below = sizes[sizes.index(above) - 1]
        at = math.log(size / below) / math.log(above / below)
        return table[below] ** (1 - at) * table[above] ** at


def _beyond(table: Mapping[int, float], below: int, top: int, size: int, kind: Kind) -> float:
    """At sizes larger than timed: a n² + b n³ through the last two, neither less than nothing.

    The cubic part is what the arithmetic takes, the square one what goes with each row. Products
    and QR decompositions, counted in operations, stay at the rate of the largest.
    """
    if kind in ("product", "qr"):
        return table[top]
    matrix = [[below**2, below**3], [top**2, top**3]]
    det = matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0]
    square = (table[below] * matrix[1][1] - matrix[0][1] * table[top]) / det
    cube = (matrix[0][0] * table[top] - table[below] * matrix[1][0]) / det
    if square < 0 or cube < 0:
        return table[top] * (size / top) ** 3
    return square * size**2 + cube * size**3


@functools.cache
def measured_rates(workers: int, threads: int) -> Rates:
    """Rates while tasks run on so many workers, with so many of PyTorch's threads each.

    They are timed once in a process.
    """
    together = Barrier(workers)
    with ThreadPoolExecutor(workers) as pool:
        try:
            waiting = [pool.submit(_timed, threads, together) for _ in range(workers)]
            tables = [one.result() for one in wait(waiting, return_when=FIRST_EXCEPTION).done]
        except BaseException:
            together.abort()  # or the others would wait for one another for ever
            raise
    means: dict[Kind, dict[int, float]] = {
        kind: {
            size: sum(table[kind][size] for table in tables) / workers for size in tables[0][kind]
        }
        for kind in tables[0]
    }
    # Records are made in Python, of which one thread runs at a time.
    means |= {kind: {0: seconds} for kind, seconds in record_seconds().items()}
    return Rates(means)


def _timed(threads: int, together: Barrier) -> dict[Kind, dict[int, float]]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found: dict[Kind, dict[int, float]] = {}
        for kind, sizes in _SIZES.items():
            found[kind] = {n: _seconds(kind, n, together) / amount_of(kind, n) for n in sizes}
        weights = torch.rand(1024, _PASS // 1024, generator=torch.Generator().manual_seed(0))
        found["stored"] = {0: _repeated(lambda: _widen(weights), together) / _PASS}
        wide = weights.double()
        found["entries"] = {0: _repeated(lambda: wide * 0.5, together) / _PASS}
        return found
    finally:
        torch.set_num_threads(before)


def _widen(weights: Tensor) -> None:
    weights.to(torch.float64).amax()
    storage_noise(weights)


def _seconds(kind: Kind, n: int, together: Barrier) -> float:
    generator = torch.Generator().manual_seed(n)
    one = torch.randn(n, n, generator=generator, dtype=torch.float64)
    if kind in ("eigh", "eigvalsh"):
        one = one @ one.mT
    calls: dict[Kind, Callable[[Tensor], object]] = {
        "product": lambda a: a @ a,
        "qr": torch.linalg.qr,
        "eigh": torch.linalg.eigh,
        "eigvalsh": torch.linalg.eigvalsh,
        "svdvals": torch.linalg.svdvals,
    }
    return _repeated(lambda: calls[kind](one), together)


def _repeated(call: Callable[[], object], together: Barrier) -> float:
    """The median of the times that fit, all workers at once."""
    together.wait()
    taken: Sequence[float] = []
    begin = time.perf_counter()
    while not taken or time.perf_counter() - begin < _LONG:
        start = time.perf_counter()
        call()
        taken = [*taken, time.perf_counter() - start]
    return sorted(taken)[len(taken) // 2]
