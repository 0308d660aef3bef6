"""Paragraphs and tables on stdout, fitted to the terminal, or to nothing in a file or a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from flagscope.cli.spelling import spelt
from flagscope.cli.text import printable
from flagscope.shortening import shortened

# Into a file or a pipe a line stays one line, however long.
_UNLIMITED = 100_000


class Output(Console):
    """The console on stdout: as wide as the terminal, or unlimited where there is none."""

    def __init__(self) -> None:
        fixed = sys.stdout.isatty() or "COLUMNS" in os.environ
        super().__init__(
            width=None if fixed else _UNLIMITED, highlight=False, markup=False, emoji=False
        )

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to the command, which knows that nothing is wrong; rich would exit with 1."""
        raise BrokenPipeError

    def paragraph(self, text: str, *, bullet: str = "", style: str | None = None) -> None:
        """Text wrapped to the console, further lines indented to where the first begins."""
        text, bullet = spelt(printable(shortened(text))), spelt(bullet)
        lines = Text(text).wrap(self, max(20, self.width - len(bullet)))
        for i, line in enumerate(lines):
            line.rstrip()
            front = " " * len(bullet) if i else bullet
            self.print(Text(front) + line, style=style, soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table, without the blanks that would fill its lines up."""
        with self.capture() as captured:
            self.print(table)
        for line in captured.get().splitlines():
            self.file.write(line.rstrip() + "\n")

    def fits(self, table: Table) -> bool:
        """Whether no cell of a table has to wrap."""
        free = self.options.update(width=_UNLIMITED)
        return Measurement.get(self, free, table).maximum <= self.width


def grid(
    columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], *, gap: int = 2
) -> Table:
    """A table without rules; columns are (heading, "left" or "right"), empty ones are left out.

    A heading breaks after its first word where that makes its column narrower.
    """
    # Spelt before it is laid out, so that columns stay columns.
    columns = [(spelt(heading), side) for heading, side in columns]
    rows = [[spelt(printable(shortened(cell))) for cell in row] for row in rows]
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for i in kept:
        heading, side = columns[i]
        longest = max(len(row[i]) for row in rows)
        if longest < len(heading):
            heading = heading.replace(" ", "\n", 1)
        table.add_column(
            Text(heading),
            justify="right" if side == "right" else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(row[i]) for i in kept))
    return table
