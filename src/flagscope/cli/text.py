"""Text on stdout and stderr: names from files are shown as they are, never obeyed."""

from __future__ import annotations

import sys

import click

from flagscope.cli.spelling import spelt
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
    # Spelt here: click writes UTF-8 to a stream that says it is ASCII.
    click.echo(spelt(printable(shortened(text)), sys.stderr.encoding), err=True)


def complain(message: str, hint: str) -> None:
    """An error and what to do about it, on stderr."""
    log(f"error: {message}")
    log(f"hint: {hint}")
