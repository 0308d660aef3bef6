"""The schemas made from the records, and the files that they are published as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flagscope.records import HEADS_SCHEMA, SCHEMA, HeadOverlapsRecord, Record, ScanResult
from flagscope.records.comparison import COMPARE_SCHEMA, Comparison
from flagscope.records.monitor_lines import MONITOR_SCHEMA, MonitorLine
from flagscope.records.series import TRACK_SCHEMA, SeriesRecord

_RECORDS: dict[str, type[Record] | type[MonitorLine]] = {
    SCHEMA: ScanResult,
    COMPARE_SCHEMA: Comparison,
    HEADS_SCHEMA: HeadOverlapsRecord,
    TRACK_SCHEMA: SeriesRecord,
    MONITOR_SCHEMA: MonitorLine,
}


def _file(name: str) -> Path:
    """The file that a schema is published as."""
    return Path(__file__).with_name(f"{name.replace('/', '-')}.json")


SCHEMA_FILE = _file(SCHEMA)
COMPARE_SCHEMA_FILE = _file(COMPARE_SCHEMA)
HEADS_SCHEMA_FILE = _file(HEADS_SCHEMA)
TRACK_SCHEMA_FILE = _file(TRACK_SCHEMA)
MONITOR_SCHEMA_FILE = _file(MONITOR_SCHEMA)


def scan_schema() -> dict[str, Any]:
    """The schema of `flagscope scan --json`; the content of `SCHEMA_FILE`.

    Fields may be added without a new version of the schema, so readers meet unknown ones, and the
    schema allows them.
    """
    return _published(SCHEMA)


def compare_schema() -> dict[str, Any]:
    """The schema of `flagscope compare --json`; the content of `COMPARE_SCHEMA_FILE`."""
    return _published(COMPARE_SCHEMA)


def heads_schema() -> dict[str, Any]:
    """The schema of `flagscope heads --json`; the content of `HEADS_SCHEMA_FILE`."""
    return _published(HEADS_SCHEMA)


def track_schema() -> dict[str, Any]:
    """The schema of `flagscope track --json`; the content of `TRACK_SCHEMA_FILE`."""
    return _published(TRACK_SCHEMA)


def monitor_schema() -> dict[str, Any]:
    """The schema of each line of a monitor's `monitor.jsonl`; the content of `MONITOR_SCHEMA_FILE`.

    Examples
    --------
    >>> sorted(monitor_schema()["discriminator"]["mapping"])
    ['alert', 'gap', 'measurement', 'schedule']
    """
    return _published(MONITOR_SCHEMA)


def _published(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a name, made from its record.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 2020-12.

    Examples
    --------
    >>> [_published(name)["properties"]["schema"]["const"] for name in list(_RECORDS)[:4]]
    ['flagscope.scan/2', 'flagscope.compare/1', 'flagscope.heads/1', 'flagscope.track/1']
    """
    made = _RECORDS[name].model_json_schema(by_alias=True, mode="serialization")
    if "properties" in made:  # a line of a monitor is one of several records
        # Records read files of earlier versions too; this is the one that is written.
        made["properties"]["schema"] = {"const": name, "title": "Schema", "type": "string"}
    identity = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{name.replace('.', ':', 1).replace('/', ':')}",
    }
    return {**identity, **_as_written(made)}


def _as_written(part: Any) -> Any:
    """The schema with every known field required: all are written."""
    if isinstance(part, list):
        return [_as_written(one) for one in part]
    if not isinstance(part, dict):
        return part
    made = {key: _as_written(value) for key, value in part.items()}
    if made.get("type") == "object" and isinstance(made.get("properties"), dict):
        made["required"] = list(made["properties"])
    return made
