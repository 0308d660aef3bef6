"""The obstruction over the scale of the loss: the equivalence, a plain loop, and verdicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.obstruction_scale.experiment import EXPERIMENT, recorded
from flagscope.lab.experiments.obstruction_scale.findings import (
    DEAD,
    EQUAL,
    ScaleRuns,
    _decay_alone,
    findings,
)
from flagscope.lab.neurons import open_network

ACTIVATIONS = ("linear", "relu", "tanh", "gelu")


def small(activation: str, kind: str, **changes):
    """A cell of the full grid at the ratio of the comparison, with few steps."""
    (cell,) = [
        c
        for c in EXPERIMENT.cells(Options())
        if (c.settings["activation"], c.settings["kind"], c.settings["ratio"])
        == (activation, kind, EQUAL)
    ]
    wanted = {"width": 12, "seeds": [0, 3], "limit": 40, "until": 0.5}
    return replace(cell, settings=cell.settings | wanted | changes)


def series(activation: str, kind: str, **changes):
    return EXPERIMENT.measure(small(activation, kind, **changes), lambda _: None)["series"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_quarter_of_the_loss_gives_the_same_bits(activation):
    """c, cλ and η/c with c = 1/4: every product is exact, so every number is the same."""
    whole, quarter = (series(activation, kind) for kind in ("grid", "quarter"))
    assert len(whole) == 21
    for one, other in zip(whole, quarter, strict=True):
        assert one["time"] == pytest.approx(other["time"], rel=1e-14)
        assert {k: v for k, v in one.items() if k != "time"} == {
            k: v for k, v in other.items() if k != "time"
        }


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_fifth_of_the_loss_gives_the_same_up_to_round_off(activation):
    for one, other in zip(series(activation, "grid"), series(activation, "fifth"), strict=True):
        assert one["C"] == pytest.approx(other["C"], rel=1e-10)
        assert one["explained"] == pytest.approx(other["explained"], rel=1e-10)


def test_without_the_adjusted_step_it_is_the_flow_that_agrees():
    """Half the step halves the distance to the flow: first order in η."""
    at = {
        step: series("tanh", "same-step", step=step, until=0.24)[-1]["C"][0]
        for step in (0.4, 0.2, 0.1)
    }
    assert (at[0.4] - at[0.2]) / (at[0.2] - at[0.1]) == pytest.approx(2, abs=0.2)


def test_the_networks_are_those_of_a_plain_loop():
    s = small("tanh", "fifth").settings
    data = load_images(limit=s["limit"])
    x, y = data.centred(), data.one_hot()
    drawn = open_network("tanh", 64, 12, 10, [3]).weights
    w = [drawn[name][0].detach().clone() for name in "123"]
    for _ in range(round(s["until"] / (2 * s["decay"] * s["step"]))):
        w = [m.requires_grad_() for m in w]
        output = torch.tanh(torch.tanh(x @ w[0].T) @ w[1].T) @ w[2].T
        loss = 0.2 * 0.5 * (output - y).square().sum() / len(x)
        loss = loss + s["decay"] / 2 * sum(m.square().sum() for m in w)
        gradients = torch.autograd.grad(loss, w)
        w = [(m - s["step"] * g).detach() for m, g in zip(w, gradients, strict=True)]
    found = series("tanh", "fifth")[-1]
    a, b = w[0] @ w[0].T, w[1].T @ w[1]
    d = len(a)
    ta, tb = (m - torch.eye(d) * m.trace() / d for m in (a, b))
    k = a @ b - b @ a
    scale = 2 * d * ta.square().sum() * tb.square().sum()
    expected = float(k.square().sum() * (d - 1) * (d + 2) / scale)
    assert found["C"][1] == pytest.approx(expected, rel=1e-8)
    relative = (a - b).norm() / (a.norm() + b.norm())
    assert found["relative imbalance"][1] == pytest.approx(float(relative), rel=1e-8)
    output = torch.tanh(torch.tanh(x @ w[0].T) @ w[1].T) @ w[2].T
    explained = 1 - (output - y).square().sum() / y.square().sum()
    assert found["explained"][1] == pytest.approx(float(explained), rel=1e-8)


def test_zero_weights_explain_nothing_and_exact_ones_all():
    network = open_network("linear", 4, 4, 4, seeds=[0])
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for weight in network.weights.values():
        weight.data.copy_(torch.eye(4).double())
    network.weights["1"].data[0, 0, 0] = 2.0
    y = x.clone()
    y[:, 0] *= 2
    assert recorded(network, x, y)["explained"] == pytest.approx([1.0])
    network.weights["3"].data.zero_()
    assert recorded(network, x, y)["explained"] == pytest.approx([0.0])


def cells_with(values):
    """Cells of the grid with C and the share explained as given, by activation and ratio."""
    made = []
    grid = [c for c in EXPERIMENT.cells(Options(seeds=3)) if c.settings["kind"] == "grid"]
    for cell in grid:
        key = (cell.settings["activation"], cell.settings["ratio"])
        commutator, explained = values.get(key, values[cell.settings["activation"]])
        if cell.settings["ratio"] == DEAD:
            explained = 0.0
        start = {"time": 0.0, "C": [1.0, 1.01, 0.99], "explained": [0.0] * 3}
        end = {
            "time": 10.0,
            "C": [commutator * f for f in (1, 1.01, 0.99)],
            "explained": [explained] * 3,
        }
        made.append(Measured(cell, {"series": [start, end]}, 1.0))
    return made


PLAIN = {"linear": (1e-7, 0.5), "relu": (0.8, 0.5), "tanh": (0.7, 0.5), "gelu": (0.4, 0.5)} | {
    (a, DEAD): (1.0, 0.0) for a in ACTIVATIONS
}


def verdict(values, words):
    (found,) = [f for f in findings(cells_with(values)) if words in f.claim]
    return found.verdict


def test_verdicts_follow_the_numbers():
    assert verdict(PLAIN, "is generic") == "confirmed"
    assert verdict(PLAIN, "away from tanh") == "refuted"
    free = PLAIN | {("tanh", EQUAL): (2e-3, 0.5)}
    assert verdict(free, "is generic") == "refuted"
    assert verdict(free, "away from tanh") == "confirmed"
    assert verdict(free, "obstruct as long as they learn") == "confirmed"
    assert verdict(free, "Linear pairs commute") == "confirmed"
    assert verdict(PLAIN | {"linear": (0.1, 0.5)}, "Linear pairs commute") == "refuted"
    # What does not learn is not asked.
    dead = PLAIN | {("tanh", EQUAL): (2e-3, 0.01)}
    assert verdict(dead, "is generic") == "confirmed"
    gone = PLAIN | {("linear", DEAD): (1e-3, 0.0)}
    assert verdict(gone, "kills the signal") == "refuted"
    assert verdict(PLAIN, "kills the signal") == "confirmed"
    weak = PLAIN | {("relu", 2.5e-3): (0.01, 0.5)}
    assert verdict(weak, "Under a weak ridge") == "refuted"


def long_run(ratio, until, commutators):
    """The long cell of a ratio with these C at its end."""
    grid = cells_with(PLAIN | {("tanh", ratio): (2e-3, 0.5)})
    (cell,) = [
        c
        for c in EXPERIMENT.cells(Options(seeds=3))
        if (c.settings["kind"], c.settings["ratio"]) == ("long", ratio)
    ]
    assert cell.settings["until"] == until
    series = [{"time": t, "C": commutators, "explained": [0.5] * 3} for t in (0.0, until)]
    return [*grid, Measured(cell, {"series": series}, 1.0)]


@pytest.mark.parametrize(
    ("commutators", "expected"),
    [
        ([2e-3, 2.1e-3, 1.9e-3], "confirmed"),
        ([0.2, 0.21, 0.19], "refuted"),
        ([0.01, 0.1, 0.03], "open"),
    ],
)
def test_whether_a_small_commutator_lasts_follows_the_long_runs(commutators, expected):
    (found,) = [f for f in findings(long_run(1e-2, 30.0, commutators)) if "lasts" in f.claim]
    assert found.verdict == expected
    assert "at λ/c = 0.01 C goes from 0.002 at 2λt = 10 to " in found.words


def test_what_the_step_does_to_decay_alone_has_a_closed_form():
    """(1 - ηλ)^4n at ηλ = 0.001 and 5000 steps over 0.005 and 1000."""
    measured = [
        Measured(c, {"series": []}, 1.0)
        for c in EXPERIMENT.cells(Options())
        if c.settings["activation"] == "linear"
    ]
    expected = (0.999**5000 / 0.995**1000) ** 4
    assert f"factor of {expected:.3f} between" in _decay_alone(ScaleRuns(measured))


def test_only_ratios_at_which_every_seed_learns_count_as_alive():
    measured = cells_with(PLAIN | {("relu", 1e-2): (0.8, 0.04)})
    alive = ScaleRuns(measured).alive("relu")
    assert 1e-2 not in alive
    assert DEAD not in alive
    assert 5e-3 in alive


def test_every_part_has_its_table_and_figure():
    cells = [
        replace(c, settings=c.settings | {"width": 8, "limit": 24, "until": 0.2})
        for c in EXPERIMENT.cells(Options(quick=True, seeds=2))
    ]
    measured = [Measured(c, EXPERIMENT.measure(c, lambda _: None), 0.0) for c in cells]
    found = EXPERIMENT.conclude(measured)
    assert found[0].verdict == "confirmed"
    assert "4 of 4 activations" in found[0].words
    assert set(EXPERIMENT.draw(measured, found)) == set(dict(EXPERIMENT.figures))
    frame = EXPERIMENT.table(measured)
    assert len(frame) == sum(len(m.values["series"]) for m in measured) * 2
    assert frame.notna().all().all()


def test_the_ratios_span_a_decade_and_a_half_and_scales_share_their_ratio():
    cells = [c.settings for c in EXPERIMENT.cells(Options())]
    ratios = {s["ratio"] for s in cells if s["kind"] == "grid"}
    assert len(ratios) >= 5
    assert max(ratios) / min(ratios) >= 10**1.5
    assert all(s["decay"] / s["scale"] == pytest.approx(s["ratio"], rel=1e-14) for s in cells)
