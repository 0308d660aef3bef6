"""`python -m flagscope.schema` prints the schema of a scan.

`compare`, `heads`, `track`, `monitor` and `family` as an argument print the others; --write brings
all published files up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flagscope.schema import (
    COMPARE_SCHEMA_FILE,
    FAMILY_SCHEMA_FILE,
    HEADS_SCHEMA_FILE,
    MONITOR_SCHEMA_FILE,
    SCHEMA_FILE,
    TRACK_SCHEMA_FILE,
    compare_schema,
    family_schema,
    heads_schema,
    monitor_schema,
    scan_schema,
    track_schema,
)
from flagscope.writing import write_whole

_SCHEMAS: dict[str, tuple[Path, Callable[[], dict[str, Any]]]] = {
    "scan": (SCHEMA_FILE, scan_schema),
    "compare": (COMPARE_SCHEMA_FILE, compare_schema),
    "heads": (HEADS_SCHEMA_FILE, heads_schema),
    "track": (TRACK_SCHEMA_FILE, track_schema),
    "monitor": (MONITOR_SCHEMA_FILE, monitor_schema),
    "family": (FAMILY_SCHEMA_FILE, family_schema),
}


def main(arguments: list[str]) -> int:
    """Print a schema, or write all."""
    if arguments == ["--write"]:
        for path, made in _SCHEMAS.values():
            write_whole(path, _text(made()))
        return 0
    name = arguments[0] if len(arguments) == 1 else "scan"
    if len(arguments) > 1 or name not in _SCHEMAS:
        print(f"usage: python -m flagscope.schema [{' | '.join(_SCHEMAS)} | --write]",
              file=sys.stderr)  # fmt: skip
        return 2
    sys.stdout.buffer.write(_text(_SCHEMAS[name][1]()).encode())
    return 0


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
