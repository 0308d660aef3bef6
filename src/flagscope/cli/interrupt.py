"""Ctrl-C answered at once, also in the middle of a long matrix operation."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import NoReturn, TypeVar

R = TypeVar("R")

# Waiting without end cannot be interrupted on Windows.
_PATIENCE = 0.1


def interruptible(work: Callable[[], R]) -> R:
    """The result of `work`, done in another thread while this one stays free to be interrupted.

    A matrix operation does not look for signals until it is over, which may take minutes.

    Raises
    ------
    KeyboardInterrupt
        At once when interrupted; `work` may then still run, and `leave` ends it.

    Examples
    --------
    >>> interruptible(lambda: 6 * 7)
    42
    """
    outcome: Future[R] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # handed on to the waiting thread
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    while not wait([outcome], timeout=_PATIENCE).done:
        pass
    return outcome.result()


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads that are still at work."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            continue
    os._exit(code)
