"""Planted intersections, what each is invariant under, and the verdicts' rules."""

import pytest
import torch

from flagscope.lab import Measured, Options
from flagscope.lab.experiments.kernel_vs_read.experiment import EXPERIMENT
from flagscope.lab.experiments.kernel_vs_read.findings import SIGNS
from flagscope.lab.experiments.kernel_vs_read.intersections import intersections

AXES = torch.eye(12, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_planted_intersections():
    # writes axes 0-3, reads 2-6: two in common, two lost
    found = intersections(AXES[:, :4], AXES[2:7])
    assert (found.read_exact, found.kernel_exact) == (2, 2)
    assert found.kernel_count == 0.5
    assert found.read_soft == pytest.approx(2 * 12 / (4 * 5) - 1)
    assert found.kernel_soft == pytest.approx(2 / 4 - 7 / 12)


def test_all_or_nothing():
    nothing = intersections(AXES[:, :3], AXES[6:9])
    everything = intersections(AXES[:, :3], AXES[:3])
    assert nothing.kernel_count == 1
    assert nothing.read_soft == -1
    assert everything.kernel_count == 0
    assert everything.kernel_soft == pytest.approx(-9 / 12)
    assert everything.read_count == 1


def test_only_the_kernel_survives_a_general_change():
    w1, w2 = AXES[:, :4] @ normal(4, 6), normal(7, 5, seed=1) @ AXES[2:7]
    g = 1.5 * AXES + normal(12, 12, seed=2) / 7
    before, after = intersections(w1, w2), intersections(g @ w1, w2 @ torch.linalg.inv(g))
    assert before.kernel_exact == after.kernel_exact == 2
    assert (before.read_exact, after.read_exact) == (2, 0)
    turn = torch.linalg.qr(g).Q
    turned = intersections(turn @ w1, w2 @ turn.mT)
    for name in SIGNS:
        assert getattr(turned, name) == pytest.approx(getattr(before, name), abs=1e-12)


def planted(read: list[float], kernel: list[float]) -> list[Measured]:
    """Every cell with a falling loss and these series."""
    series = [
        {"step": n, "loss": [1.0 - 0.1 * n] * 2, "held-out loss": [1.0 - 0.1 * n] * 2,
         "read_soft": [read[n]] * 2, "read_count": [read[n]] * 2, "read_exact": [3] * 2,
         "kernel_soft": [kernel[n]] * 2, "kernel_count": [kernel[n]] * 2, "kernel_exact": [0] * 2}
        for n in range(len(read))
    ]  # fmt: skip
    return [
        Measured(type(c)(c.name, c.settings | {"seeds": [0, 1]}), {"series": series}, 1.0)
        for c in EXPERIMENT.cells(Options())
    ]


def test_verdicts_follow_the_planted_tracker():
    still, falling = [0.0, 1.0, 0.0, 1.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]
    tracked = {f.claim: f.verdict for f in EXPERIMENT.conclude(planted(still, falling))}
    assert tracked["The intersection with the kernel tracks training"] == "confirmed"
    assert tracked["The intersection with the read space tracks training"] == "refuted"
    assert tracked["The kernel tracks the loss better than the read space does"] == "confirmed"
    rising = falling[::-1]
    tracked = {f.claim: f.verdict for f in EXPERIMENT.conclude(planted(rising, still))}
    assert tracked["The intersection with the read space tracks training"] == "confirmed"
    assert tracked["The kernel tracks the loss better than the read space does"] == "refuted"


def of_claim(measured: list[Measured], start: str):
    (found,) = [f for f in EXPERIMENT.conclude(measured) if f.claim.startswith(start)]
    return found


def test_seeds_and_settings_are_both_asked():
    """One seed tracks less well than the other, in every setting: settings do not show it."""
    measured = planted([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0])
    for m in measured:
        for at, second in zip(m.values["series"], [1.0, 3.0, 5.0, 2.0, 4.0], strict=True):
            at["read_soft"] = [at["read_soft"][0], second]  # correlations 1 and 0.5
    finding = of_claim(measured, "The intersection with the read space tracks")
    by_name = {e.name: e for e in finding.estimates if "soft" in e.name}
    settings, seeds = (by_name[f"read, soft: loss, over {unit}"] for unit in ("settings", "seeds"))
    assert (settings.value, settings.n) == pytest.approx((0.75, len(measured)))
    assert settings.low > 0.5
    assert (seeds.value, seeds.n) == pytest.approx((0.75, 2))
    assert seeds.low < 0.5
    assert finding.verdict == "open"
    assert of_claim(measured, "The intersection with the kernel tracks").verdict == "confirmed"


def test_one_moved_dimension_refutes_that_none_moves():
    measured = planted([0.0] * 5, [0.0] * 5)
    finding = of_claim(measured, "Without a notion of noise read")
    (share,) = finding.estimates
    assert (finding.verdict, share.value, share.n) == ("confirmed", 1, 2 * len(measured))
    assert 0.8 < share.low < 1  # of no such number of trials can one be sure
    measured[0].values["series"][-1]["read_exact"] = [3, 4]
    assert of_claim(measured, "Without a notion of noise read").verdict == "refuted"


def test_small_run_survives_json_and_repeats():
    (cell, *_) = EXPERIMENT.cells(Options(quick=True))
    settings = cell.settings | {"seeds": [4], "steps": 6, "moments": 3, "width": 12}
    small = type(cell)(cell.name, settings)
    first = EXPERIMENT.measure(small, lambda _: None)
    assert first == EXPERIMENT.measure(small, lambda _: None)
    assert first["series"][-1]["loss"] != first["series"][0]["loss"]


def test_every_number_has_its_bounds():
    """Correlations, their differences, and shares of trainings."""
    rising, falling = [0.1 * n for n in range(6)], [-0.1 * n for n in range(6)]
    findings = EXPERIMENT.conclude(planted(rising, falling))
    bounds = {e.bounds for f in findings for e in f.estimates}
    assert bounds == {(-1.0, 1.0), (-2.0, 2.0), (0.0, 1.0)}
    assert [f.beyond for f in findings] == [False] + [True] * 7
