"""Parts of a comparison carried out in threads, their results in one order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flagscope.engine import Progress

T = TypeVar("T")


def in_order(
    parts: Sequence[tuple[str, Callable[[], T]]], *, workers: int, progress: Progress | None
) -> Iterator[T]:
    """Results in the order of the parts, whatever finishes first.

    Parameters
    ----------
    parts
        What to carry out, each with its name.
    workers
        Parts that are carried out at once.
    progress
        Called with (parts done, parts in all, name of the part), in order, by the caller's thread.

    Examples
    --------
    >>> list(in_order([("one", lambda: 1), ("two", lambda: 2)], workers=2, progress=None))
    [1, 2]
    """

    def told(place: int, result: T) -> T:
        if progress is not None:
            progress(place + 1, len(parts), parts[place][0])
        return result

    if workers <= 1:
        for place, (_, part) in enumerate(parts):
            yield told(place, part())
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(part) for _, part in parts]
        try:
            for place, future in enumerate(waiting):
                yield told(place, future.result())
        finally:
            for future in waiting:
                future.cancel()
