"""The bar on a terminal while parts of the work are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Step = Callable[[int, int, str], None]


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Step | None]:
    """What is called with (parts done, parts in all, name of the part), a bar on stderr.

    None where stderr is not a terminal, and if quiet.
    """
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        work = bar.add_task("reading headers", total=None)

        def step(done: int, total: int, name: str) -> None:
            bar.update(work, completed=done, total=total, description=escape(name))

        yield step
