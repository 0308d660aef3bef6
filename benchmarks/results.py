"""Results as they are kept: one JSON file, written after every single measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA = "flagscope.benchmarks/1"


class Results:
    """All parts in one file; `rows` of a part are lists of repeated measurements by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.content: dict[str, Any] = {"schema": SCHEMA, "parts": {}}
        if path.is_file():
            self.content = json.loads(path.read_text(encoding="utf-8"))
            if self.content.get("schema") != SCHEMA:
                raise SystemExit(f"{path} does not follow {SCHEMA}: move it away")

    def begin(self, part: str, machine: Mapping[str, Any], *, resume: bool) -> None:
        """Make room for a part, or go on with what there is of it."""
        if not resume or part not in self.content["parts"]:
            now = datetime.now(UTC).strftime("%Y-%m-%d")
            self.content["parts"][part] = {
                "date": now, "machine": dict(machine), "facts": {}, "rows": {}
            }  # fmt: skip
        self._save()

    def fact(self, part: str, name: str, value: Any) -> None:
        """Keep what is known and not measured repeatedly: counts, assumptions, listings."""
        self.content["parts"][part]["facts"][name] = value
        self._save()

    def facts(self, part: str) -> dict[str, Any]:
        """What is known by name."""
        return self.content["parts"][part]["facts"]

    def append(self, part: str, values: Mapping[str, float]) -> None:
        """Add one measurement to each of these rows."""
        for name, value in values.items():
            self.rows(part).setdefault(name, []).append(float(value))
        self._save()

    def rows(self, part: str) -> dict[str, list[float]]:
        """Measurements by name."""
        return self.content["parts"][part]["rows"]

    def count(self, part: str, prefix: str) -> int:
        """How often what begins so has been measured."""
        return max((len(v) for k, v in self.rows(part).items() if k.startswith(prefix)), default=0)

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".part")
        text = json.dumps(self.content, indent=1, default=float)
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(self._path)
