"""The published JSON Schemas: of a scan, `flagscope.scan/2`, and of family files."""

from flagscope.schema.family import FAMILY_SCHEMA_FILE, family_schema
from flagscope.schema.published import SCHEMA_FILE, scan_schema

__all__ = ["FAMILY_SCHEMA_FILE", "SCHEMA_FILE", "family_schema", "scan_schema"]
