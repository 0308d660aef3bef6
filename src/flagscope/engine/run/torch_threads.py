"""Shares PyTorch's threads among tasks that run at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(workers: int) -> Iterator[None]:
    """Give each of several workers its share of PyTorch's threads within a context.

    Most operations are small: several tasks at once with few threads each keep the cores busy,
    while many threads on one operation would wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
