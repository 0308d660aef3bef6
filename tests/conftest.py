"""What every test process starts with."""

from __future__ import annotations

import signal

# A shell has what it starts in the background ignore Ctrl-C, and children inherit that: the tests
# of interrupts would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
