"""Finished tasks, in batches."""

import threading
from concurrent.futures import Future

from flagscope.engine.run.arrivals import Arrivals


def batch(arrivals, *, wait):
    """A batch, or a failure where it never comes."""
    found = []
    thread = threading.Thread(target=lambda: found.append(arrivals.batch(wait=wait)), daemon=True)
    thread.start()
    thread.join(20)
    assert found, "no batch within 20 seconds"
    return found[0]


def test_a_batch_holds_what_has_finished():
    arrivals = Arrivals()
    assert batch(arrivals, wait=False) == []
    futures = [Future() for _ in range(3)]
    for index, future in enumerate(futures):
        arrivals.watch(index, future)
    assert batch(arrivals, wait=False) == []
    futures[2].set_result("c")
    assert batch(arrivals, wait=True) == [(2, futures[2])]
    futures[0].set_result("a")
    futures[1].set_exception(ValueError("b"))
    assert batch(arrivals, wait=True) == [(0, futures[0]), (1, futures[1])]
