"""Pickles read as data: a call that a pickle asks for is written down, never made.

Python's unpickler finds and calls what a pickle names. This one keeps the names. It knows the
operations that plain values and records need, and refuses all others and every name that its caller
does not list.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from flagscope.errors import CorruptFileError, UnsafeFileError

_MARK = object()
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES"),
}
_ORDERED_DICT = "collections.OrderedDict"


@dataclass(eq=False)
class Record:
    """An object that a pickle describes.

    Attributes
    ----------
    kind
        Full name of the class, function or constant.
    arguments
        What it is called with; None for the bare name.
    state
        What is given to the object afterwards: its attributes, for most classes.
    """

    kind: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None


def inert_value(
    pickled: bytes,
    *,
    allowed: Collection[str] | Callable[[str], bool],
    source: str,
    persistent: bool = False,
) -> Any:
    """What a pickle holds: plain values, and a `Record` for everything else.

    Parameters
    ----------
    pickled
        The pickle.
    allowed
        Full names that it may use, or what decides on one.
    source
        Where it comes from, for the messages.
    persistent
        Whether it may refer to storage outside itself, given as `Record("persistent", (id,))`.

    Raises
    ------
    UnsafeFileError
        If it uses another name, or an operation that only code needs. Nothing is run.
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
    machine = _Machine(allowed if callable(allowed) else allowed.__contains__, source, persistent)
    try:
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise CorruptFileError(
            f"{source} is not a whole pickle: {str(error)[:200] or type(error).__name__}.",
            hint="the file is damaged or was cut short; fetch or save it again.",
        ) from error
    raise CorruptFileError(
        f"{source} is not a whole pickle.", hint="the file is damaged; fetch or save it again."
    )


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self, allowed: Callable[[str], bool], source: str, persistent: bool) -> None:
        self._allowed, self._source, self._persistent = allowed, source, persistent
        self._stack: list[Any] = []
        self._memory: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """One operation."""
        stack = self._stack
        if name in _VALUES:
            stack.append(argument)
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memory[argument])
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            # The memory is a mapping, so that no stated index makes it large.
            self._memory[len(self._memory) if name == "MEMOIZE" else argument] = self.pop(keep=True)
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack.append(tuple([self.pop() for _ in range(count)][::-1]))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_mark()))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = [self.pop()] if name == "APPEND" else self._pop_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self._pop_mark()
            self._fill(items)
        elif name == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            stack.append(self._named(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.pop(), self.pop()
            stack.append(_called(function, arguments))
        elif name == "BUILD":
            state = self.pop()
            self._top(Record).state = state
        elif name == "BINPERSID" and self._persistent:
            stack.append(Record("persistent", (self.pop(),)))
        elif name not in ("PROTO", "FRAME"):
            raise UnsafeFileError(
                f"{self._source} uses the pickle operation {name}, which what it should hold does "
                "not need; nothing of it was run.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )

    def pop(self, *, keep: bool = False) -> Any:
        """The value on top."""
        value = self._stack[-1] if keep else self._stack.pop()
        if value is _MARK:
            raise ValueError("a mark where a value is expected")
        return value

    def _pop_mark(self) -> list[Any]:
        stack, place = self._stack, len(self._stack) - 1
        while stack[place] is not _MARK:  # an IndexError where there is none
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        items = stack[place + 1 :]
        del stack[place:]
        return items

    def _top(self, kind: type[Any]) -> Any:
        value = self._stack[-1]
        if type(value) is not kind:
            raise TypeError(f"a {type(value).__name__} where a {kind.__name__} is expected")
        return value

    def _fill(self, items: list[Any]) -> None:
        mapping = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nested tuples as keys would be hashed in time exponential in their depth.
            if not isinstance(key, (str, int, Record)):
                raise TypeError(f"a key of type {type(key).__name__}")
            mapping[key] = value

    def _named(self, module: Any, attribute: Any) -> Record:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise TypeError("a name that is not a text")
        name = f"{module}.{attribute}"
        if not self._allowed(name):
            raise UnsafeFileError(
                f"{self._source} asks for {name[:100]!r}, which what it should hold does not need; "
                "nothing of it was run.",
                hint="do not use this checkpoint unless you know where it comes from.",
            )
        return Record(name)


def _called(function: Any, arguments: Any) -> Any:
    """The record of a call; an ordered dict is simply a dict."""
    if type(function) is not Record or function.arguments is not None:
        raise TypeError("a call of what is not a name")
    if type(arguments) is not tuple:
        raise TypeError("a call without a tuple of arguments")
    if function.kind == _ORDERED_DICT and not arguments:
        return {}
    return Record(function.kind, arguments)
