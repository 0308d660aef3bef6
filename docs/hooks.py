"""Pages that are made from the package itself, so that they cannot fall behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flagscope.arch import FamilyInfo, families
from flagscope.diagnose import labels
from flagscope.observables import EXPLANATIONS
from flagscope.records import FREEDOMS
from flagscope.report.glossary import GAUGE, SETTING
from flagscope.report.terms import TERMS
from flagscope.schema import family_schema


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill the placeholders of a page."""
    for name, make in _PARTS.items():
        markdown = markdown.replace(f"<!-- {name} -->", make() if name in markdown else "")
    return markdown


def _diagnostics() -> str:
    parts = [SETTING, "", GAUGE, ""]
    for field, e in EXPLANATIONS.items():
        parts += [
            f"## {e.title} ({e.symbol})",
            "",
            f"*{e.short}* &nbsp; field `{field}`",
            "",
            f"- **Definition.** {e.definition}",
            f"- **Chance.** {e.chance}",
            f"- **Reading.** {e.reading}",
            f"- **When it misleads.** {e.misleads}",
            "",
        ]
    return "\n".join(parts)


def _families() -> str:
    rows = [
        "| family | models | config `model_type` | proven (kind, between, change) | names |",
        "|---|---|---|---|---|",
    ]
    rows += [
        f"| `{f.name}` | {f.title} | {', '.join(f.model_types)} | {_changes(f)} | {_names(f)} |"
        for f in families()
    ]
    return "\n".join(rows)


def _changes(family: FamilyInfo) -> str:
    if family.proof is None:
        return "nothing yet"
    note = (f"*{family.proof.note}*",) if family.proof.note else ()
    return "<br>".join((*family.proof.changes, *note))


def _names(family: FamilyInfo) -> str:
    if family.proof is None:
        return ""
    words = {"same": "live, which are the saved ones", "proven": "live and saved", "none": "module"}
    return words[family.proof.saved]


def _labels() -> str:
    columns = {freedom: labels(freedom) for freedom in FREEDOMS}
    rows = [
        f"| observable | {' | '.join(f'`{f}`' for f in FREEDOMS)} |",
        "|---" * (1 + len(FREEDOMS)) + "|",
    ]
    rows += [
        f"| `{name}` | {' | '.join(columns[f][name] for f in FREEDOMS)} |"
        for name in columns[FREEDOMS[0]]
    ]
    return "\n".join(rows)


def _terms() -> str:
    return "\n".join(f"- **{term[0].upper()}{term[1:]}.** {words}" for term, words in TERMS.items())


def _family_keys() -> str:
    schema = family_schema()
    tables = {"the whole file": schema}
    tables |= {f"`{place}`": schema["definitions"][name] for place, name in _TABLES.items()}
    parts = []
    for place, table in tables.items():
        parts += [f"### {place[0].upper()}{place[1:]}", "", table["description"], ""]
        parts += ["| key | value | meaning |", "|---|---|---|"]
        parts += [
            f"| `{key}`{'' if key in table.get('required', ()) else ' (optional)'} "
            f"| {_value(field)} | {field.get('description', '')} |"
            for key, field in table["properties"].items()
        ]
        parts.append("")
    return "\n".join(parts)


def _value(field: Mapping[str, Any]) -> str:
    """What a key holds, with the default if it has a plain one."""
    kinds = [field, *field.get("anyOf", ())]
    words = " or ".join(word for kind in kinds if (word := _kind(kind)))
    default = field.get("default")
    plain = isinstance(default, str | float | bool) and default != ""
    return f"{words}; `{json.dumps(default)}`" if plain else words


def _kind(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if "items" in field:
        return "strings" if field["items"].get("type") == "string" else "array of tables"
    names = {"boolean": "true or false", "object": "table"}
    kind = field.get("type", "table" if "$ref" in field else "")
    return names.get(kind, kind)


# Where the tables of a family file stand.
_TABLES = {
    "[[stacks]]": "StackRule",
    "[[stacks.attention]]": "AttentionRule",
    "[[stacks.mlp]]": "MlpRule",
    "[[stacks.latent]]": "LatentRule",
    "q, k, v, o, up, gate, down, …": "MapRule",
    "norm": "NormRule",
    "rotary": "RotaryRule",
    "activation": "ActivationRule",
    "eps": "EpsilonRule",
    "[stacks.frame]": "FrameRule",
    "[stacks.stream]": "StreamRule",
    "[[sequences]]": "SequenceRule",
    "[chain]": "ChainRule",
}
_PARTS = {
    "diagnostics": _diagnostics,
    "families": _families,
    "family_keys": _family_keys,
    "labels": _labels,
    "terms": _terms,
}
