"""The schema of family files, by which editors complete and check them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flagscope.arch.rules import Family

FAMILY_SCHEMA_FILE = Path(__file__).with_name("flagscope.family-1.json")


def family_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7, which editors of TOML support) of a family file.

    Returns
    -------
    dict
        The content of `FAMILY_SCHEMA_FILE`.

    References
    ----------
    JSON Schema: A Media Type for Describing JSON Documents, draft 7.

    Examples
    --------
    >>> family_schema()["required"]
    ['name', 'title']
    """
    made = Family.model_json_schema(ref_template="#/definitions/{model}")
    definitions = made.pop("$defs")
    # A map's axes follow from its role where the file does not say them.
    for name in ("MapRule", "SequenceMapRule"):
        definitions[name]["required"] = ["module", "layout"]
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "urn:flagscope:family:1",
        **_as_in_toml(made | {"title": "flagscope family file", "definitions": definitions}),
    }


def _as_in_toml(part: Any) -> Any:
    """The schema without null, which TOML has not, and without titles that repeat the key."""
    if isinstance(part, list):
        return [_as_in_toml(entry) for entry in part if entry != {"type": "null"}]
    if not isinstance(part, dict):
        return part
    made = {key: _as_in_toml(value) for key, value in part.items()
            if not (key == "default" and value is None)}  # fmt: skip
    if isinstance(made.get("properties"), dict):
        for field in made["properties"].values():
            field.pop("title", None)
    alternatives = made.get("anyOf", ())
    if len(alternatives) == 1:
        del made["anyOf"]
        made = alternatives[0] | made
    return made
