"""The published JSON Schema of a scan, `flagscope.scan/2`."""

from flagscope.schema.published import SCHEMA_FILE, scan_schema

__all__ = ["SCHEMA_FILE", "scan_schema"]
