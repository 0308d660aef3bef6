"""Memory that a task has freed, returned to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

# What took less memory leaves nothing that matters.
_FROM = 50_000_000


def return_freed_memory(taken: int) -> None:
    """Return to the system what the C library keeps of freed memory, after a task took so much.

    It keeps blocks of up to 32 MiB for later use: .7 GB after a block of the 7B shape, which the
    next task, of other sizes, would not use. Only glibc is known to do so, and to have a remedy.
    """
    trim = _malloc_trim()
    if trim is not None and taken >= _FROM:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return None
