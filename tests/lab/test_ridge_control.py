"""Decay with a loss and without: against a plain loop, closed forms, and planted verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.ridge_rate.control import QUANTITIES, alignment_of
from flagscope.lab.experiments.ridge_rate.control_findings import control_findings
from flagscope.lab.experiments.ridge_rate.experiment import EXPERIMENT
from flagscope.lab.linear import class_regression
from flagscope.lab.networks import initial_network


def control(loss, **changes):
    cells = [c for c in EXPERIMENT.cells(Options(quick=True)) if c.settings["kind"] == "control"]
    (cell,) = [c for c in cells if c.settings["loss"] == loss]
    wanted = {"width": 12, "seeds": [0, 1, 2], **changes}
    cell = replace(cell, settings=cell.settings | wanted)
    return Measured(cell, EXPERIMENT.measure(cell, lambda _: None), 0.0)


@pytest.fixture(scope="module")
def trio():
    # Sines near 1 have wide intervals where seeds are few.
    return [control(loss, seeds=[*range(6)]) for loss in ("signal", "zero", "none")]


@pytest.mark.parametrize("loss", ["signal", "zero", "none"])
def test_the_numbers_are_those_of_a_plain_loop(loss):
    """One seed in numpy, with SciPy's angles."""
    values = control(loss, depth=3, until=1.0, seeds=[4]).values
    task = class_regression(load_images())
    w = [x[0].detach().numpy().copy() for x in initial_network([64, 12, 12, 10], [4]).weights]
    xx, yx = task.input_covariance.numpy(), task.cross_covariance.numpy()
    steps = 40 * math.ceil(1.0 / (2 * 1e-2 * 0.2) / 40)
    for _ in range(steps):
        error = w[2] @ w[1] @ w[0] @ xx - (yx if loss == "signal" else 0 * yx)
        gradients = [w[1].T @ w[2].T @ error, w[2].T @ error @ w[0].T, error @ w[0].T @ w[1].T]
        w = [(1 - 0.2e-2) * x - 0.2 * g * (loss != "none") for x, g in zip(w, gradients)]  # noqa: B905
    for pair in range(2):
        a, b = w[pair] @ w[pair].T, w[pair + 1].T @ w[pair + 1]
        expected = {
            "size": np.linalg.norm(a - b),
            "relative": np.linalg.norm(a - b) / (np.linalg.norm(a) + np.linalg.norm(b)),
            "trace_relative": np.abs(np.linalg.eigvalsh(a - b)).sum() / np.trace(a + b),
            "sine": math.sin(
                subspace_angles(*(np.linalg.eigh(m)[1][:, -9:] for m in (a, b))).max()
            ),
        }
        for name in QUANTITIES:
            assert values[f"{name}_end"][pair][0] == pytest.approx(expected[name], rel=1e-8), name


def test_grams_with_a_closed_form():
    """A = diag(3, 1, 0), B = diag(1, 0, 1)."""
    write = torch.diag(torch.tensor([3.0, 1.0, 0.0]).double().sqrt())[None]
    read = torch.diag(torch.tensor([1.0, 0.0, 1.0]).double())[None]
    found = {name: float(value) for name, value in alignment_of(write, read, 2).items()}
    assert found["size"] == pytest.approx(math.sqrt(6))
    assert found["relative"] == pytest.approx(math.sqrt(6) / (math.sqrt(10) + math.sqrt(2)))
    assert found["trace_relative"] == pytest.approx(4 / 6)
    assert found["sine"] == pytest.approx(1)


def test_decay_alone_obeys_the_law_and_aligns_nothing(trio):
    values = trio[2].values
    np.testing.assert_allclose(values["law_ratio"], 1, rtol=1e-11)
    np.testing.assert_allclose(values["relative_ratio"], 0, atol=1e-11)
    for name in ("relative", "trace_relative", "sine"):
        np.testing.assert_allclose(values[f"{name}_end"], values[f"{name}_start"], rtol=1e-10)


def test_with_targets_zero_the_trace_norm_never_falls_against_the_traces(trio):
    """The derivation's inequality at every moment and seed, up to finite steps."""
    series = np.array(trio[1].values["trace_relative"])
    assert (np.diff(series, axis=1) > -1e-4).all()
    assert (series[:, -1] > series[:, 0]).all()


def test_a_loss_lets_the_relative_imbalance_fall(trio):
    values = trio[0].values
    assert np.max(values["relative_end"]) < 1e-3
    assert np.min(values["relative_start"]) > 0.3
    np.testing.assert_allclose(values["relative_ratio"], 1, atol=0.01)


def planted(m, **values):
    return replace(m, values=m.values | values)


def test_verdicts_follow_the_numbers(trio):
    signal, zero, none = trio
    assert [f.verdict for f in control_findings(trio)] == ["confirmed"] * 4
    three = [[1.01, 1.0100001, 1.0099999]]
    assert control_findings([signal, zero, planted(none, law_ratio=three)])[0].verdict == "refuted"
    slow = planted(signal, relative_ratio=[[0.5, 0.51, 0.49]])
    assert control_findings([slow, zero, none])[1].verdict == "refuted"
    unsure = planted(signal, relative_ratio=[[0.97, 1.0, 1.03]])
    assert control_findings([unsure, zero, none])[1].verdict == "open"
    wide = planted(signal, sine_end=[[0.5, 0.51, 0.49]])
    assert control_findings([wide, zero, none])[2].verdict == "refuted"
    near = planted(none, sine_end=[[0.1, 0.11, 0.09] * 2])
    assert control_findings([signal, zero, near])[2].verdict == "refuted"
    fallen = planted(zero, trace_relative_end=[[0.1, 0.11, 0.09] * 2])
    assert control_findings([signal, fallen, none])[3].verdict == "refuted"


def test_every_loss_is_measured_with_the_same_networks():
    cells = [c for c in EXPERIMENT.cells(Options()) if c.settings["kind"] == "control"]
    by_loss = {
        loss: [
            {k: v for k, v in c.settings.items() if k != "loss"}
            for c in cells
            if c.settings["loss"] == loss
        ]
        for loss in ("signal", "zero", "none")
    }
    assert by_loss["signal"] == by_loss["zero"] == by_loss["none"]
    assert len(by_loss["none"]) == 6
