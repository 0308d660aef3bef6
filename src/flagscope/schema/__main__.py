"""`python -m flagscope.schema` prints the schema of a scan, with `family` that of family files.

--write brings both published files up to date.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from flagscope.schema import FAMILY_SCHEMA_FILE, SCHEMA_FILE, family_schema, scan_schema
from flagscope.writing import write_whole


def main(arguments: list[str]) -> int:
    """Print a schema, or write both."""
    if arguments == ["--write"]:
        write_whole(SCHEMA_FILE, _text(scan_schema()))
        write_whole(FAMILY_SCHEMA_FILE, _text(family_schema()))
        return 0
    if arguments not in ([], ["family"]):
        print("usage: python -m flagscope.schema [family | --write]", file=sys.stderr)
        return 2
    made = family_schema() if arguments else scan_schema()
    sys.stdout.buffer.write(_text(made).encode())
    return 0


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
