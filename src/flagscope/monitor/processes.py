"""Which process of a distributed training measures, and what all of them agree on."""

from __future__ import annotations

from typing import TypeVar

import torch.distributed

T = TypeVar("T")


def measures_here() -> bool:
    """Whether this process measures: rank 0, or the only one there is."""
    return not _distributed() or torch.distributed.get_rank() == 0


def agreed(value: T) -> T:
    """The value of rank 0 on every rank. All ranks have to call it.

    Examples
    --------
    >>> agreed(3)
    3
    """
    if not _distributed():
        return value
    values = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    return values[0]


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
