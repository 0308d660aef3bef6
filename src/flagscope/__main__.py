"""`python -m flagscope` and the script `flagscope` are the command line.

An interrupt while the libraries are imported, which takes seconds, would be a traceback from the
middle of one, or be lost in it. So the handler is set before anything else is imported, and ends
the process; what has something to clear away asks for KeyboardInterrupt while it has.
"""

from __future__ import annotations

import gc
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_INTERRUPTED = 130
_SHOW_CURSOR = b"\x1b[?25h"  # a bar of progress may have hidden it


def end_at_once(*_: object) -> NoReturn:
    """End the process: nothing that Python runs can turn this into something else."""
    try:
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + b"interrupted\n")
    finally:
        os._exit(_INTERRUPTED)


def start() -> None:
    """Run the command line and exit with its code."""
    # A shell that starts a command in the background has it ignore interrupts.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    from flagscope.cli import main

    try:
        main()
    finally:
        # At exit Python collects garbage, which would walk all that the libraries made.
        gc.freeze()


if __name__ == "__main__":
    start()
