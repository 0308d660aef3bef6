"""A thread that does the next thing while the others compute."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition, Thread


class Ahead:
    """One background thread that is told what to do next, and forgets what it was told before.

    Parameters
    ----------
    do
        Called with the place last given, and with a way to ask whether it is still wanted, which
        is to be asked often. What it raises is dropped: the work is done again by those who need
        it, and the error is then theirs.
    """

    def __init__(self, do: Callable[[int, Callable[[], bool]], None]) -> None:
        self._do = do
        self._change = Condition()
        self._next: int | None = None
        self._turns = 0
        self._stopped = False
        self._thread = Thread(target=self._run, name="flagscope-ahead", daemon=True)
        self._thread.start()

    def turn_to(self, place: int) -> None:
        """Leave what is being done, and do this."""
        with self._change:
            self._next, self._turns = place, self._turns + 1
            self._change.notify()

    def stop(self) -> None:
        """End the thread, and wait until it has ended."""
        with self._change:
            self._stopped, self._turns = True, self._turns + 1
            self._change.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopped or self._next is not None)
                if self._stopped or self._next is None:
                    return
                place, turn, self._next = self._next, self._turns, None
            try:
                self._do(place, lambda now=turn: self._turns == now)
            except Exception:
                continue
