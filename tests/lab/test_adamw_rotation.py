"""AdamW's rotation: against a plain loop, planted turns, and the rules of the verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.adamw_rotation.experiment import EXPERIMENT
from flagscope.lab.experiments.adamw_rotation.findings import findings
from flagscope.lab.linear import class_regression
from flagscope.lab.networks import initial_network


def small(kind, **changes):
    """A cell of one kind, small enough for a test."""
    cell = next(c for c in EXPERIMENT.cells(Options(seeds=2)) if c.settings["kind"] == kind)
    fast = {"seeds": [0, 3], "width": 8, "rate": 0.02, "decay": 1.0}
    return replace(cell, settings=cell.settings | fast | changes)


def measured(cell):
    return Measured(cell, EXPERIMENT.measure(cell, lambda _: None), 0.0)


@pytest.fixture(scope="module")
def miniature():
    return [
        measured(small("noise")),
        measured(small("gpt")),
        measured(small("linear", rate=1e-3, until=0.1)),
        measured(small("linear", rate=0.1, decay=0.02, until=1.5, optimiser="sgd")),
    ]


def test_the_noise_is_that_of_a_plain_loop():
    """Adam's moments and decoupled decay in numpy, and the angle by its cosine."""
    s = small("noise", seeds=[3]).settings
    generator = torch.Generator().manual_seed(3)
    w = 0.02 * torch.randn(8, 8, generator=generator).double().numpy()
    m, v, kept = np.zeros_like(w), np.zeros_like(w), {}
    for n in range(1, 151 + 51):
        g = torch.randn(8, 8, generator=generator).double().numpy()
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        hat, size = m / (1 - 0.9**n), np.sqrt(v / (1 - 0.99**n)) + 1e-8
        w = w * (1 - s["rate"] * s["decay"]) - s["rate"] * hat / size
        kept[n] = w
    starts = (150, 162, 175)  # 3 and a half of 1/(ηλ) = 50, and a quarter and a half later
    cosines = [
        (kept[n] * kept[n + 1]).sum() / np.linalg.norm(kept[n]) / np.linalg.norm(kept[n + 1])
        for n in starts
    ]
    rows = measured(small("noise", seeds=[3])).values["turns"]
    (row,) = [row for row in rows if row["lag"] == 1]
    assert row["angle"] == pytest.approx(np.mean(np.arccos(cosines)), rel=1e-3)
    assert {row["lag"] for row in rows} == {1, 10, 50}
    assert [row["lag"] for row in rows if row["whole"]] == [50]


def test_the_linear_pair_is_that_of_a_plain_loop():
    cell = small("linear", seeds=[3], rate=1e-3, decay=0.5, until=0.05)
    s, found = cell.settings, measured(cell).values
    task = class_regression(load_images())
    weights = [w[0].detach().clone() for w in initial_network([64, 8, 10], [3]).weights]
    optimiser = torch.optim.AdamW(weights, lr=s["rate"], weight_decay=s["decay"])
    generator = torch.Generator().manual_seed(7919 + 3)
    sizes = []
    for _ in range(51):
        a, b = weights[0] @ weights[0].T, weights[1].T @ weights[1]
        sizes.append(float((a - b).norm()))
        chosen = torch.randint(len(task.inputs), (32,), generator=generator)
        x, y = task.inputs[chosen], task.targets[chosen]
        error = (weights[1] @ weights[0] @ x.T - y.T) / 32
        gradients = [weights[1].T @ error @ x, error @ (weights[0] @ x.T).T]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimiser.step()
    assert found["size"][0][0] == pytest.approx(sizes[0], rel=1e-9)
    assert found["size"][0][-1] == pytest.approx(sizes[50], rel=1e-6)
    assert found["time"][-1] == pytest.approx(-100 * math.log(1 - 5e-4), rel=1e-9)
    fall = math.log(sizes[0] / sizes[50]) / found["time"][-1]
    assert found["overall"] == [pytest.approx(fall, rel=1e-5)]


def test_sgd_keeps_the_law_and_adamw_does_not(miniature):
    adamw, sgd = (m.values["overall"] for m in miniature[2:])
    assert sgd == pytest.approx([1.0, 1.0], abs=0.05)
    assert all(abs(rate - 1) > 0.2 for rate in adamw)


def test_every_part_has_its_finding_table_and_figure(miniature):
    found = EXPERIMENT.conclude(miniature)
    assert len(found) == 6
    assert all(finding.beyond for finding in found)
    assert set(EXPERIMENT.draw(miniature, found)) == set(dict(EXPERIMENT.figures))
    frame = EXPERIMENT.table(miniature)
    # Noise has one matrix and the GPT four, at three lags and two seeds; 25 moments of two pairs.
    assert len(frame) == 2 * 3 * (1 + 4) + 2 * sum(len(m.values["time"]) for m in miniature[2:])


def planted(kind, ratio, kept=1.0):
    """A cell whose turns are the predicted ones times a ratio."""
    cell = next(c for c in EXPERIMENT.cells(Options(seeds=3)) if c.settings["kind"] == kind)
    s = cell.settings
    plain = math.sqrt(2 * s["rate"] * s["decay"])
    turns = [
        {"seed": seed, "tensor": "a", "lag": lag, "whole": lag != 1, "norm_ratio": 1.0,
         "angle": plain * math.sqrt(0.1 / 1.9) * ratio * f, "angle_ratio": ratio * f,
         "kept_ratio": kept * f}
        for seed, f in zip(s["seeds"], (0.999, 1.0, 1.001), strict=True)
        for lag in (1, 1000)
    ]  # fmt: skip
    return Measured(cell, {"turns": turns}, 0.0)


@pytest.mark.parametrize(
    ("kind", "ratio", "kept", "verdicts"),
    [
        ("noise", 1.0, 1.0, ["confirmed"]),
        ("noise", 1.1, 1.0, ["refuted"]),
        ("gpt", 1.0, 1.0, ["confirmed", "refuted", "confirmed", "confirmed"]),
        ("gpt", 1.4, 1.7, ["refuted", "refuted", "refuted", "refuted"]),
        ("gpt", math.sqrt(19), 1.0, ["refuted", "confirmed", "refuted", "confirmed"]),
    ],
)
def test_verdicts_follow_the_numbers(kind, ratio, kept, verdicts):
    found = findings([planted(kind, ratio, kept)])
    assert [finding.verdict for finding in found] == verdicts


def test_the_control_does_not_count_in_the_verdict_on_the_law():
    made = []
    for cell in EXPERIMENT.cells(Options(seeds=3)):
        if cell.settings["kind"] == "linear":
            sgd = cell.settings["optimiser"] == "sgd"
            overall = [3.0, 3.1, 2.9] if sgd else [0.999, 1.0, 1.001]
            made.append(Measured(cell, {"overall": overall, "answers": ["rate"] * 3}, 0.0))
    (law,) = findings(made)
    assert law.verdict == "confirmed"
    assert len(law.estimates) == 3
