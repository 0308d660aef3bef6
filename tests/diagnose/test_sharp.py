"""Sharp scans against full ones, and against chance, through the report."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

import flagscope
from flagscope.cli.table import print_report
from flagscope.diagnose import sharp_pairs
from flagscope.records import PairRecord
from flagscope.report.cells import pair_cells
from flagscope.report.tracks import tracks
from flagscope.report.wording import number

D, WIDE = 288, 400
EXACT = ("gram_correlation", "imbalance", "participation_write", "participation_read")
COUNTS = (
    *("rank_write", "rank_read", "effective_rank_write", "effective_rank_read"),
    *("intersection_exact", "intersection_beyond_chance", "dominant", "status", "cosines_forced"),
)
CONFIG = {
    "model_type": "gpt2", "n_embd": D, "n_layer": 2, "n_head": 4, "n_inner": WIDE, "vocab_size": 16,
    "n_positions": 16,
}  # fmt: skip


def decaying(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    u, s, v = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    return (u * (s + 60 * torch.arange(1, len(s) + 1) ** -0.8)) @ v


def gpt2(seed: int = 0, *, planted: bool = True, dtype: torch.dtype = torch.float32) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def map_(rows: int, columns: int) -> Tensor:
        made = torch.randn(rows, columns, generator=generator)
        return (decaying(rows, columns, generator) if planted else made).to(dtype)

    state = {}
    for i in range(2):
        block = f"transformer.h.{i}."
        shapes = {
            "attn.c_attn": (D, 3 * D), "attn.c_proj": (D, D), "mlp.c_fc": (D, WIDE),
            "mlp.c_proj": (WIDE, D),
        }  # fmt: skip
        state |= {f"{block}{name}.weight": map_(*shape) for name, shape in shapes.items()}
        for norm in ("ln_1", "ln_2"):
            gain = 1 + 0.2 * torch.randn(D, generator=generator) * planted
            state[f"{block}{norm}.weight"] = gain.to(dtype)
    return state


def pairs(state: Mapping[str, Tensor], depth: str, **options: object) -> dict[str, PairRecord]:
    report = flagscope.scan(
        state, config=CONFIG, depth=depth, only=("pairs", "residual"), edges=0, device="cpu",
        **options,
    )  # fmt: skip
    assert report.result.failures == []
    return {pair.name: pair for pair in report.result.pairs}


@pytest.fixture(scope="module")
def full() -> dict[str, PairRecord]:
    return pairs(gpt2(), "full", precision="float64")


def compared(full: dict[str, PairRecord], sharp: dict[str, PairRecord], precision: float) -> int:
    assert full.keys() == sharp.keys()
    count = 0
    for name, pair in sharp.items():
        known = full[name]
        if pair.depth == "full":
            continue  # of heads; adjusted p-values hang on the whole report
        count += 1
        for field in EXACT:
            assert getattr(pair, field) == pytest.approx(getattr(known, field), abs=precision)
        for field in COUNTS:
            assert getattr(pair, field) == getattr(known, field), (name, field)
        if known.overlap_ratio is not None:
            assert pair.overlap_ratio == pytest.approx(known.overlap_ratio, rel=1e-4)
            assert pair.flag_defect == pytest.approx(known.flag_defect, rel=1e-4, abs=1e-4)
        rho = pair.gram_correlation_p, known.gram_correlation_p
        assert math.log10(rho[0]) == pytest.approx(math.log10(rho[1]), rel=0.01, abs=0.01)
    return count


@pytest.mark.parametrize(("precision", "within"), [("float64", 1e-9), ("mixed", 1e-5)])
def test_sharp_scans_agree_with_full_ones(full, precision, within):
    sharp = pairs(gpt2(), "sharp", precision=precision)
    # Two MLPs and ten pairs of the stream; those of heads are small.
    assert compared(full, sharp, within) == 12
    for name, pair in sharp.items():
        known = full[name]
        assert pair.commutator_ratio == pytest.approx(known.commutator_ratio, rel=1e-4)
        assert pair.commutation_defect == pytest.approx(known.commutation_defect, rel=1e-4)


def test_sketches_are_within_their_errors(full, monkeypatch):
    monkeypatch.setattr(sharp_pairs, "PRODUCT_UP_TO", 0)
    sharp = pairs(gpt2(), "sharp")
    compared(full, sharp, 1e-5)
    for name, pair in sharp.items():
        if pair.depth == "full":
            assert pair.commutator_ratio_error is None
            continue
        known = full[name]
        for field in ("commutator_ratio", "commutation_defect"):
            value, error = getattr(pair, field), getattr(pair, f"{field}_error")
            assert 0 < error < 0.05 * value
            assert abs(value - getattr(known, field)) < 4 * error


def test_chance_is_given_for_the_estimate(full, monkeypatch):
    monkeypatch.setattr(sharp_pairs, "PRODUCT_UP_TO", 0)
    for name, pair in pairs(gpt2(), "sharp").items():
        if pair.depth == "sharp":
            known, found = full[name].null, pair.null
            low, high = known.commutator_ratio_interval
            wide = found.commutator_ratio_interval
            assert wide[0] < low < high < wide[1]
            assert wide[1] - 1 >= 1.95 * pair.commutator_ratio_error
            assert found.commutation_defect_sd > known.commutation_defect_sd


def test_the_page_and_the_terminal_say_what_is_an_estimate(monkeypatch, capsys):
    monkeypatch.setattr(sharp_pairs, "PRODUCT_UP_TO", 0)
    report = flagscope.scan(gpt2(), config=CONFIG, depth="sharp", edges=0, device="cpu")
    pair = next(pair for pair in report.result.pairs if pair.kind == "mlp")
    cells = [text for _, text, *_ in pair_cells(report.result, pair, tracks(report.result)[0])]
    for value, error in (
        (pair.commutator_ratio, pair.commutator_ratio_error),
        (pair.commutation_defect, pair.commutation_defect_error),
    ):
        assert f"{number(value)} ± {number(error, 2)}" in cells
    assert "Sharp: 12 of 28 pairs by Gram matrices" in report.to_html()
    assert "Sharp: " not in flagscope.scan(gpt2(), config=CONFIG, depth="full").to_html()
    print_report(report)
    out = " ".join(capsys.readouterr().out.split())
    assert "sharp: 12 of 28 pairs by Gram matrices" in out
    assert "--depth full" in out
    assert "commutator_ratio_error" in report.pairs_all


def test_what_takes_the_whole_spectrum_is_null():
    sharp = [pair for pair in pairs(gpt2(), "sharp").values() if pair.depth == "sharp"]
    assert all(pair.functional.product_spectrum is None for pair in sharp)
    assert {pair.status for pair in sharp} == {"ok"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chance_is_not_called_alignment(dtype, monkeypatch):
    """With the sketch forced; of the p-values of ten null pairs none is below 1e-4."""
    monkeypatch.setattr(sharp_pairs, "PRODUCT_UP_TO", 0)
    sharp = [pair for pair in pairs(gpt2(1, planted=False, dtype=dtype), "sharp").values()
             if pair.depth == "sharp"]  # fmt: skip
    for pair in sharp:
        assert pair.commutator_p > 1e-4
        assert pair.gram_correlation_p > 1e-4
        assert pair.effective_rank_write == pair.effective_rank_read == 0
        assert pair.dominant.startswith("nothing stands out")
        assert pair.intersection_exact is None


def test_what_cannot_be_measured_has_a_status():
    state = gpt2()
    state["transformer.h.0.mlp.c_fc.weight"].zero_()
    state["transformer.h.1.mlp.c_proj.weight"][3, 5] = math.nan
    found = pairs(state, "sharp").values()
    assert {pair.status.rpartition(" is ")[2] for pair in found} == {"ok", "all zero", "not finite"}


@pytest.mark.parametrize("rule", ["participation", "numerical", "energy:0.5", "fixed:5"])
def test_other_rules_of_ranks(rule):
    known, sharp = (pairs(gpt2(), depth, rank=rule, precision="float64")
                    for depth in ("full", "sharp"))  # fmt: skip
    for name, pair in sharp.items():
        assert pair.effective_rank_write == known[name].effective_rank_write, name
        assert pair.effective_rank_read == known[name].effective_rank_read, name
        assert pair.overlap_ratio == pytest.approx(known[name].overlap_ratio, rel=1e-6)


def test_small_maps_are_measured_in_full_by_default():
    assert {pair.depth for pair in pairs(gpt2(), "auto").values()} == {"full"}
