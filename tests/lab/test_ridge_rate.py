"""The rate of ridge alignment: against a plain loop, planted rates, and SciPy's angles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.ridge_rate.control import QUANTITIES
from flagscope.lab.experiments.ridge_rate.experiment import EXPERIMENT
from flagscope.lab.experiments.ridge_rate.figures import draw_steps
from flagscope.lab.experiments.ridge_rate.findings import step_finding
from flagscope.lab.experiments.ridge_rate.training import decay_rates, dominant_angle, step_count
from flagscope.lab.linear import class_regression
from flagscope.lab.networks import initial_network


def small(kind, **changes):
    """A cell of one kind, small enough for a test."""
    cell = next(
        c for c in EXPERIMENT.cells(Options(seeds=3, quick=True)) if c.settings["kind"] == kind
    )
    wanted = {"width": 12, "seeds": [0, 1, 2], **changes}
    return replace(cell, settings=cell.settings | wanted)


def measured(cell):
    return Measured(cell, EXPERIMENT.measure(cell, lambda _: None), 0.0)


@pytest.fixture(scope="module")
def miniature():
    """One cell of every kind."""
    return [
        measured(small("rate", decay=1e-2, until=8.0)),
        measured(small("step", until=0.5)),
        measured(small("noise", until=2.0)),
        measured(small("noise", until=2.0, batch=64)),
        measured(small("momentum", until=0.5)),
        *(measured(small("control", loss=loss, until=6.0)) for loss in ("signal", "zero", "none")),
        measured(small("adamw", until=0.01)),
    ]


@pytest.mark.parametrize("kind", ["rate", "noise", "momentum", "adamw"])
def test_the_networks_are_those_of_a_plain_loop(kind):
    """The decay of one seed, written out in numpy for a pair with its own optimiser."""
    cell = small(kind, depth=2, until=0.02 if kind == "adamw" else 1.0, seeds=[5])
    s, values = cell.settings, measured(cell).values
    task = class_regression(load_images())
    weights = [w[0].detach().numpy().copy() for w in initial_network([64, 12, 10], [5]).weights]
    generator = torch.Generator().manual_seed(7919 + 5)
    xx, yx = task.input_covariance.numpy(), task.cross_covariance.numpy()
    velocity, first, second = ([np.zeros_like(w) for w in weights] for _ in range(3))
    steps, found = step_count(s), []
    for n in range(steps + 1):
        if n % (steps // 40) == 0:
            found.append(np.linalg.norm(weights[0] @ weights[0].T - weights[1].T @ weights[1]))
        if kind == "noise":
            chosen = torch.randint(len(task.inputs), (s["batch"],), generator=generator)
            x, y = task.inputs[chosen].numpy(), task.targets[chosen].numpy()
            xx, yx = x.T @ x / s["batch"], y.T @ x / s["batch"]
        error = weights[1] @ weights[0] @ xx - yx
        gradients = [weights[1].T @ error, error @ weights[0].T]
        for i, g in enumerate(gradients):
            if kind == "adamw":
                first[i] = 0.9 * first[i] + 0.1 * g
                second[i] = 0.999 * second[i] + 0.001 * g**2
                m, v = first[i] / (1 - 0.9 ** (n + 1)), second[i] / (1 - 0.999 ** (n + 1))
                weights[i] = weights[i] * (1 - s["step"] * s["decay"])
                weights[i] -= s["step"] * m / (np.sqrt(v) + 1e-8)
            else:
                velocity[i] = s.get("beta", 0.0) * velocity[i] + g + s["decay"] * weights[i]
                weights[i] = weights[i] - s["step"] * velocity[i]
    np.testing.assert_allclose(values["size"][0], found, rtol=1e-9)


def test_a_planted_rate_is_found():
    time = np.linspace(0, 3, 12)
    rates = np.array([[1.0, 0.5], [2.0, 1.25], [0.1, 3.0]])
    series = 7 * np.exp(-time[:, None, None] * rates)
    np.testing.assert_allclose(decay_rates(time, series), rates, rtol=1e-12)


def test_angles_are_scipys_and_within_the_bound_of_davis_and_kahan():
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(5, 9, 9, generator=generator, dtype=torch.float64)).Q
    spectrum = torch.tensor([5.0, 4, 3, 0.3, 0.2, 0.1, 0.1, 0, 0], dtype=torch.float64)
    a = q @ torch.diag(spectrum) @ q.mT
    noise = torch.randn(5, 9, 9, generator=generator, dtype=torch.float64)
    b = a + 0.05 * (noise + noise.mT)
    sine, bound = dominant_angle(a, b, 3)
    for i in range(5):
        spaces = [np.linalg.eigh(m[i].numpy())[1][:, -3:] for m in (a, b)]
        assert math.asin(sine[i]) == pytest.approx(subspace_angles(*spaces)[0], rel=1e-9)
    assert (sine <= bound).all()
    assert (bound < 0.5).all()
    # Without a gap there is no bound.
    assert dominant_angle(a, b.flip(-1).flip(-2) * 0, 3)[1].tolist() == [1.0] * 5


def test_the_exact_law_holds_to_round_off(miniature):
    for m in miniature:
        if m.cell.settings["kind"] == "control":
            continue
        exact = m.cell.settings["kind"] in ("rate", "step", "noise")
        assert (m.values["identity_miss"] < 1e-10) == exact


def test_full_batch_rates_are_within_a_percent(miniature):
    ratios = np.array(miniature[0].values["ratio"])
    assert ratios.shape == (1, 3)
    assert np.abs(ratios - 1).max() < 0.01
    assert not np.array_equal(ratios, np.ones((1, 3)))


def test_every_part_has_its_finding_table_and_figure(miniature):
    findings = EXPERIMENT.conclude(miniature)
    assert [f.verdict for f in findings[:2]] == ["confirmed", "confirmed"]
    assert findings[7].verdict == "refuted"
    assert findings[7].estimates[1].low > 1
    assert set(EXPERIMENT.draw(miniature, findings)) == set(dict(EXPERIMENT.figures))
    frame = EXPERIMENT.table(miniature)
    assert set(frame["quantity"]) >= {"ratio", "ratio_less_driven", "angle_ratio", "law_ratio"}
    assert set(frame.loc[frame["cell"].str.startswith("control"), "quantity"]) == {
        "law_ratio",
        "relative_ratio",
        *(f"{name}_{end}" for name in QUANTITIES for end in ("start", "end")),
    }
    assert frame["value"].notna().all()


def test_step_sizes_are_drawn_one_line_a_decay(miniature):
    step = miniature[1]
    cells = [
        replace(step, cell=replace(step.cell, settings=step.cell.settings | changes))
        for decay in (1e-3, 1e-2)
        for changes in ({"step": 0.2, "decay": decay}, {"step": 1.0, "decay": decay})
    ]
    figure = draw_steps(cells)
    lines = figure.axes[0].get_lines()
    assert [line.get_xdata().tolist() for line in lines] == [[0.2, 1.0]] * 4
    assert {line.get_label() for line in lines} >= {"‖A - B‖, λ = 0.001", "‖A - B‖, λ = 0.01"}


def test_where_it_bends_is_told_as_measured(miniature):
    step = miniature[1]

    def told(small, large):
        cells = [
            replace(
                step,
                cell=replace(step.cell, settings=step.cell.settings | {"decay": decay}),
                values=step.values | {"ratio": [[1 + bend] * 3] * 2},
            )
            for decay, bend in ((1e-3, small), (1e-2, large))
        ]
        return step_finding(cells).words

    assert "less at the greater λ for 1 of 1 step sizes, as predicted" in told(2e-3, 1e-3)
    assert "for 0 of 1 step sizes, against that part" in told(1e-3, 2e-3)


def planted(m, **values):
    return replace(m, values=m.values | values)


def test_verdicts_follow_the_numbers(miniature):
    rate, others = miniature[0], miniature[1:]
    slow = planted(rate, ratio=[[0.95, 0.951, 0.949]])
    assert EXPERIMENT.conclude([slow, *others])[0].verdict == "refuted"
    scattered = planted(rate, ratio=[[0.97, 1.0, 1.03]])
    assert EXPERIMENT.conclude([scattered, *others])[0].verdict == "open"
    missed = planted(rate, identity_miss=1e-5)
    assert EXPERIMENT.conclude([missed, *others])[1].verdict == "refuted"
    # One seed has no interval, and refutes nothing.
    alone = planted(rate, ratio_less_driven=[[1.0]])
    assert EXPERIMENT.conclude([alone, *others])[1].verdict == "open"
    wide = planted(rate, angle_ratio=[[0.8, 0.81, 0.79]])
    assert EXPERIMENT.conclude([wide, *others])[2].verdict == "refuted"
    # Half as fast as the bound, or with no gap at all.
    assert EXPERIMENT.conclude([wide, *others])[3].verdict == "refuted"
    free = planted(rate, bound_ratio=[[0.0, 0.0, 0.0]])
    assert EXPERIMENT.conclude([free, *others])[3].verdict == "open"
    lawful = planted(others[-1], ratio=[[1.0, 1.001, 0.999], [1.0, 1.001, 0.999]])
    assert EXPERIMENT.conclude([rate, *others[:-1], lawful])[7].verdict == "confirmed"


def test_every_cell_is_measured_over_whole_moments():
    for options in (Options(), Options(quick=True)):
        cells = EXPERIMENT.cells(options)
        assert len({c.name for c in cells}) == len(cells)
        for cell in cells:
            steps = step_count(cell.settings)
            assert steps % 40 == 0
            pace = cell.settings["step"] / (1 - cell.settings.get("beta", 0))
            assert 2 * cell.settings["decay"] * pace * steps >= cell.settings["until"] - 1e-9
    full = EXPERIMENT.cells(Options())
    assert all(len(cell.settings["seeds"]) >= 10 for cell in full)
    rates = [c.settings for c in full if c.settings["kind"] == "rate"]
    assert {s["depth"] for s in rates} == {2, 3, 4, 5, 6}
    assert {s["decay"] for s in rates} == {1e-3, 2e-3, 5e-3, 1e-2}
