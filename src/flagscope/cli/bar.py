"""The bar on a terminal while parts of the work are done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from flagscope.engine import Progress


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress | Literal[False]]:
    """What is called with (parts done, parts in all, name of the part), a bar on stderr.

    False, for no bar, where stderr is not a terminal, and if quiet.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield False
        return
    from flagscope.api.progress import terminal_bar

    with terminal_bar(console) as step:
        yield step
