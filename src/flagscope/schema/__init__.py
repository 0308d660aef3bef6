"""The published JSON Schemas: of a scan, a comparison, heads, a series, a monitor, and families."""

from flagscope.schema.family import FAMILY_SCHEMA_FILE, family_schema
from flagscope.schema.published import (
    COMPARE_SCHEMA_FILE,
    HEADS_SCHEMA_FILE,
    MONITOR_SCHEMA_FILE,
    SCHEMA_FILE,
    TRACK_SCHEMA_FILE,
    compare_schema,
    heads_schema,
    monitor_schema,
    scan_schema,
    track_schema,
)

__all__ = [
    "COMPARE_SCHEMA_FILE",
    "FAMILY_SCHEMA_FILE",
    "HEADS_SCHEMA_FILE",
    "MONITOR_SCHEMA_FILE",
    "SCHEMA_FILE",
    "TRACK_SCHEMA_FILE",
    "compare_schema",
    "family_schema",
    "heads_schema",
    "monitor_schema",
    "scan_schema",
    "track_schema",
]
