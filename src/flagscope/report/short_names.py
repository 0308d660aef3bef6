"""A result whose names fit a page: what a file calls its tensors may be of any length."""

from __future__ import annotations

from typing import Any

from flagscope.records import ScanResult
from flagscope.shortening import LONGEST_WORD, shortened


def with_short_names(result: ScanResult) -> ScanResult:
    """The result itself, or a copy in which names of more than 300 letters are shortened.

    The JSON of a scan keeps them whole; a page, a figure and a notebook show them shortened, with
    a digest that distinguishes them.
    """
    if not _has_long(result):
        return result
    return ScanResult.model_validate(_shortened(result.model_dump(by_alias=True)))


def _has_long(result: ScanResult) -> bool:
    names = [result.source, *result.unmapped, *result.notes]
    for pair in result.pairs:
        names += (pair.name, pair.stack, pair.write.tensor, pair.read.tensor)
    if result.health is not None:
        names += [block.name for units in result.health.units for block in units.listed]
        names += [one.name for fault in result.health.faults for one in fault.examples]
    names += [name for group in result.heads for name in (group.tensor, group.stack)]
    return any(len(name) > LONGEST_WORD for name in names)


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(inner) for inner in value]
    return value
