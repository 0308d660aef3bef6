"""One table of a family file, read key by key, with errors that name the place."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, TypeVar

from flagscope.errors import ArchitectureError

T = TypeVar("T")


class Table:
    """A TOML table under validation: every key is asked for once, `close` refuses the rest.

    Examples
    --------
    >>> table = Table({"module": "mlp.fc1"}, "vit.toml, up")
    >>> table.names("module")
    ('mlp.fc1',)
    >>> table.close()
    """

    def __init__(self, content: Any, place: str) -> None:
        self.place = place
        self._left = dict(self._typed(content, dict, "a table", place))
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def text(self, key: str, default: str | None = None) -> str:
        """A string; required if there is no default."""
        return self._typed(self._take(key, default), str, "a string", f"{self.place}.{key}")

    def look(self, key: str) -> str:
        """A string that is asked for once more; required."""
        value = self.text(key)
        self._left[key] = value
        return value

    def optional_text(self, key: str) -> str | None:
        """A string, or None where the key is absent."""
        return self.text(key) if self._ask(key) else None

    def number(self, key: str, default: float) -> float:
        """A number."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(f"{self.place}.{key}", "a number", value)
        return float(value)

    def flag(self, key: str) -> bool:
        """A truth value, false where the key is absent."""
        return self._typed(self._take(key, False), bool, "true or false", f"{self.place}.{key}")

    def is_flag(self, key: str) -> bool:
        """Whether the key holds true or false, where a table may stand as well."""
        return isinstance(self._left.get(key), bool)

    def names(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A string or an array of strings, as a tuple; required if there is no default."""
        value = self._take(key, default)
        many = [value] if isinstance(value, str) else value
        if not isinstance(many, list | tuple) or not all(isinstance(one, str) for one in many):
            raise _wrong(f"{self.place}.{key}", "a string or an array of strings", value)
        return tuple(many)

    def integers(self, key: str) -> dict[str, int]:
        """A table of integers, empty where the key is absent."""
        value = self._typed(self._take(key, {}), dict, "a table", f"{self.place}.{key}")
        for name, one in value.items():
            if isinstance(one, bool) or not isinstance(one, int):
                raise _wrong(f"{self.place}.{key}.{name}", "an integer", one)
        return dict(value)

    def texts(self, key: str) -> dict[str, str]:
        """A table of strings, empty where the key is absent."""
        value = self._typed(self._take(key, {}), dict, "a table", f"{self.place}.{key}")
        for name, one in value.items():
            self._typed(one, str, "a string", f"{self.place}.{key}.{name}")
        return dict(value)

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """One of the allowed strings."""
        value = self.text(key, default)
        if value not in allowed:
            raise _wrong(f"{self.place}.{key}", f"one of {', '.join(allowed)}", value)
        return value

    def table(self, key: str) -> Table | None:
        """A table within this one, or None where the key is absent."""
        return Table(self._take(key, None), f"{self.place}.{key}") if self._ask(key) else None

    def tables(self, key: str) -> list[Table]:
        """An array of tables, empty where the key is absent."""
        value = self._typed(self._take(key, []), list, "an array", f"{self.place}.{key}")
        return [Table(one, f"{self.place}.{key}[{i}]") for i, one in enumerate(value)]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._left))

    def close(self) -> None:
        """Refuse keys that nobody asked for: they are misspelt or in the wrong place."""
        if self._left:
            key = sorted(self._left)[0]
            near = difflib.get_close_matches(key, set(self._asked), n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise ArchitectureError(
                f"{self.place}: unknown key {key!r}",
                hint=f"{meant}Known keys here: {', '.join(sorted(set(self._asked)))}",
            )

    def _ask(self, key: str) -> bool:
        self._asked.append(key)
        return key in self._left

    def _take(self, key: str, default: Any) -> Any:
        self._ask(key)
        if key not in self._left and default is None:
            near = difflib.get_close_matches(key, self._left, n=1, cutoff=0.7)
            if near:  # misspelt rather than missing
                raise ArchitectureError(
                    f"{self.place}: unknown key {near[0]!r}", hint=f"did you mean {key!r}?"
                )
            raise ArchitectureError(
                f"{self.place}: key {key!r} is missing", hint=f"add {key} to this table"
            )
        return self._left.pop(key, default)

    @staticmethod
    def _typed(value: Any, kind: type[T], words: str, place: str) -> T:
        if not isinstance(value, kind):
            raise _wrong(place, words, value)
        return value


def _wrong(place: str, expected: str, value: object) -> ArchitectureError:
    return ArchitectureError(
        f"{place}: expected {expected}, got {value!r}", hint="correct the family file"
    )
