from __future__ import annotations

import numpy as np
import pytest
from benchmarks import null_draws, null_sizes


def test_shares_and_ends_of_a_known_law():
    sample = np.linspace(-1.0, 1.0, 20_001)
    result = null_sizes.row("law", "uniform", 1, sample, 0.0, [lambda x: 1.0 - abs(x)], exact=True)
    for level in range(3):
        assert result.size(level) == pytest.approx(1.0, rel=0.06)
        low, high = result.ends(level)
        assert low < 1.0 < high


def test_gram_draws_follow_their_definition():
    kinds = {name: v for name, v in null_draws.spectra(8).items() if name in ("1/i", "Gaussian")}
    rho, ratio = null_draws.gram_draws(kinds, 2_000, 2, seed=3, commutator=True)
    assert rho.shape == ratio.shape == (4_000, 2, 2)
    assert rho.mean() == pytest.approx(0.0, abs=0.02)
    assert (rho**2).mean() == pytest.approx(2 / (7 * 10), rel=0.1)
    assert ratio.mean() == pytest.approx(1.0, abs=0.03)


def test_tables_have_every_law(tmp_path, monkeypatch):
    monkeypatch.setattr(null_sizes, "_COMMUTATOR_DRAWS", 999)
    monkeypatch.setattr(null_sizes, "_SEEDS", 1)
    rows = list(null_sizes.gram_rows(400, 1, [8]))
    text = null_sizes.page(rows, 400, 1)
    assert "| 1/√i |" in text
    assert text.count("| draws | 400 |") == 2
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- sizes: written by benchmarks.null_sizes -->\nold\n"
                        "<!-- end of sizes -->\nafter\n", encoding="utf-8")  # fmt: skip
    null_sizes.renew(document, text)
    content = document.read_text(encoding="utf-8")
    assert "old" not in content
    assert text in content
    assert content.startswith("before")
    assert content.endswith("after\n")
