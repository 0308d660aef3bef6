"""Progress of a call that takes time: a bar where somebody watches, or the user's own function."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flagscope.errors import InputError

if TYPE_CHECKING:
    from flagscope.engine import Progress

_PAUSE = 0.1  # seconds between two messages to a notebook


@contextmanager
def shown_progress(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """What to call as parts are done, for as long as the work takes.

    Parameters
    ----------
    progress
        A function, which is called itself; True for a bar, False for none; None for a bar in
        notebooks and interactive sessions, and none in scripts.

    Raises
    ------
    InputError
        If it is something else.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InputError(
            f"progress is of type {type(progress).__name__}",
            hint="give True, False, None, or a function of (done, in all, name)",
        )
    if progress is None:
        progress = _notebook() or _interactive()
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    elif _notebook():
        with _in_a_cell() as step:
            yield step
    else:
        with terminal_bar() as step:
            yield step


@contextmanager
def terminal_bar(console: Any = None) -> Iterator[Progress]:
    """A bar on stderr that is cleared at the end."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    console = console or Console(stderr=True)
    with Bar(*columns, console=console, transient=True) as bar:
        work = bar.add_task("reading headers", total=None)

        def step(done: int, total: int, name: str) -> None:
            bar.update(work, completed=done, total=total, description=escape(name))

        yield step


@contextmanager
def _in_a_cell() -> Iterator[Progress]:
    """A bar below the cell of a notebook; plain HTML, which needs no extension."""
    from html import escape

    from IPython.display import HTML, display

    handle: Any = display(HTML("reading headers"), display_id=True)
    last = 0.0

    def step(done: int, total: int, name: str) -> None:
        nonlocal last
        if done < total and time.monotonic() - last < _PAUSE:
            return
        last = time.monotonic()
        bar = f'<progress value="{done}" max="{total}"></progress>'
        handle.update(HTML(f"{bar} {done} of {total} {escape(name)}"))

    try:
        yield step
    finally:
        handle.update(HTML(""))


def _notebook() -> bool:
    """Whether this is a notebook's kernel."""
    module = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _interactive() -> bool:
    """Whether somebody types at a prompt and sees stderr."""
    return hasattr(sys, "ps1") and sys.stderr is not None and sys.stderr.isatty()
