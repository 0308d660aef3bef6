"""Links the first use of each term on a page to its entry in the glossary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import shorten
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor
from markdown.util import AtomicString

# Nothing is linked in these: code, titles and links have a look or a target of their own.
_LEFT_ALONE = {"a", "code", "pre", "h1", "h2", "h3", "h4", "h5", "h6", "script", "style", "button"}
_TITLE_LETTERS = 200
_NAMES = ("Gram", "Haar")
# A list item `- **Term.** meaning`, and a row `| term | meaning | `module.py` |`.
_ITEM = re.compile(r"- \*\*([^*]+)\.\*\* (.+)")
_ROW = re.compile(r"\| (.+?) \| (.+) \| (?:`[\w/]+\.py`(?:, )?)+ \|")


def anchor(term: str) -> str:
    """Anchor of a term in the glossary.

    Examples
    --------
    >>> anchor("signal rank")
    'term-signal-rank'
    """
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")


def entries(glossary: str) -> Iterator[tuple[str, str]]:
    """Terms of the glossary, with what they mean: its list items, and rows with a module.

    Examples
    --------
    >>> list(entries("- **Null model.** What chance gives.\\n"))
    [('null model', 'What chance gives.')]
    """
    # A list item may go on in indented lines.
    for line in glossary.replace("\n  ", " ").splitlines():
        if match := _ITEM.fullmatch(line) or _ROW.fullmatch(line):
            yield _term(match[1]), match[2]


def with_anchors(glossary: str) -> str:
    """The glossary with an anchor in front of each term."""
    lines = glossary.splitlines()
    for number, line in enumerate(lines):
        if match := _ITEM.fullmatch(line) or _ROW.fullmatch(line):
            mark = f'{line[:2]}<span id="{anchor(_term(match[1]))}"></span>'
            lines[number] = mark + line[2:]
    return "\n".join(lines)


def _term(words: str) -> str:
    """The term as it stands in a sentence; names such as Haar keep their capital."""
    name = words.removesuffix(" ΔW")
    return name if name.startswith(_NAMES) else name[0].lower() + name[1:]


class TermLinks(Extension):
    """Markdown extension: links terms of the glossary on pages of the site.

    Parameters
    ----------
    terms
        What each term means.
    phrases
        Regular expression of the words that stand for a term, where it is not the term itself.
    only_on
        Page of the site on which alone a term is linked; elsewhere it is an everyday word.
    glossary
        Page of the glossary, from the root of the site.
    """

    def __init__(
        self,
        terms: dict[str, str],
        *,
        phrases: dict[str, str],
        only_on: dict[str, str],
        glossary: str,
    ) -> None:
        super().__init__()
        self._terms, self._phrases = terms, phrases
        self._only_on, self._glossary = only_on, glossary
        self.page: str | None = None  # the page that is converted; None where nothing is linked

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Run after inline marks are parsed, and before MkDocs resolves the links of a page."""
        md.treeprocessors.register(_Linker(md, self), "term_links", 5)

    def target(self, term: str) -> str:
        """Link to a term, from the folder of the page."""
        depth = (self.page or "").count("/")
        return f"{'../' * depth}{self._glossary}#{anchor(term)}"

    def pattern(self) -> re.Pattern[str]:
        """Matches any term that the page may link, as the group of its number."""
        # Longer ones first, so that `family of tests` is one term.
        self._ordered = sorted(self._terms, key=len, reverse=True)
        groups = (
            f"(?P<t{number}>{self._words(term)})"
            for number, term in enumerate(self._ordered)
            if self._only_on.get(term, self.page) == self.page
        )
        return re.compile(rf"(?<![\w-])(?:{'|'.join(groups)})(?![\w-])", re.IGNORECASE)

    def _words(self, term: str) -> str:
        singular = re.escape(term.removesuffix("s")).replace(r"\ ", r"\s+")
        return self._phrases.get(term, f"{singular}s?")

    def term(self, match: re.Match[str]) -> str:
        """The term that matched."""
        return self._ordered[int((match.lastgroup or "t0")[1:])]

    def title(self, term: str) -> str:
        """First sentence of what a term means, without marks of Markdown."""
        words = re.sub(r"[*`\\]|\[([^]]*)\]\([^)]*\)", r"\1", self._terms[term])
        return shorten(re.split(r"(?<=\.) ", words)[0], _TITLE_LETTERS, placeholder=" …")


class _Linker(Treeprocessor):
    def __init__(self, md: Markdown, terms: TermLinks) -> None:
        super().__init__(md)
        self._terms = terms

    def run(self, root: Element) -> None:
        # Docstrings of the reference are converted by other instances, which resolve no links.
        if self._terms.page is None or "relpath" not in self.md.treeprocessors:
            return
        self._pattern, self._seen = self._terms.pattern(), set[str]()
        self._link(root)

    def _link(self, parent: Element) -> None:
        """Link terms in an element and what lies in it, in reading order."""
        if parent.tag in _LEFT_ALONE:
            return
        children = list(parent)
        if parent.text:
            parent.text = self._linked(parent, 0, parent.text)
        for child in children:
            self._link(child)
            if child.tail:
                child.tail = self._linked(parent, list(parent).index(child) + 1, child.tail)

    def _linked(self, parent: Element, place: int, text: str) -> str:
        """Put links for the new terms of a text into its parent; the text in front of the first."""
        if isinstance(text, AtomicString):
            return text
        start, kept, last = 0, text, None
        for match in self._pattern.finditer(text):
            term = self._terms.term(match)
            if term in self._seen:
                continue
            self._seen.add(term)
            before = text[start : match.start()]
            if last is None:
                kept = before
            else:
                last.tail = before
            last = Element("a", {
                "href": self._terms.target(term), "title": self._terms.title(term), "class": "term",
            })  # fmt: skip
            last.text = match[0]
            parent.insert(place, last)
            place, start = place + 1, match.end()
        if last is not None:
            last.tail = text[start:]
        return kept
