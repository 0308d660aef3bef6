"""Stack machine for pickles that calls nothing and imports nothing.

`pickle.Unpickler` calls whatever the file names. Here a name stays a name (`Global`), and a call
of it, or an object built by it, becomes a `StandIn` that keeps the arguments and the state. Only
what `meanings` lists is replaced by a value: the few functions by which tensors are pickled, each
of which gets the arguments as they are recorded.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flagscope.checkpoint.pickle.records import Global, PickleError, StandIn
from flagscope.errors import FlagscopeError

# An instruction of one byte may make an object of some hundred, and takes a microsecond. The
# checkpoints of the largest models have less than a million.
MOST_INSTRUCTIONS = 20_000_000
_LARGE = 2**60  # integers from here on may share their hash, by the thousand


class Stream(Protocol):
    """Source of bytes: a file, or bytes behind `io.BytesIO`."""

    def read(self, n: int = -1, /) -> bytes:
        """At most n bytes."""
        ...

    def readline(self) -> bytes:
        """One line, with its end."""
        ...

    def tell(self) -> int:
        """Position of the next byte."""
        ...


class _Mark:
    """Where a group of operands begins."""


_MARK = _Mark()
Meaning = Callable[[Any], Any]


def unpickled(
    stream: Stream,
    *,
    meanings: Mapping[str, Meaning],
    persistent: Callable[[Any], Any],
    names: set[Global],
    strict: bool = False,
) -> Any:
    """The object that the next pickle of a stream describes.

    Parameters
    ----------
    stream
        Read up to the end of the pickle, and no further.
    meanings
        For the functions that are understood, by their names with dots: what a call of it with
        these arguments stands for. It returns NotImplemented where it does not understand them.
    persistent
        What an object stands for that lies outside of the pickle.
    names
        Gets every function and class that the pickle names, whether understood or not.
    strict
        Whether to refuse what only odd objects need: calls of what is not a name, states of plain
        values, keys that are neither texts, numbers nor objects.

    Returns
    -------
    object
        Numbers, texts, lists, tuples, dicts (sets as lists), `Global`, `StandIn`, and what
        `meanings` and `persistent` give. Keys of dicts that could not be hashed safely are plain
        objects.

    Raises
    ------
    PickleError
        If the pickle is not whole, or has more than twenty million instructions; if it is `strict`,
        for odd objects.

    References
    ----------
    The instructions of all protocols: `pickletools` of the standard library, PEP 307, 3154, 574.

    Examples
    --------
    >>> import io, os, pickle
    >>> class Trap:
    ...     def __reduce__(self): return os.getcwd, ()
    >>> names = set()
    >>> pickled = io.BytesIO(pickle.dumps({"a": [1, (2, 3)], "trap": Trap()}))
    >>> found = unpickled(pickled, meanings={}, persistent=str, names=names)
    >>> found["a"], found["trap"].name, names == {found["trap"].what}
    ([1, (2, 3)], 'posix.getcwd', True)
    """
    machine = _Machine(meanings, persistent, names, strict=strict)
    try:
        for count, (code, operand, _) in enumerate(pickletools.genops(stream)):  # pyright: ignore[reportArgumentType]
            if count > MOST_INSTRUCTIONS:
                raise PickleError("it has more instructions than any checkpoint needs")
            if code.name == "STOP":
                return machine.pop()
            machine.step(code.name, operand)
    except (PickleError, FlagscopeError, MemoryError):
        raise
    except Exception as error:
        # pickletools raises ValueError, and what a reader of binary data trips over else.
        raise PickleError(str(error).partition("\n")[0][:200] or type(error).__name__) from error
    raise PickleError("it does not end")


class _Machine:
    """The stack, the marks and the memo."""

    def __init__(
        self,
        meanings: Mapping[str, Meaning],
        persistent: Callable[[Any], Any],
        names: set[Global],
        *,
        strict: bool,
    ) -> None:
        self._meanings, self._persistent, self._names = meanings, persistent, names
        self._strict = strict
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, code: str, operand: Any) -> None:
        """Carry out one instruction."""
        if code in _CONSTANTS:
            self._stack.append(_CONSTANTS[code])
        elif code in _VALUES:
            self._stack.append(operand)
        elif code in _EMPTY:
            self._stack.append(_EMPTY[code]())
        elif code in _GET:
            if operand not in self._memo:
                raise PickleError("it takes an object from its memo that is not there")
            self._stack.append(self._memo[operand])
        elif code in _PUT:
            self._memo[len(self._memo) if operand is None else operand] = self._top()
        elif code in _FRAMES:
            return
        else:
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"its instruction {code} refers to data outside of the file")
            step(self, operand)

    def pop(self) -> Any:
        """The topmost object."""
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("it takes an object from an empty stack")
        return self._stack.pop()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleError("it takes an object from an empty stack")
        return self._stack[-1]

    def _to_mark(self) -> list[Any]:
        """Pop the operands above the last mark, and the mark."""
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise PickleError("it takes a group that does not begin")

    def _mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _drop(self, _: Any) -> None:
        if not self._stack:
            raise PickleError("it takes an object from an empty stack")
        self._stack.pop()

    def _drop_to_mark(self, _: Any) -> None:
        self._to_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._top())

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._to_mark()))

    def _list(self, _: Any) -> None:
        self._stack.append(self._to_mark())

    def _dict(self, _: Any) -> None:
        items = self._to_mark()
        self._stack.append({})
        self._set(items)

    def _append(self, _: Any) -> None:
        self._extend([self.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._to_mark())

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            target.items = target = [] if target.items is None else target.items
        if not isinstance(target, list):
            raise PickleError(f"it appends to a {type(target).__name__}")
        target.extend(items)

    def _set_item(self, _: Any) -> None:
        value = self.pop()
        self._set([self.pop(), value])

    def _set_items(self, _: Any) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, StandIn):
            target.pairs = target = {} if target.pairs is None else target.pairs
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError(f"it sets items of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            known = _hashable(key)
            if self._strict and known is not key:
                raise PickleError(f"a key of type {type(key).__name__}")
            target[known] = value

    def _global(self, operand: str) -> None:
        module, _, name = operand.partition(" ")
        self._named(module, name)

    def _stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("it names a function by something that is no text")
        self._named(module, name)

    def _extension(self, operand: int) -> None:
        self._named("copyreg", f"extension {operand}")

    def _named(self, module: str, name: str) -> None:
        found = Global(module, name)
        self._names.add(found)
        self._stack.append(found)

    def _reduce(self, _: Any) -> None:
        arguments = self.pop()
        self._stack.append(self._called(self.pop(), arguments))

    def _new_with_keywords(self, _: Any) -> None:
        keywords, arguments = self.pop(), self.pop()
        made = StandIn(self.pop(), arguments)
        made.state = keywords
        self._stack.append(made)

    def _instance(self, operand: str) -> None:
        arguments = tuple(self._to_mark())
        self._global(operand)
        self._stack.append(self._called(self.pop(), arguments))

    def _object(self, _: Any) -> None:
        found = self._to_mark()
        if not found:
            raise PickleError("it makes an object of no class")
        self._stack.append(self._called(found[0], tuple(found[1:])))

    def _called(self, what: Any, arguments: Any) -> Any:
        if self._strict and not (isinstance(what, Global) and isinstance(arguments, tuple)):
            raise PickleError("a call of what is no name, or without a tuple of arguments")
        meaning = self._meanings.get(str(what)) if isinstance(what, Global) else None
        if meaning is not None:
            value = meaning(arguments)
            if value is not NotImplemented:
                return value
        return StandIn(what, arguments)

    def _build(self, _: Any) -> None:
        state = self.pop()
        target = self._top()
        if isinstance(target, StandIn):
            target.state = state
        elif self._strict:
            raise PickleError(f"a state of a {type(target).__name__}")

    def _persistent_text(self, operand: Any) -> None:
        self._stack.append(self._persistent(operand))

    def _persistent_object(self, _: Any) -> None:
        self._stack.append(self._persistent(self.pop()))


def _hashable(key: Any) -> Any:
    """A key whose hash nobody can choose, so that none can make a dict slow; else an object."""
    if key is None or isinstance(key, (str, bytes, Global, StandIn)):
        return key
    if isinstance(key, int) and abs(key) < _LARGE:
        return key
    return object()


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine._stack.append(tuple(reversed(items)))

    return step


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": dict}
_VALUES = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
))  # fmt: skip
_GET = frozenset(("GET", "BINGET", "LONG_BINGET"))
_PUT = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_FRAMES = frozenset(("PROTO", "FRAME"))
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._drop,
    "POP_MARK": _Machine._drop_to_mark,
    "DUP": _Machine._duplicate,
    "TUPLE": _Machine._tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": _Machine._list,
    "FROZENSET": _Machine._list,
    "DICT": _Machine._dict,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "ADDITEMS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "EXT1": _Machine._extension,
    "EXT2": _Machine._extension,
    "EXT4": _Machine._extension,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "NEWOBJ_EX": _Machine._new_with_keywords,
    "INST": _Machine._instance,
    "OBJ": _Machine._object,
    "BUILD": _Machine._build,
    "PERSID": _Machine._persistent_text,
    "BINPERSID": _Machine._persistent_object,
}
