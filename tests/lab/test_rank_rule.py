"""No number of the laboratory hangs on the library's default rule for dominant ranks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from flagscope.geometry import participation_ratio
from flagscope.lab import gpt_alignment
from flagscope.lab.experiments.kernel_vs_read.intersections import intersections
from flagscope.lab.gpt import GPTShape, initial_state
from flagscope.lab.rank_rule import LAB_RULE, lab_rule

ROOT = Path(__file__).parents[2]
# What takes a rule and has one by default.
RULES = {"scan": "rank", "alignment_levels": "rule", "pair_records": "rule"}
FILES = sorted(
    path
    for folder in ("src/flagscope/lab", "scripts", "tests/lab")
    for path in (ROOT / folder).rglob("*.py")
)


def calls_without_rule(code: str) -> list[int]:
    """Lines on which the library is called and the rule left to it."""
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if names_no_rule(call)]


def names_no_rule(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name == "scan" and not (isinstance(owner, ast.Name) and owner.id == "flagscope"):
        return False
    return name in RULES and RULES[name] not in {word.arg for word in call.keywords}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_call_names_its_rule(path):
    assert calls_without_rule(path.read_text(encoding="utf-8")) == []


def test_a_call_without_a_rule_is_seen():
    code = "flagscope.scan(x)\nalignment_levels(a, b)\nflagscope.scan(x, rank='fixed:2')\n"
    assert calls_without_rule(code) == [1, 2]


def test_the_rule_is_the_participation_ratio():
    """The pages were made with it: another rule would be another laboratory."""
    assert LAB_RULE == "participation"
    sigma = torch.linspace(3, 0.1, 9, dtype=torch.float64)
    expected = round(float(participation_ratio(sigma)))
    assert lab_rule().rank(sigma, shape=(9, 12)) == expected


def test_intersections_are_read_at_the_rule():
    """Two dominant directions among four, one of them shared: Σcos² = 1 over 2·2/6."""
    axes = torch.eye(6, dtype=torch.float64)
    gains = torch.diag(torch.tensor([10.0, 10.0, 0.5, 0.5], dtype=torch.float64))
    found = intersections(axes[:, :4] @ gains, gains @ axes[[1, 4, 2, 5]])
    assert found.read_soft == pytest.approx(6 / 4 - 1)


def test_the_language_model_does_not_depend_on_it(monkeypatch):
    """Its page names no rule: heads are read at their numerical rank, Grams whole."""
    shape = GPTShape(vocab_size=7, n_layer=2, n_head=3, n_embd=12, n_positions=8)
    state = initial_state(shape, torch.Generator().manual_seed(0))
    found = gpt_alignment.alignment(state, shape)
    monkeypatch.setattr(gpt_alignment, "LAB_RULE", "numerical")
    assert gpt_alignment.alignment(state, shape) == found
