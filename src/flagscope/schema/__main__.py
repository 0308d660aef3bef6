"""`python -m flagscope.schema` prints the schema; --write brings the published file up to date."""

from __future__ import annotations

import json
import sys

from flagscope.schema import SCHEMA_FILE, scan_schema
from flagscope.writing import write_whole


def main(arguments: list[str]) -> int:
    """Print or write the schema."""
    text = json.dumps(scan_schema(), indent=1, ensure_ascii=False) + "\n"
    if arguments == ["--write"]:
        write_whole(SCHEMA_FILE, text)
        return 0
    if arguments:
        print("usage: python -m flagscope.schema [--write]", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
