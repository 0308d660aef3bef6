"""What the reports of scans, comparisons and series have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Generic, Self, TypeVar

from flagscope.api.saved import saved_record, written
from flagscope.records import Record

R = TypeVar("R", bound=Record)


class BaseReport(ABC, Generic[R]):
    """A result that is read from JSON and written as JSON.

    Attributes
    ----------
    result
        All records, frozen.
    """

    # Of a file that `to_json` wrote: its record, what it is in words, and where it comes from.
    _record: type[R]
    _what: str
    _hint: str

    def __init__(self, result: R, *, given: Iterable[str] = ()) -> None:
        self.result = result
        self._given = tuple(given)  # paths, which stay on this machine

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Read a report back from a file that `to_json` wrote.

        Raises
        ------
        InputError
            If the file is of another schema.
        """
        return cls(saved_record(source, cls._record, what=cls._what, hint=cls._hint))

    def to_json(self, path: str | os.PathLike[str] | None = None, *, paths: bool = False) -> str:
        """The result as JSON text, with its findings; also written to `path` if one is given.

        Absolute paths of this machine are shortened to their last part unless `paths` is True.
        """
        text = self._stored(paths).model_dump_json(by_alias=True, indent=1)
        return written(text, path)

    def _shared(self, paths: bool = False) -> R:
        """The result as others see it: without paths of this machine unless `paths`."""
        return self.result if paths else self._shareable()

    @abstractmethod
    def _shareable(self) -> R:
        """The result without paths of this machine."""

    def _stored(self, paths: bool) -> R:
        """The result as JSON holds it."""
        return self._shared(paths)
