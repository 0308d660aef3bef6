"""Ctrl-C answered at once, also in the middle of a long matrix operation or an import."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
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

    with interrupts_raised():
        Thread(target=run, daemon=True).start()
        while not wait([outcome], timeout=_PATIENCE).done:
            pass
        return outcome.result()


@contextmanager
def interrupts_raised() -> Iterator[None]:
    """KeyboardInterrupt for Ctrl-C, where the command line otherwise ends the process at once.

    For what has something to clear away: a bar on the terminal, half a file.
    """
    before = signal.getsignal(signal.SIGINT)
    if current_thread() is not main_thread() or getattr(before, "__name__", "") != "end_at_once":
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def leave(code: int) -> NoReturn:
    """End the process without waiting for threads that are still at work."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it any more
            continue
    os._exit(code)
