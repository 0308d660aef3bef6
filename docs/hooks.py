"""Pages that are made from the package itself, so that they cannot fall behind it."""

from __future__ import annotations

from typing import Any

from flagscope.arch import FamilyInfo, families
from flagscope.diagnose import labels
from flagscope.observables import EXPLANATIONS
from flagscope.records import FREEDOMS
from flagscope.report.glossary import GAUGE, SETTING
from flagscope.report.terms import TERMS


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


_PARTS = {
    "diagnostics": _diagnostics,
    "families": _families,
    "labels": _labels,
    "terms": _terms,
}
