"""Text on stdout and stderr: names from files are shown as they are, never obeyed."""

from __future__ import annotations

import os
import sys

import click

from flagscope.cli.spelling import spelt
from flagscope.masking import masked
from flagscope.shortening import shortened


def printable(text: str) -> str:
    r"""Text with what would steer a terminal, or break a line, spelt out.

    Examples
    --------
    >>> print(printable("a\nb\x1b[31m [bold]ρ[/]"))
    a\nb\x1b[31m [bold]ρ[/]
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def log(text: str) -> None:
    """One line on stderr."""
    try:
        # Spelt here: click writes UTF-8 to a stream that says it is ASCII.
        click.echo(spelt(printable(shortened(masked(text))), sys.stderr.encoding), err=True)
    except OSError:
        # Full, or nobody reads it: the exit code says the rest. Python must not try again at exit.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        os.dup2(sys.stderr.fileno(), 2)


def complain(message: str, hint: str) -> None:
    """An error and what to do about it, on stderr."""
    log(f"error: {message}")
    log(f"hint: {hint}")
