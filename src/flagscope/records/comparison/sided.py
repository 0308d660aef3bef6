"""Records with two sides, and the same record with the sides exchanged."""

from __future__ import annotations

from typing import Any, Self

from flagscope.records.record import Record

_EXCHANGED = {"a": "b", "b": "a"}


class SidedRecord(Record):
    """A record of two sides: fields a and b, and those that end in _a and _b, belong to one each.

    Examples
    --------
    >>> class Norms(SidedRecord):
    ...     norm_a: float
    ...     norm_b: float
    ...     difference: float
    >>> Norms(norm_a=1.0, norm_b=3.0, difference=2.0).mirrored()
    Norms(norm_a=3.0, norm_b=1.0, difference=-2.0)
    """

    def mirrored(self) -> Self:
        """The record of the same comparison with the sides exchanged.

        A number called difference, which is signed, is negated. Subclasses say what else has an
        order.
        """
        names = type(self).model_fields
        values: dict[str, Any] = {}
        for name in names:
            other = _other(name)
            value = getattr(self, other if other in names else name)
            signed = name == "difference" and isinstance(value, float)
            values[name] = 0.0 - value if signed else _mirrored(value)
        return self.model_copy(update=values)


def _other(name: str) -> str:
    stem, mark, side = name.rpartition("_")
    return stem + mark + _EXCHANGED.get(side, side)


def _mirrored(value: Any) -> Any:
    if isinstance(value, SidedRecord):
        return value.mirrored()
    if isinstance(value, (list, tuple)):
        return type(value)(_mirrored(item) for item in value)
    return value
