"""Guard at the few seams where unforeseen errors arise: turns them into errors of the tree."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flagscope.errors import FlagscopeError, UnforeseenError

_PACKAGE = Path(__file__).parent


@contextmanager
def guarded(doing: str, *, hint: str) -> Iterator[None]:
    """Turn an error that no check foresaw into one with a hint; the cause stays chained to it.

    Parameters
    ----------
    doing
        What is being done, as in "reading model.npz".
    hint
        What the user can do about it.

    Raises
    ------
    UnforeseenError
        For any exception that is not an error of the tree.
    """
    try:
        yield
    except FlagscopeError:
        raise
    except RecursionError as error:
        raise UnforeseenError(f"{doing} failed: it nests too deep", hint=hint) from error
    except MemoryError as error:
        raise UnforeseenError(
            f"{doing} failed: there is not enough memory", hint=f"free some memory; else {hint}"
        ) from error
    except Exception as error:
        raise UnforeseenError(f"{doing} failed: {told(error)}", hint=hint) from error


def told(error: BaseException) -> str:
    """An exception in one line: its type, its first line, and where in the package it arose.

    Examples
    --------
    >>> told(ValueError("no such axis\\nor other"))
    'ValueError: no such axis'
    """
    first = str(error).partition("\n")[0]
    text = f"{type(error).__name__}: {first}" if first else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    # The innermost frame of the package: what lies below it is a library's.
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    own = [frame for frame in own if frame.filename != __file__]
    if not own:
        return text
    place = Path(own[-1].filename).relative_to(_PACKAGE).as_posix()
    return f"{text} at {place}:{own[-1].lineno}"
