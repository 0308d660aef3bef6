"""The base of all records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Base: immutable, and without NaN or infinity.

    Unknown fields are passed over, so that a file of a later release can be read.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True
    )


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
