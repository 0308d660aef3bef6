"""Schedules the tasks of a scan: the order in which they start.

Tasks that read the same tensors follow each other, so that each tensor is read once and dropped
soon. At the end, no worker should be left alone with a large task.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from flagscope.checkpoint import TensorInfo
from flagscope.engine.plan.pieces import Piece
from flagscope.engine.plan.tasks import Task

# Number of tasks per worker, the largest of all, that end a scan, sorted by decreasing size: then
# no worker waits at the end for longer than a small task takes (Graham 1969).
_LAST = 2


def task_order(
    tasks: Sequence[Task], tensors: Mapping[str, TensorInfo], *, workers: int
) -> list[int]:
    """Indices of the tasks in the order in which they should start.

    Parameters
    ----------
    tasks
        In the order of the graph.
    tensors
        Headers, in file order.
    workers
        Number of tasks at once.

    References
    ----------
    R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J. Appl. Math. 17 (1969)
    416-429: longest first takes at most a third more than the optimum.
    """
    order = _by_tensors(tasks, tensors)
    if workers == 1 or not tasks:
        return order
    left = _LAST * workers * max(task.flops for task in tasks)
    cut = len(order)
    while cut and left > 0:
        cut -= 1
        left -= tasks[order[cut]].flops
    return order[:cut] + sorted(order[cut:], key=lambda i: -tasks[i].flops)


def _by_tensors(tasks: Sequence[Task], tensors: Mapping[str, TensorInfo]) -> list[int]:
    """Greedy order from the first tensor in the files: next is always the task that has the least
    left to read among those that share a tensor with the tasks before it."""
    rank = {name: i for i, name in enumerate(sorted(tensors, key=lambda n: tensors[n].file or ""))}
    first = [min((rank[piece.tensor] for piece in task.pieces), default=0) for task in tasks]
    readers: dict[Piece, list[int]] = {}
    for i, task in enumerate(tasks):
        for piece in task.pieces:
            readers.setdefault(piece, []).append(i)
    missing = [task.bytes_read for task in tasks]
    waiting = sorted(range(len(tasks)), key=lambda i: (first[i], i), reverse=True)
    near: list[tuple[int, int, int]] = []
    order: list[int] = []
    placed: set[int] = set()
    while len(order) < len(tasks):
        i = heapq.heappop(near)[2] if near else waiting.pop()
        if i in placed:
            continue
        placed.add(i)
        order.append(i)
        for piece, size in tasks[i].pieces.items():
            for other in readers.pop(piece, ()):
                missing[other] -= size
                heapq.heappush(near, (missing[other], first[other], other))
    return order
