"""Pickles of known content: read as data, and refused where they name anything else."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flagscope.checkpoint.files.checks import DAMAGED
from flagscope.checkpoint.pickle.machine import Meaning, unpickled
from flagscope.checkpoint.pickle.records import Global, PickleError
from flagscope.errors import CorruptFileError, UnsafeFileError

_MEANINGS: Mapping[str, Meaning] = {
    "collections.OrderedDict": lambda arguments: NotImplemented if arguments else {}
}


def inert_value(
    pickled: bytes, *, allowed: Collection[str] | Callable[[str], bool], source: str
) -> Any:
    """Contents of a pickle: plain values, `Global` for a name, `StandIn` for what is made by one.

    Parameters
    ----------
    pickled
        The pickle.
    allowed
        Full names that it may use, or what decides on one.
    source
        Where it comes from, for the messages.

    Raises
    ------
    UnsafeFileError
        If it uses another name. Nothing is run.
    CorruptFileError
        If it is truncated or inconsistent.

    Examples
    --------
    >>> import pickle
    >>> inert_value(pickle.dumps({"a": [1, (2.5, None)]}), allowed=(), source="example")
    {'a': [1, (2.5, None)]}
    >>> inert_value(pickle.dumps(print), allowed=(), source="example")
    Traceback (most recent call last):
    flagscope.errors.UnsafeFileError: example asks for 'builtins.print', which ...
    """
    names: set[Global] = set()
    try:
        value = unpickled(
            io.BytesIO(pickled), meanings=_MEANINGS, persistent=_refused, names=names, strict=True
        )
    except PickleError as error:
        refuse_others(names, allowed, source)
        raise CorruptFileError(f"{source} is not a whole pickle: {error}.", hint=DAMAGED) from error
    refuse_others(names, allowed, source)
    return value


def refuse_others(
    names: Collection[Global], allowed: Collection[str] | Callable[[str], bool], source: str
) -> None:
    """Refuse a pickle that names what it should not.

    Raises
    ------
    UnsafeFileError
        If one of the names is not allowed.
    """
    fits = allowed if callable(allowed) else allowed.__contains__
    for name in sorted(map(str, names)):
        if not fits(name):
            raise UnsafeFileError(
                f"{source} asks for {name[:100]!r}, which what it should hold does not need; "
                "nothing of it was run.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )


def _refused(_: Any) -> Any:
    raise PickleError("it refers to data outside of it")
