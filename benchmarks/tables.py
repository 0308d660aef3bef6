"""Tables that a benchmark writes into a page, between two marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def replaced_between(page: Path, name: str, writer: str, lines: Sequence[str]) -> None:
    """Put lines between the marks of a page.

    Raises
    ------
    ValueError
        If the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    first, last = f"<!-- {name}: written by {writer} -->", f"<!-- end of {name} -->"
    if first not in text or last not in text:
        raise ValueError(f"{page} has no place for {name}: it lacks {first!r} or {last!r}")
    before, rest = text.split(first, 1)
    after = rest.split(last, 1)[1]
    made = "\n".join([first, "", *lines, "", last])
    page.write_text(before + made + after, encoding="utf-8")
