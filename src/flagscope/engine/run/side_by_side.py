"""Runs independent parts of one task at once, in threads that share the task's cores.

The eigenproblems of heads leave most of several cores idle, and several of them at once do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def side_by_side(parts: Sequence[Callable[[], T]]) -> list[T]:
    """The results of parts of a task, in their order.

    Each part has its share of PyTorch's threads, whatever the others take: a repeated scan gives
    the same digits. The first error is raised after the parts that run have ended.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(parts))
    if workers < 2:
        return [part() for part in parts]

    def run(part: Callable[[], T]) -> T:
        # A thread that has not asked before takes the number that another set last.
        torch.get_num_threads()
        torch.set_num_threads(threads // workers)
        return part()

    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(run, parts))
        finally:
            # What has not started after an error does not.
            pool.shutdown(cancel_futures=True)
