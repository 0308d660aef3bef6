"""Docstrings, comments and pages hold none of a short list of banned idioms."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import click
import pytest

from flagscope.cli.main import cli
from flagscope.observables import SERIES_EXPLANATIONS
from flagscope.report.glossary import GAUGE, SETTING
from flagscope.report.terms import FAMILY, TERMS

_ROOT = Path(__file__).resolve().parents[1]
_PACKAGE = _ROOT / "src" / "flagscope"

# Module docstrings of experiments are part of recorded results and their pages.
_RECORDED = re.compile(r"lab/experiments/\w+/experiment\.py")

# Each idiom, and what to write in its place.
_BANNED = {
    r"\b(?:re)?tells?\b|\btelling\b": "say, show, identify, distinguish",
    r"\btold\b": "said, given, distinguished",
    r"\bbeside\b": "next to, alongside, with",
    r"(?<!there )\b(?:is|are) no (?!longer\b|(?:more|less|worse|larger) than\b)[a-z]+": "is not a",
    r"\b(?:goes?|going|went) on (?:from )?where\b": "resumes",
    r"\btyping errors?\b": "typos",
    r"\bso to speak\b": "(say it plainly)",
    # "Names of one's own" is the title of a page, which the command line prints.
    r"(?<!names )\bof one's own\b": "your own, custom",
}


def _docstrings(source: str, *, recorded: bool) -> Iterator[tuple[int, str]]:
    """Docstring lines of a module, its classes, functions and attributes, with their numbers.

    With `recorded`, those of the module itself are left out.
    """
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if recorded and isinstance(node, ast.Module):
            continue
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            # A bare string is a docstring, or the description of the attribute above it.
            match statement:
                case ast.Expr(value=ast.Constant(value=str())):
                    last = statement.end_lineno or statement.lineno
                    yield from enumerate(lines[statement.lineno - 1 : last], statement.lineno)


def _without_examples(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines outside examples, which run from `>>>` to the next blank line."""
    example = False
    for number, line in lines:
        example = bool(line.strip()) and (example or line.lstrip().startswith(">>>"))
        if not example:
            yield number, line


def _python_prose(path: Path) -> Iterator[tuple[int, str]]:
    """Docstring and comment lines of a Python file."""
    source = path.read_text(encoding="utf-8")
    recorded = _RECORDED.search(path.as_posix()) is not None
    yield from _without_examples(_docstrings(source, recorded=recorded))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _page_prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a page outside its fenced code blocks."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def _pages() -> list[Path]:
    pages = [*(_ROOT / "docs").glob("*.md"), *(_ROOT / "docs/gallery").glob("*.md")]
    return [_ROOT / "README.md", *sorted(pages)]


def _idioms(prose: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    """Banned idioms in numbered lines: (line, idiom, what to write in its place).

    An idiom that is broken over two lines counts on the first of them.
    """
    numbered = [(number, re.sub(r"^\s*#\s?|\s+", " ", line).strip()) for number, line in prose]
    for position, (number, line) in enumerate(numbered):
        after, following = numbered[position + 1] if position + 1 < len(numbered) else (0, "")
        text = f"{line} {following}" if after == number + 1 else line
        for idiom, instead in _BANNED.items():
            for match in re.finditer(idiom, text, flags=re.IGNORECASE):
                if match.start() < len(line):
                    yield number, match[0], instead


def _failures(path: Path, prose: Iterator[tuple[int, str]]) -> list[str]:
    name = path.relative_to(_ROOT)
    return [
        f"{name}:{line}: {idiom!r}; write: {instead}" for line, idiom, instead in _idioms(prose)
    ]


def test_docstrings_and_comments_hold_no_banned_idiom():
    failures = [
        failure
        for path in sorted(_PACKAGE.rglob("*.py"))
        for failure in _failures(path, _python_prose(path))
    ]
    assert not failures, "\n".join(failures)


def test_pages_hold_no_banned_idiom():
    failures = [failure for path in _pages() for failure in _failures(path, _page_prose(path))]
    assert not failures, "\n".join(failures)


def test_help_holds_no_banned_idiom():
    for name, command in {"flagscope": cli, **cli.commands}.items():
        text = command.get_help(click.Context(command, info_name=name))
        assert not list(_idioms(iter([(1, " ".join(text.split()))]))), name


def test_glossary_of_a_report_holds_no_banned_idiom():
    words = (text for entry in SERIES_EXPLANATIONS.values() for text in astuple(entry))
    texts = [SETTING, GAUGE, FAMILY, *TERMS.values(), *words]
    failures = [found for text in texts for found in _idioms(iter([(1, text)]))]
    assert not failures, failures


@pytest.mark.parametrize(
    "text",
    [
        "A digest that tells two files apart.",
        "As it was told.",
        "The null is printed beside it.",
        "This is no bound.",
        "Masks are no inputs.",
        "A killed scan goes on where it was.",
        "A killed scan goes on\nwhere it was.",
        "Check for typing errors.",
    ],
)
def test_the_list_finds_an_idiom(text: str):
    assert len(list(_idioms(enumerate(text.splitlines(), start=1)))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "It is no longer read.",
        "There is no bound.",
        "There are no maps.",
        "besides",
        "tellurium",
        "is not a",
    ],
)
def test_the_list_lets_plain_english_pass(text: str):
    assert not list(_idioms(enumerate(text.splitlines(), start=1)))


def test_examples_and_code_strings_are_not_prose(tmp_path: Path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""Title.\n\n>>> 1\nbeside\n\ntold\n"""\nTEXT = "told"  # beside\n', encoding="utf-8"
    )
    assert [line for line, _, _ in _idioms(_python_prose(path))] == [6, 8]
