"""README.md and the first pages: short, and what they quote is what the commands print today."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flagscope.geometry import (
    PairSpectra,
    commutation_defect,
    commutator_ratio,
    gram_correlation,
    pair_spectra,
)
from flagscope.lab.experiments.published_checkpoints.published import PUBLISHED
from flagscope.records import FINDING_CODES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "scripts"))

import readme_outputs  # noqa: E402

_PLACE = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def test_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_the_two_commands_are_targets_of_the_makefile():
    section = README.split("## Two commands")[1].split("\n## ")[0]
    commands = re.findall(r"^(make [\w-]+)", section, re.MULTILINE)
    assert commands == ["make demo", "make test"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{command.removeprefix('make ')}:" in makefile for command in commands)


def test_places_that_the_readme_links_to_exist():
    places = [place for place in _PLACE.findall(README) if "://" not in place]
    assert len(places) > 12
    assert [place for place in places if not (ROOT / place).is_file()] == []


@pytest.mark.parametrize("name", readme_outputs.PAGES)
def test_what_a_page_quotes_is_what_the_commands_print(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "<!-- output: " in text
    assert readme_outputs.filled(text) == text, "run scripts/readme_outputs.py"


def test_every_finding_has_a_row_that_says_what_to_do():
    page = (ROOT / "docs/what-to-do.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \|(.+)\|(.+)\|(.+)\|$", page, re.MULTILINE)
    codes = [code for code, *_ in rows]
    assert len(codes) == len(set(codes))
    assert set(FINDING_CODES) <= set(codes)
    assert all(cell.strip() for _, *cells in rows for cell in cells)


def test_the_answer_on_c_is_that_of_the_model():
    weights = PUBLISHED["minilm"].locate()
    if weights is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed")
    state, layer = load_file(weights), "encoder.layer.5"
    w1 = state[f"{layer}.intermediate.dense.weight"].double()
    w2 = state[f"{layer}.output.dense.weight"].double()
    write, s1, _ = torch.linalg.svd(w1, full_matrices=False)
    _, s2, read = torch.linalg.svd(w2, full_matrices=False)
    rest = spectra(write[:, 1:] * s1[1:], s2[1:, None] * read[1:])
    answer = (ROOT / "docs/faq.md").read_text(encoding="utf-8")
    whole = spectra(w1, w2)
    c, rho, nu = (measure(whole).item() for measure in _MEASURES)
    assert f"C {c:.1f}, while ρ is {rho:.2f} and ν is {nu:.2f}" in answer
    assert f"a cosine of {abs(write[:, 0] @ read[0]):.2f}" in answer
    assert f"C would be {commutator_ratio(rest).item():.1f}" in answer


def spectra(w1: Tensor, w2: Tensor) -> PairSpectra:
    """What the numbers of one pair are computed from."""
    return pair_spectra(w1[None], w2[None])


_MEASURES = (commutator_ratio, gram_correlation, commutation_defect)
