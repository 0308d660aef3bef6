"""The least arithmetic that a scan has to do, counted by the cost model of the engine and timed.

Counted from the header alone, by the functions of `flagscope.engine.plan.cost`, each distinct piece
once in a whole scan: a map of the stream is decomposed once, whatever tasks share it, and nothing
is measured a second time without its scale profiles. Reading, widening, passes over matrices, null
models and records are what the scan may cost beyond it.

Work in single precision counts as the part of double that it takes in time, as in the cost model.
So all of it is run in float64: products, decompositions and eigenproblems of square matrices of the
smallest dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from time import perf_counter

import torch
from torch import Tensor

from flagscope.api.inspection import Inspection
from flagscope.engine.plan.cost import head_cost, link_cost, pair_cost, single_from, stream_cost
from flagscope.engine.plan.work import Kind, Work, amount_of, total
from flagscope.records import Precision

_CALLS: dict[Kind, Callable[[Tensor], object]] = {
    "product": lambda a: a @ a,
    "qr": torch.linalg.qr,
    "eigh": torch.linalg.eigh,
    "eigvalsh": torch.linalg.eigvalsh,
    "svdvals": torch.linalg.svdvals,
}
# Entries of a batch of small problems.
_BATCH = 2**20


def minimal_work(found: Inspection, *, precision: Precision = "mixed") -> Work:
    """Products, decompositions and eigenproblems of a whole scan.

    Parameters
    ----------
    found
        What `flagscope.inspect` says of the model.
    precision
        The arithmetic of the scan.
    """
    single = single_from(precision)
    costs = []
    for task in found.tasks:
        inside = [pair for pair in task.pairs if pair.kind != "residual"]
        costs += [
            pair_cost(pair, single=single, before=before, repeats=False)
            for before, pair in zip([None, *inside], inside, strict=False)
        ]
        costs += [head_cost(head, single=single, repeats=False) for head in task.heads]
    # Together, so that a map in several tasks counts once.
    along = [pair for task in found.tasks for pair in task.pairs if pair.kind == "residual"]
    costs.append(stream_cost(along, single=single, repeats=False))
    links = [link for task in found.tasks for link in task.links]
    costs.append(link_cost(links, 0, single=single, repeats=False))
    work = total(cost.work for cost in costs)
    return Work(
        {key: amount for key, amount in work.amounts.items() if amount and key[0] in _CALLS}
    )


def timed(work: Work, *, workers: int = 1) -> float:
    """Seconds that the work takes on random operands.

    Parameters
    ----------
    work
        From `minimal_work`.
    workers
        1: one call after the other, each with all threads. More: so many calls at once, the
        largest first, PyTorch's threads shared out among them.
    """
    operands = {(kind, size): _operand(kind, size) for kind, size in work.amounts}
    for (kind, size), operand in operands.items():
        if size < 512:  # a first call sets up what later ones use
            _CALLS[kind](operand)
    calls = sorted(_batches(work), key=lambda call: -call[1])
    threads = torch.get_num_threads()

    def run(call: tuple[Kind, int, int]) -> None:
        kind, size, count = call
        _CALLS[kind](operands[kind, size].expand(count, size, size))

    torch.set_num_threads(max(1, threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            start = perf_counter()
            list(pool.map(run, calls))
            return perf_counter() - start
    finally:
        torch.set_num_threads(threads)


def listing(work: Work) -> list[dict[str, object]]:
    """The work as rows of a table, the most operations first."""
    rows = [
        {"kind": kind, "size": size, "times": amount / amount_of(kind, size),
         "gflop": Work({(kind, size): amount}).flops / 1e9}
        for (kind, size), amount in work.amounts.items()
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -float(str(row["gflop"])))


def _batches(work: Work) -> Iterator[tuple[Kind, int, int]]:
    """(kind, size, number of problems) of each call; small problems are done in batches."""
    for (kind, size), amount in work.amounts.items():
        left, most = ceil(amount / amount_of(kind, size)), max(1, _BATCH // size**2)
        while left > 0:
            yield kind, size, min(left, most)
            left -= most


def _operand(kind: Kind, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(size, 2 * size, generator=generator, dtype=torch.float64)
    # The spectrum of a Gaussian map: how fast divide and conquer goes depends on it.
    return matrix @ matrix.mT if kind in ("eigh", "eigvalsh") else matrix[:, :size].contiguous()
