"""What the documentation is built from: links to the glossary, the gallery, its checker."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import markdown
import pytest
from markdown.treeprocessors import Treeprocessor

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
GALLERY = DOCS / "gallery"
NUMBERS = sorted(GALLERY.glob("*.json.gz"))


@pytest.fixture(autouse=True)
def folders_of_the_site() -> Iterator[None]:
    """MkDocs and the scripts are run from their own folders."""
    before = sys.path.copy()
    sys.path[:0] = [str(DOCS), str(ROOT / "scripts")]
    yield
    sys.path[:] = before


@pytest.mark.parametrize("file", NUMBERS, ids=lambda file: file.name)
def test_numbers_of_the_gallery_are_small_and_make_a_page(file):
    from gallery_pages import facts, page

    assert file.stat().st_size < 1_000_000
    text = gzip.decompress(file.read_bytes()).decode()
    assert json.loads(text)["schema"].startswith(("flagscope.scan/", "flagscope.compare/"))
    assert not re.search(r'"(?:/|[A-Z]:\\)', text), "an absolute path"
    assert "<title>" in page(file)
    assert re.match(r"[\d,]+ parameters, |Verdict: ", facts(file))


PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("gallery/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_what_the_package_says(page):
    from hooks import filled

    text = page.read_text(encoding="utf-8")
    assert filled(text) == text, "run scripts/fill_docs.py"
    for name in re.findall(r"<!-- (\w+) -->", text):
        between = re.search(f"<!-- {name} -->(.*?)<!-- end of {name} -->", text, re.DOTALL)
        assert between is not None, f"{name} is a mere placeholder"
        assert len(between[1].strip()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere_in_a_bare_clone(page):
    for link in re.findall(r"\]\(([^)\s#]+)", page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("mailto:"):
            assert (page.parent / link).exists(), link


def test_gallery_shows_five_pages_each_with_a_small_picture():
    from hooks import _with_drawn_pages as with_drawn_pages

    names = [file.name.removesuffix(".json.gz") for file in NUMBERS]
    index = (GALLERY / "index.md").read_text(encoding="utf-8")
    assert len(names) == 5
    for name in names:
        assert f"({name}.png)]({name}.png)" in index
        assert f"<!-- facts {name} -->" in index
        assert f"({name}.png)]({name}.html)" in with_drawn_pages(index)
        assert 0 < (GALLERY / f"{name}.png").stat().st_size < 40_000
    assert len(list(GALLERY.glob("*.png"))) == 5


def test_checker_of_the_site_finds_what_leads_nowhere(tmp_path):
    from check_site import broken

    (tmp_path / "a.html").write_text(
        '<a href="b.html">x</a><a href="b.html#there">x</a><a href="https://arxiv.org">x</a>'
        '<a href="b.html#gone">x</a><img src="gone.png"><a href="#gone">x</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there">')
    assert broken(tmp_path) == ["a.html: b.html#gone", "a.html: gone.png", "a.html: #gone"]


def converted(text: str, page: str | None = "lab/pruning.md") -> str:
    """A page as HTML, with links to a glossary of four terms."""
    from term_links import TermLinks

    terms = {
        "test": "A p-value.",
        "family of tests": "All of them.",
        "near-copies": "Heads that are *close*, or [equal](x.md). No more.",
        "rule": "Of rounding.",
    }
    links = TermLinks(
        terms,
        phrases={"near-copies": "near-cop(?:y|ies)"},
        only_on={"rule": "compare.md"},
        glossary="glossary.md",
    )
    links.page = page
    md = markdown.Markdown(extensions=[links, "tables"])
    # By it a page of the site is known, whose links MkDocs resolves.
    md.treeprocessors.register(Treeprocessor(md), "relpath", 0)
    return md.convert(text)


def test_first_use_of_a_term_is_a_link_and_later_ones_are_not():
    html = converted("A near-copy, and *near-copies*.\n\nA near-copy.")
    link = (
        '<a class="term" href="../glossary.md#term-near-copies" '
        'title="Heads that are close, or equal.">near-copy</a>'
    )
    assert html == f"<p>A {link}, and <em>near-copies</em>.</p>\n<p>A near-copy.</p>"


def test_longer_terms_come_first():
    html = converted("The family of\ntests, and a test, and tests.")
    assert re.findall(r"#term-([\w-]+)", html) == ["family-of-tests", "test"]
    assert re.sub(r"<[^>]+>", "", html) == "The family of\ntests, and a test, and tests."


@pytest.mark.parametrize(
    "text",
    ["`a test`", "## A test", "[a test](x.md)", "    a test", "A contest, a pre-test."],
)
def test_code_titles_links_and_parts_of_words_stay_as_they_are(text):
    assert "term" not in converted(text)


def test_everyday_words_are_terms_on_their_own_page_alone():
    assert "term-rule" not in converted("A rule.")
    assert "term-rule" in converted("A rule.", page="compare.md")


def test_pages_that_are_left_alone_and_docstrings_have_no_links():
    assert "term" not in converted("A test.", page=None)


def test_every_term_of_the_glossary_has_one_anchor():
    import hooks
    from term_links import anchor, entries, with_anchors

    text = hooks.filled((DOCS / "glossary.md").read_text(encoding="utf-8"))
    terms = dict(entries(text))
    assert len(terms) > 40
    assert {"Gram matrix", "gauge", "signal rank", "near-copies", "intruder dimension"} <= set(
        terms
    )
    anchored = with_anchors(text)
    assert all(anchored.count(f'id="{anchor(term)}"') == 1 for term in terms)
    assert set(hooks.PHRASES) | set(hooks.ONLY_ON) <= set(terms), "a term that is gone"
