"""Lists in sentences, p-values that no table holds, and minus signs."""

import math
from pathlib import Path

import pytest

from flagscope.records import ScanResult
from flagscope.report import findings, render_page
from flagscope.report.links import judged
from flagscope.report.payload import core
from flagscope.report.wording import (
    SMALLEST_P,
    adjusted_p,
    joined,
    measured,
    number,
    p_value,
    significance,
)
from report import synthetic


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, ""), (1, "0"), (2, "0 and 1"), (3, "0, 1 and 2"), (4, "0, 1, 2 and 1 more")],
)
def test_a_list_is_cut_behind_its_limit(count, text):
    assert joined(range(count), limit=3) == text


@pytest.mark.parametrize("log10_p", [-15.01, -84.0, -8319.0, -63585.0])
def test_below_the_smallest_p_all_are_worded_alike(log10_p: float) -> None:
    assert p_value(log10_p) == "p < 10⁻¹⁵"
    assert adjusted_p(10**log10_p) == "< 10⁻¹⁵"
    assert significance(84.21, log10_p) == "z = 84.2, p < 10⁻¹⁵"


def test_at_the_smallest_p_it_is_still_given() -> None:
    assert p_value(float(SMALLEST_P)) == "p ≈ 10⁻¹⁵"
    assert adjusted_p(2e-15) == "2e-15"


@pytest.mark.parametrize("z", [None, math.inf, math.nan])
def test_a_z_that_is_not_known_is_left_out(z: float | None) -> None:
    assert significance(z, -30.0) == "p < 10⁻¹⁵"
    assert significance(z, None) == ""


def test_numbers_below_zero_have_a_minus_sign() -> None:
    assert (number(-0.002), measured(-0.002), number(-3)) == ("−0.00200", "−0.00200", "−3")
    assert (number(-2_000_000.5), number(0.002)) == ("−2e+06", "0.00200")


def _far(result: ScanResult) -> ScanResult:
    """The same with p-values that no table holds."""
    far = {"log10_p": -8319.0, "p": 0.0}
    return result.model_copy(
        update={
            "pairs": [pair.model_copy(update=far) for pair in result.pairs],
            "heads": [group.model_copy(update=far | {"shared_log10_p": -8319.0})
                      for group in result.heads],
            "edges": [edge.model_copy(update={"log10_p": -8319.0}) for edge in result.edges],
        }
    )  # fmt: skip


def test_no_report_prints_a_power_that_no_table_holds() -> None:
    result = _far(synthetic.stream())
    said = [text for f in findings(result) for text in (f.plain, f.text, *f.evidence)]
    said += [str(core(result)), judged(result.edges[0], "overlap").text, render_page(result)]
    assert any("p < 10⁻¹⁵" in text for text in said)
    for text in said:
        assert "8319" not in text.replace("-8319.0", "")
        assert "⁻⁸³¹⁹" not in text
        assert "1e-300" not in text


def test_one_module_words_p_values() -> None:
    """Others take the words from `wording`, so that one rule holds everywhere."""
    folder = Path(__file__).parents[2] / "src" / "flagscope"
    for path in sorted((*folder.glob("report/**/*.py"), *folder.glob("cli/*.py"))):
        if path.name not in ("wording.py", "spelling.py"):
            source = path.read_text(encoding="utf-8")
            assert "p ≈" not in source, path
            assert "1e-300" not in source, path
