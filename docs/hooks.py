"""Pages that are made from the package itself, so that they cannot fall behind it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gallery_pages import facts, page
from markdown.extensions.toc import slugify
from term_links import TermLinks, entries, with_anchors

from flagscope.arch import FamilyInfo, families
from flagscope.diagnose import labels
from flagscope.observables import EXPLANATIONS, Explanation
from flagscope.records import FREEDOMS
from flagscope.report.glossary import GAUGE, SETTING
from flagscope.report.terms import TERMS
from flagscope.schema import family_schema

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


_DOCS = Path(__file__).parent
_GLOSSARY = "glossary.md"
# Pages about the code, where words such as "test" and "flag" are those of programmers.
_UNLINKED = ("contributing/", "reference/", "architecture.md", "lab/new.md", _GLOSSARY)
# What stands for a term on a page, where it is not the term or its plural.
PHRASES = {
    "chance": r"(?:by|beyond|than|from|of) chance",
    "effect": r"(?:by|in order of) effect",
    "forced": r"forced (?:cosines?|intersections?|to meet)",
    "Gram matrix": r"Gram matri(?:x|ces)|Grams",
    "family of tests": r"famil(?:y|ies) of tests",
    "near-copies": r"near[- ]cop(?:y|ies)",
    "test": r"p-values?",
}
# Everyday words elsewhere.
ONLY_ON = dict.fromkeys(("rule", "replay", "strength", "change", "drift"), "compare.md")


def on_config(config: MkDocsConfig) -> None:
    """Add the links to the glossary, whose terms are those of the page itself."""
    global _links
    glossary = filled((_DOCS / _GLOSSARY).read_text(encoding="utf-8"))
    _links = TermLinks(
        dict(entries(glossary)), phrases=PHRASES, only_on=ONLY_ON, glossary=_GLOSSARY
    )
    # The type of the setting knows names alone; MkDocs hands on what it finds there.
    config.markdown_extensions.append(_links)  # pyright: ignore[reportArgumentType]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Draw the pages of the gallery."""
    from mkdocs.structure.files import File

    for numbers in sorted((_DOCS / "gallery").glob("*.json.gz")):
        name = f"gallery/{numbers.name.removesuffix('.json.gz')}.html"
        files.append(File.generated(config, name, content=page(numbers)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Fill the placeholders of a page."""
    name = page.file.src_uri
    _links.page = None if name.startswith(_UNLINKED) else name
    if name.startswith(("reference/", "lab/", "schema.md")):
        # Their many names and numbers would come before the pages that explain them.
        page.meta.setdefault("search", {"boost": 0.3})
    markdown = _with_drawn_pages(filled(markdown))
    return with_anchors(markdown) if name == _GLOSSARY else markdown


def filled(markdown: str) -> str:
    """A page with what the package says of itself between its markers, as it is stored.

    Files hold it, so that they can be read without a build; `scripts/fill_docs.py` writes it.
    """
    for name, make in _PARTS.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if start in markdown:
            made = f"{start}\n\n{make().strip()}\n\n{end}"
            markdown = re.sub(f"{start}.*?{end}", lambda _: made, markdown, flags=re.DOTALL)  # noqa: B023
    return re.sub(
        r"(<!-- facts ([\w-]+) -->).*?(<!-- end of facts -->)",
        lambda match: f"{match[1]}{facts(_numbers(match[2]))}{match[3]}",
        markdown,
    )


def _with_drawn_pages(markdown: str) -> str:
    """Pictures of the gallery lead to the pages, which only the site has."""
    return re.sub(
        r"(\[!\[[^\]]*\]\(((?:gallery/)?[\w-]+)\.png\)\])\(\2\.png\)", r"\1(\2.html)", markdown
    )


def _numbers(name: str) -> Path:
    return _DOCS / "gallery" / f"{name}.json.gz"


def _diagnostics() -> str:
    parts = [SETTING, "", GAUGE, ""]
    for field, e in EXPLANATIONS.items():
        parts += [
            f"## {_heading(e)}",
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


def _heading(e: Explanation) -> str:
    return f"{e.title} ({e.symbol})"


def _numbers_of_a_report() -> str:
    return "\n".join(
        f"- **{e.title}.** {e.symbol}: {e.short[0].lower()}{e.short[1:]} "
        f"([definition](diagnostics.md#{slugify(_heading(e), '-')}))"
        for e in EXPLANATIONS.values()
    )


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
    "numbers": _numbers_of_a_report,
    "terms": _terms,
}
