"""stdout and stderr that are closed, full, or that nobody reads."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from flagscope.cli.spelling import ERRORS
from flagscope.cli.text import complain

_HINT = "give it somewhere to go: a file, a pipe, or /dev/null to have none of it"


class _Noted(io.FileIO):
    """stdout, which keeps the first error of writing to it: a caller may catch it or pass it on."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise


def prepared_streams() -> bool:
    """Make stdout and stderr spell out what they have no letter for; whether stdout is open."""
    open_before = sys.stdout is not None
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream is None:
            # Closed by the shell (`>&-`). Without this the next file that is opened would get its
            # number, and whatever is written to it.
            _to_nowhere(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    _note_stdout()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no ρ shows rho.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
    if not open_before:
        complain("stdout is closed", _HINT)
    return open_before


def stdout_failure() -> OSError | None:
    """Error of writing to stdout; None if all of it was written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Noted) else None


def given_up(error: OSError) -> bool:
    """Forget what stdout could not take, and say so; whether it is to be said.

    A reader that went away (`| head`) is not an error: it has what it wanted.
    """
    # Otherwise Python tries again when it exits, and prints its own error.
    _to_nowhere(sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return False
    complain(f"stdout cannot be written: {error.strerror or error}", _HINT)
    return True


def _note_stdout() -> None:
    """Put the noting file under stdout, unless something else stands in for it already."""
    stdout = sys.stdout
    if stdout is not sys.__stdout__ or not isinstance(stdout, io.TextIOWrapper):
        return
    stdout.flush()
    raw = _Noted(stdout.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stdout.encoding,
        line_buffering=stdout.line_buffering,
        write_through=stdout.write_through,
    )


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
