"""Cache of the values of one task: each is computed on first use and dropped after its last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T")


class CountedCache:
    """Cache of values whose number of uses is known.

    Parameters
    ----------
    keys
        One entry for each use; a key that is used twice is listed twice.
    """

    def __init__(self, keys: Iterable[Hashable]) -> None:
        self._uses = Counter(keys)
        self._values: dict[Hashable, object] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, computed on its first use."""
        value = self._values[key] if key in self._values else self._values.setdefault(key, make())
        self._uses[key] -= 1
        if self._uses[key] <= 0:
            del self._values[key]
        return value  # pyright: ignore[reportReturnType] (one key, one type)
