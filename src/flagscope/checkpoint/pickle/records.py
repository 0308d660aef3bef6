"""Placeholders for code that a pickle names or calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Modules by which a pickle reaches the system; what of them is harmless is listed next to it.
_SYSTEM = frozenset((
    "os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "importlib", "runpy",
    "code", "pty", "webbrowser", "builtins", "__builtin__", "__builtins__", "commands",
    "platform", "pip", "multiprocessing", "pickle", "_pickle", "marshal", "dill", "cloudpickle",
    "joblib", "io", "tempfile",
))  # fmt: skip
_SYSTEM_NAMES = ("torch.serialization.load", "torch.serialization.save", "torch.hub.load",
                 "torch.load", "torch.save", "torch.jit.load", "numpy.load")  # fmt: skip
_HARMLESS_BUILTINS = frozenset((
    "set", "frozenset", "list", "dict", "tuple", "object", "slice", "complex", "bytearray",
    "bytes", "int", "float", "bool", "str", "range", "Ellipsis", "NotImplemented", "print",
    "type", "len", "sum", "min", "max", "abs",
))  # fmt: skip


class PickleError(Exception):
    """A pickle that is cut short, inconsistent, or beyond what a checkpoint needs."""


@dataclass(frozen=True, slots=True)
class Global:
    """The name of a function or a class."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.module else self.name

    @property
    def reaches_the_system(self) -> bool:
        """Whether a loader that calls it could start programs, run text as code, or open files."""
        top = self.module.partition(".")[0]
        if top in ("builtins", "__builtin__", "__builtins__"):
            return self.name not in _HARMLESS_BUILTINS
        return top in _SYSTEM or str(self) in _SYSTEM_NAMES


class StandIn:
    """Placeholder of an object: how it was to be made, and what was to be put into it.

    Attributes
    ----------
    what
        The function or class.
    arguments
        What it was to be called with.
    state
        What its `__setstate__` or `__dict__` was to get, None if nothing.
    pairs, items
        What was to be set and appended, where it stands in for a mapping or a sequence; else None.
    """

    __slots__ = ("arguments", "items", "pairs", "state", "what")

    def __init__(self, what: Any, arguments: Any) -> None:
        self.what, self.arguments = what, arguments
        self.state: Any = None
        self.pairs: dict[Any, Any] | None = None
        self.items: list[Any] | None = None

    @property
    def name(self) -> str:
        """The function or class by name."""
        return str(self.what) if isinstance(self.what, Global) else "an object of another object"
