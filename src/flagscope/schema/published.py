"""The schemas made from the records, and the files that they are published as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flagscope.records import HEADS_SCHEMA, SCHEMA, HeadOverlapsRecord, Record, ScanResult
from flagscope.records.comparison import COMPARE_SCHEMA, Comparison
from flagscope.records.monitor_lines import MONITOR_SCHEMA, MonitorLine
from flagscope.records.series import TRACK_SCHEMA, SeriesRecord

SCHEMA_FILE = Path(__file__).with_name("flagscope.scan-2.json")
COMPARE_SCHEMA_FILE = Path(__file__).with_name("flagscope.compare-1.json")
HEADS_SCHEMA_FILE = Path(__file__).with_name("flagscope.heads-1.json")
TRACK_SCHEMA_FILE = Path(__file__).with_name("flagscope.track-1.json")
MONITOR_SCHEMA_FILE = Path(__file__).with_name("flagscope.monitor-1.json")


def scan_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `flagscope scan --json` writes.

    Fields may be added without a new version of the schema, so readers meet unknown ones, and the
    schema allows them.

    Returns
    -------
    dict
        The content of `SCHEMA_FILE`.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 2020-12.

    Examples
    --------
    >>> scan_schema()["properties"]["schema"]["const"]
    'flagscope.scan/2'
    """
    # The records read files of earlier versions too; a scan writes this one.
    return _published(ScanResult, SCHEMA)


def compare_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `flagscope compare --json` writes.

    Returns
    -------
    dict
        The content of `COMPARE_SCHEMA_FILE`.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 2020-12.

    Examples
    --------
    >>> compare_schema()["properties"]["schema"]["const"]
    'flagscope.compare/1'
    """
    return _published(Comparison, COMPARE_SCHEMA)


def heads_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `flagscope heads --json` writes.

    Returns
    -------
    dict
        The content of `HEADS_SCHEMA_FILE`.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 2020-12.

    Examples
    --------
    >>> heads_schema()["properties"]["schema"]["const"]
    'flagscope.heads/1'
    """
    return _published(HeadOverlapsRecord, HEADS_SCHEMA)


def track_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `flagscope track --json` writes.

    Returns
    -------
    dict
        The content of `TRACK_SCHEMA_FILE`.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 2020-12.

    Examples
    --------
    >>> track_schema()["properties"]["schema"]["const"]
    'flagscope.track/1'
    """
    return _published(SeriesRecord, TRACK_SCHEMA)


def monitor_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of each line of a monitor's `monitor.jsonl`.

    Returns
    -------
    dict
        The content of `MONITOR_SCHEMA_FILE`.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 2020-12.

    Examples
    --------
    >>> sorted(monitor_schema()["discriminator"]["mapping"])
    ['alert', 'gap', 'measurement', 'schedule']
    """
    made = MonitorLine.model_json_schema(by_alias=True, mode="serialization")
    return {**_identity(MONITOR_SCHEMA), **_as_written(made)}


def _published(record: type[Record], name: str) -> dict[str, Any]:
    made = record.model_json_schema(by_alias=True, mode="serialization")
    made["properties"]["schema"] = {"const": name, "title": "Schema", "type": "string"}
    return {**_identity(name), **_as_written(made)}


def _identity(name: str) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{name.replace('.', ':', 1).replace('/', ':')}",
    }


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
