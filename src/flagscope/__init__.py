"""Alignment of a network's layers and heads, read from its weights alone.

    >>> import flagscope
    >>> report = flagscope.scan("model.safetensors")  # doctest: +SKIP

Names are imported on first use, so that `import flagscope` and the command line start at once.
"""

from __future__ import annotations

from importlib import import_module

# Not from typing, whose import takes as long as all else that the command line starts with.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    __version__: str

    from flagscope import reparameterize
    from flagscope.api.compare import compare
    from flagscope.api.comparison_report import ComparisonReport
    from flagscope.api.head_overlaps import HeadOverlaps, head_overlaps
    from flagscope.api.inspection import Inspection, inspect
    from flagscope.api.report import Report
    from flagscope.api.scan import scan
    from flagscope.api.series_report import SeriesReport
    from flagscope.api.track import track
    from flagscope.arch import FamilyInfo, families
    from flagscope.errors import (
        ArchitectureError,
        CorruptFileError,
        FlagscopeError,
        InputError,
        MissingExtraError,
        MissingFileError,
        SourceError,
        StoreError,
        UnknownDtypeError,
        UnsafeFileError,
    )
    from flagscope.monitor.monitor import AlignmentMonitor
    from flagscope.records import ScanResult

_HOMES = {
    "AlignmentMonitor": "monitor.monitor",
    "compare": "api.compare",
    "ComparisonReport": "api.comparison_report",
    **dict.fromkeys(("HeadOverlaps", "head_overlaps"), "api.head_overlaps"),
    **dict.fromkeys(("Inspection", "inspect"), "api.inspection"),
    "Report": "api.report",
    "scan": "api.scan",
    "SeriesReport": "api.series_report",
    "track": "api.track",
    **dict.fromkeys(("FamilyInfo", "families"), "arch"),
    "ScanResult": "records",
    **dict.fromkeys(
        (
            *("ArchitectureError", "CorruptFileError", "FlagscopeError", "InputError"),
            *("MissingExtraError", "MissingFileError", "SourceError", "StoreError"),
            *("UnknownDtypeError", "UnsafeFileError"),
        ),
        "errors",
    ),
}

__all__ = [
    "AlignmentMonitor",
    "ArchitectureError",
    "ComparisonReport",
    "CorruptFileError",
    "FamilyInfo",
    "FlagscopeError",
    "HeadOverlaps",
    "InputError",
    "Inspection",
    "MissingExtraError",
    "MissingFileError",
    "Report",
    "ScanResult",
    "SeriesReport",
    "SourceError",
    "StoreError",
    "UnknownDtypeError",
    "UnsafeFileError",
    "compare",
    "families",
    "head_overlaps",
    "inspect",
    "reparameterize",
    "scan",
    "track",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("flagscope")
    if name == "reparameterize":
        return import_module("flagscope.reparameterize")
    if name not in _HOMES:
        raise AttributeError(f"module 'flagscope' has no attribute {name!r}")
    return getattr(import_module(f"flagscope.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
