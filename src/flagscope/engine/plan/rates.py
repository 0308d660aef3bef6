"""Benchmarks this machine for estimates: times each kind of work, about a second in all.

Each kind is timed at a few sizes, on as many threads at once as tasks will run, since these share
memory and caches. CPU time is measured, so that other programs do not count.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from flagscope.engine.plan.work import Kind, Work, amount_of
from flagscope.null import storage_noise

_SIZES: dict[Kind, tuple[int, ...]] = {
    "product": (32, 128, 512),
    "qr": (32, 128, 512),
    "eigh": (32, 128, 512, 1024),
    "eigvalsh": (32, 128, 512),
    "svdvals": (32, 128, 512),
}
_DECOMPOSITIONS: dict[Kind, Callable[[Tensor], object]] = {
    "qr": torch.linalg.qr,
    "eigh": torch.linalg.eigh,
    "eigvalsh": torch.linalg.eigvalsh,
    "svdvals": torch.linalg.svdvals,
}
# Overhead of a record (null models, tests, Python), in units of eigenvalue problems of size 32:
# between those of trained networks of 128 and 384 dimensions, and of a random one of 256.
_RECORDS: dict[Kind, float] = {"pair": 200.0, "head": 40.0, "link": 35.0}
_ENTRIES = 2**20
# Seconds for which a short call is repeated.
_LONG = 0.02


@dataclass(frozen=True)
class Rates:
    """Seconds that this machine takes for each kind of work.

    Parameters
    ----------
    seconds
        By kind, and by size if the kind has one, for the unit in which `Work` counts: a problem, an
        operation, a number, a record.
    """

    seconds: Mapping[Kind, Mapping[int, float]]

    def of(self, work: Work) -> float:
        """Seconds for an amount of work."""
        return sum(amount * self._one(kind, size) for (kind, size), amount in work.amounts.items())

    def _one(self, kind: Kind, size: int) -> float:
        """Seconds per unit: a power law between the timed sizes, cubic beyond them."""
        table = self.seconds[kind]
        if 0 in table:
            return table[0]
        sizes = sorted(table)
        first, last = sizes[0], sizes[-1]
        if size >= last:
            problem = table[last] * amount_of(kind, last) * (size / last) ** 3
            return problem / amount_of(kind, size)
        if size <= first:
            # Below the smallest timed size, the overhead of the call dominates.
            return table[first] * amount_of(kind, first) / amount_of(kind, max(1, size))
        above = next(timed for timed in sizes if timed >= size)
        below = sizes[sizes.index(above) - 1]
        share = math.log(size / below) / math.log(above / below)
        return table[below] ** (1 - share) * table[above] ** share


@functools.cache
def measured_rates(workers: int, threads: int) -> Rates:
    """Rates while `workers` tasks run at once, with `threads` PyTorch threads each.

    They are timed once per process.
    """
    with ThreadPoolExecutor(workers) as pool:
        tables = list(pool.map(_timed, [threads] * workers))
    return Rates({
        kind: {size: sum(table[kind][size] for table in tables) / workers for size in sizes}
        for kind, sizes in tables[0].items()
    })  # fmt: skip


def _timed(threads: int) -> dict[Kind, dict[int, float]]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        table: dict[Kind, dict[int, float]] = {
            kind: {size: _seconds(kind, size) / amount_of(kind, size) for size in sizes}
            for kind, sizes in _SIZES.items()
        }
        weights = torch.rand(1024, _ENTRIES // 1024, generator=torch.Generator().manual_seed(0))
        table["stored"] = {0: _repeated(lambda: _widen(weights)) / _ENTRIES}
        wide = weights.double()
        table["entries"] = {0: _repeated(lambda: wide * 0.5) / _ENTRIES}
        small = table["eigvalsh"][32]
        table.update({kind: {0: count * small} for kind, count in _RECORDS.items()})
        return table
    finally:
        torch.set_num_threads(before)


def _widen(weights: Tensor) -> None:
    weights.to(torch.float64).amax()
    storage_noise(weights)


def _seconds(kind: Kind, n: int) -> float:
    generator = torch.Generator().manual_seed(n)
    matrix = torch.randn(n, n, generator=generator, dtype=torch.float64)
    if kind == "product":
        return _repeated(lambda: matrix @ matrix)
    symmetric = matrix @ matrix.mT if kind in ("eigh", "eigvalsh") else matrix
    return _repeated(lambda: _DECOMPOSITIONS[kind](symmetric))


def _repeated(call: Callable[[], object]) -> float:
    """Mean seconds of the calls that fit in the time, after a first call as warm-up."""
    call()
    count, start = 0, time.thread_time()
    while not count or time.thread_time() - start < _LONG:
        call()
        count += 1
    return (time.thread_time() - start) / count
