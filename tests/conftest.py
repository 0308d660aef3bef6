"""What every test process starts with."""

from __future__ import annotations

import signal

import pytest

# A shell has what it starts in the background ignore Ctrl-C, and children inherit that: the tests
# of interrupts would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests go first: none of them is left to one process at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
