"""The base of all records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

_SHOWN = 6  # entries of a list in a repr


class Record(BaseModel):
    """Base: immutable, and without NaN or infinity.

    Unknown fields are passed over, so that a file of a later release can be read.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True
    )

    def __str__(self) -> str:
        return repr(self)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Fields as a repr shows them: lists of many entries as their number."""
        for name, value in super().__repr_args__():
            many = isinstance(value, (list, tuple, dict)) and len(value) > _SHOWN
            yield name, _Count(len(value)) if many else value


class _Count(int):
    """The number of entries of a list that is too long to show."""

    def __repr__(self) -> str:
        return f"<{int(self):,} entries>"


R = TypeVar("R", bound=Record)


def with_texts(record: R, change: Callable[[str], str]) -> R:
    """The record with every text in it changed, wherever it stands; names of fields stay.

    Examples
    --------
    >>> class Named(Record):
    ...     names: list[str]
    >>> with_texts(Named(names=["a", "b"]), str.upper)
    Named(names=['A', 'B'])
    """

    def through(value: Any) -> Any:
        if isinstance(value, str):
            return change(value)
        if isinstance(value, dict):
            return {key: through(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(through(entry) for entry in value)
        return value

    return type(record).model_validate(through(record.model_dump()))
