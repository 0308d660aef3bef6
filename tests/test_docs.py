import ast
import doctest
import re
from pathlib import Path

import pytest

import flagscope

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = Path(flagscope.__file__).parent
MODULE = r"`((?:(?:geometry|null|diagnose|observables|engine|comparison)/[\w/]+|spacing)\.py)`"


@pytest.mark.parametrize("page", ["collapse.md", "monitor.md"])
def test_examples_of_the_pages_run(page):
    found = doctest.testfile(str(DOCS / page), module_relative=False, encoding="utf-8")
    assert found.attempted > 0
    assert found.failed == 0


def defined(module: str) -> set[str]:
    """Names that a module of the package binds itself, imports aside."""
    names = set()
    for node in ast.parse((PACKAGE / module).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_each_formula_is_where_the_architecture_page_says():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|([^|\n]+)\|[^|\n]+\|([^|\n]+)\|([^|\n]+)\|$", text, re.MULTILINE)[2:]
    assert len(rows) > 20
    for quantity, modules, functions in rows:
        named = re.findall(MODULE, modules)
        wanted = set(re.findall(r"`(\w+)`", functions))
        assert named, quantity
        assert wanted, quantity
        assert wanted <= set.union(*map(defined, named)), quantity


@pytest.mark.parametrize("page", ["theory.md", "architecture.md", "glossary.md"])
def test_modules_named_on_a_page_exist(page):
    named = re.findall(MODULE, (DOCS / page).read_text(encoding="utf-8"))
    assert len(named) > 5
    assert all((PACKAGE / module).is_file() for module in named), named


def test_speed_next_to_other_tools_is_what_was_measured():
    peers = (DOCS / "peers.md").read_text(encoding="utf-8")
    measured = (DOCS / "performance.md").read_text(encoding="utf-8")
    ratio = re.search(r"ratio ([\d.]+), 95 % interval ([\d.]+) to ([\d.]+)", peers)
    assert ratio is not None
    value, low, high = ratio.groups()
    assert f"| WeightWatcher analyze() / scan | {value} [{low}, {high}] |" in measured


def test_answers_cite_the_laboratory_as_it_is():
    answers = " ".join((DOCS / "faq.md").read_text(encoding="utf-8").split())
    index = " ".join((DOCS / "lab/index.md").read_text(encoding="utf-8").split())
    for words in ("205 of 209 places", "(0.32)", "(0.72)"):
        assert words.strip("()") in index
        assert words.strip("()") in answers
    lead = (DOCS / "lab/lead-lag.md").read_text(encoding="utf-8")
    assert "20 of 48 runs diverged" in lead
    assert "20 of 48 trainings of a small GPT diverged" in answers
    assert "above 0 in 5 of 20 runs" in lead  # of the training loss
    assert "the training loss five" in answers
    assert "less (ρ = -0.30)" in index
    assert "cost less (-0.30)" in answers
