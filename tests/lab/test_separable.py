"""Alignment without ridge: losses against PyTorch and mpmath, bounds, plain loops, and verdicts."""

from __future__ import annotations

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from flagscope.errors import InputError
from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.alignment_without_ridge.experiment import EXPERIMENT
from flagscope.lab.experiments.alignment_without_ridge.quantities import at_one_norm, exponents
from flagscope.lab.experiments.alignment_without_ridge.records import Records, rank_bounds
from flagscope.lab.experiments.alignment_without_ridge.training import (
    margin_loss,
    squared_loss,
    whitened_classes,
)
from flagscope.lab.linear import layer_gradients, linear_gradients, partial_products
from flagscope.lab.networks import initial_network


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
def test_the_margin_loss_is_pytorchs_and_its_gradient_autograds(outputs, size):
    z = (size * normal(3, 20, outputs)).requires_grad_()
    labels = torch.arange(20) % max(outputs, 2)
    if outputs == 1:
        target = labels.double().expand(3, 20)
        plain = torch.nn.functional.binary_cross_entropy_with_logits(
            z[..., 0], target, reduction="none"
        ).mean(-1)
    else:
        plain = torch.stack([torch.nn.functional.cross_entropy(one, labels) for one in z])
    value, gradient = margin_loss(z, labels)
    torch.testing.assert_close(value, plain.log(), rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad(plain.log().sum(), z)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-14)


def test_the_margin_loss_beyond_float64_is_that_of_mpmath():
    """Losses of e^-900 and less, against eighty digits."""
    margins = [900.0, 905.0, 950.0, 21.0 + 900.0]
    z = torch.tensor([[[m] for m in margins]], dtype=torch.float64)
    value, gradient = margin_loss(z, torch.ones(4, dtype=torch.long))
    with mpmath.workdps(80):
        terms = [mpmath.log1p(mpmath.exp(-m)) for m in margins]
        expected = mpmath.log(sum(terms) / 4)
        slopes = [-mpmath.exp(-m) / (1 + mpmath.exp(-m)) / sum(terms) for m in margins]
    assert value.item() == pytest.approx(float(expected), rel=1e-14)
    for found, slope in zip(gradient.flatten().tolist(), slopes, strict=True):
        assert found == pytest.approx(float(slope), rel=1e-11)


def test_the_squared_loss_is_autograds():
    z, labels = normal(2, 6, 1).requires_grad_(), torch.tensor([0, 1, 1, 0, 1, 0])
    value, gradient = squared_loss(z, labels)
    (expected,) = torch.autograd.grad(value.sum(), z)
    torch.testing.assert_close(gradient, expected)
    assert squared_loss(torch.ones(1, 3, 1), torch.ones(3).long())[0].item() == 0


def test_layer_gradients_are_autograds():
    weights = [normal(2, b, a, seed=a + b).requires_grad_() for a, b in ((5, 4), (4, 3), (3, 2))]
    products = partial_products(weights)
    behind = normal(2, 2, 5, seed=9)
    expected = torch.autograd.grad((products[-1] * behind).sum(), weights)
    found = layer_gradients(weights, products, behind)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    xx, yx = normal(5, 5, seed=1), normal(2, 5, seed=2)
    for one, other in zip(
        linear_gradients(weights, xx, yx),
        layer_gradients(weights, products, products[-1] @ xx - yx),
        strict=True,
    ):
        assert torch.equal(one, other)


def cell(name, **changes):
    (found,) = [c for c in EXPERIMENT.cells(Options(quick=True)) if c.name == name]
    return replace(found, settings=found.settings | changes)


def measured(name, **changes):
    made = cell(name, **changes)
    return Measured(made, EXPERIMENT.measure(made, lambda _: None), 0.0)


@pytest.mark.parametrize("name", ["logistic-depth3", "plain-depth2", "squared-depth2"])
def test_the_networks_are_those_of_a_plain_loop(name):
    """One seed by autograd on the loss itself, with SciPy's angles."""
    m = measured(name, steps=30, seeds=[6])
    s, values = m.cell.settings, m.values
    task = whitened_classes(load_images(limit=s["limit"]), 2, 10)
    sign = (2 * task.labels - 1).double()
    widths = [10, *[16] * (s["depth"] - 1), 1]
    weights = [w[0].detach().clone() for w in initial_network(widths, [6]).weights]
    start = weights[0] @ weights[0].mT - weights[1].mT @ weights[1]
    for _ in range(30):
        weights = [w.requires_grad_() for w in weights]
        f = task.inputs
        for w in weights:
            f = f @ w.mT
        f = f[:, 0]
        if s["loss"] == "squared":
            loss = (f - sign).square().mean() / 2
        else:
            loss = torch.nn.functional.softplus(-sign * f).mean()
        gradients = torch.autograd.grad(loss, weights)
        length = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        step = s["step"] / (length if s["pace"] == "normalised" else 1)
        weights = [(w - step * g).detach() for w, g in zip(weights, gradients, strict=True)]
    w1, w2 = (w.numpy() for w in weights[:2])
    a, b = w1 @ w1.T, w2.T @ w2
    norms = np.linalg.norm(a) + np.linalg.norm(b)
    assert values["relative"][-1][0][0] == pytest.approx(np.linalg.norm(a - b) / norms, rel=1e-9)
    u, v = np.linalg.svd(w1)[0][:, :1], np.linalg.svd(w2)[2][:1].T
    assert values["sine"][-1][0][0] == pytest.approx(math.sin(subspace_angles(u, v)[0]), rel=1e-7)
    moved = np.linalg.norm(a - b) / np.linalg.norm(start.numpy())
    assert values["conserved"][-1][0][0] == pytest.approx(moved, rel=1e-9)
    assert values["leading"][-1][0][0] == pytest.approx(np.linalg.norm(w1, 2) ** 2, rel=1e-9)


def test_classes_are_white_and_those_asked_for():
    task = whitened_classes(load_images(), 3, 7)
    assert sorted(set(task.labels.tolist())) == [0, 1, 2]
    x = task.inputs
    torch.testing.assert_close(x.mT @ x / len(x), torch.eye(7).double())
    with pytest.raises(InputError, match="has 10 classes, 12 are wanted"):
        whitened_classes(load_images(), 12, 7)


def test_the_bounds_hold_for_any_weights_whatever_they_are():
    """Linear algebra alone: with D of the weights at hand no dynamics are needed."""
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.rand(4, generator=generator, dtype=torch.float64) * 3
        weights = [
            normal(1, b, a, seed=10 * seed + i) * sizes[i]
            for i, (a, b) in enumerate(((6, 5), (5, 4), (4, 1)))
        ]
        records = Records(weights, dimension=1)
        records.add(0, weights, *(torch.zeros(1).double() for _ in range(3)))
        assert float(records.worst["rank_ratio"].max()) <= 1 + 1e-12
        assert float(records.worst["angle_ratio"].max()) <= 1 + 1e-12


def test_the_bound_on_the_rank_is_attained():
    """W1 = diag(a, b) and W2 = (a, 0): all of ‖W1‖² - σ_1² is b², and ε = b² + ‖D‖₂ with D = b²."""
    a, b = 3.0, 0.5
    write, read = torch.diag(torch.tensor([a, b])).double()[None], torch.tensor([[[a, 0.0]]])
    d = write @ write.mT - read.double().mT @ read.double()
    assert rank_bounds([d]).item() == pytest.approx(2 * b**2)


def test_a_planted_exponent_and_a_planted_ratio_are_found():
    leading = np.geomspace(1, 100, 30)
    sine = 0.3 * leading**-1.5
    series = {
        "leading": [[[x], [x]] for x in leading],
        "sine": [[[y]] for y in sine],
        "relative": [[[y]] for y in sine],
    }
    m = Measured(cell("logistic-depth2", seeds=[0]), series, 0.0)
    np.testing.assert_allclose(exponents(m, "sine"), [[-1.5]], rtol=1e-12)
    end = {"leading": [[[20.0], [20.0]]], "sine": [[[0.3 * 20**-1.5 * 1.04]]]}
    plain = Measured(cell("plain-depth2", seeds=[0]), end, 0.0)
    np.testing.assert_allclose(at_one_norm(plain, m), [1.04], rtol=1e-12)


@pytest.fixture(scope="module")
def miniature():
    """Every cell of a quick run, shorter still."""
    shorter = {"logistic-depth2": 800, "logistic-depth3": 800, "ten-classes-depth2": 300}
    return [
        measured(c.name, steps=shorter.get(c.name, 400))
        for c in EXPERIMENT.cells(Options(quick=True))
    ]


def by_claim(findings, words):
    (found,) = [f for f in findings if words in f.claim]
    return found


def test_layers_align_without_ridge_only_where_norms_grow(miniature):
    for m in miniature:
        s, values = m.cell.settings, m.values
        left = np.array(values["relative"][-1]) / np.array(values["relative"][0])
        assert np.max(values["miss"]) < 1e-11
        if s["kind"] == "margin":
            assert left.max() < 0.2
            assert np.max(values["rank_ratio"]) <= 1
            assert np.max(values["angle_ratio"]) <= 1
            assert np.min(values["right"][-1]) == 1
        elif s["kind"] == "bounded":
            assert left.min() > 0.8
            assert np.max(values["gradient"][-1]) < 1e-6


def test_every_part_has_its_finding_table_and_figure(miniature):
    findings = EXPERIMENT.conclude(miniature)
    assert len(findings) == 9
    assert by_claim(findings, "Without ridge").verdict == "refuted"
    assert by_claim(findings, "stays what it was").verdict == "confirmed"
    assert set(EXPERIMENT.draw(miniature, findings)) == set(dict(EXPERIMENT.figures))
    frame = EXPERIMENT.table(miniature)
    assert frame.notna().all().all()
    last = frame[(frame["cell"] == "squared-depth2") & (frame["seed"] == 1)].iloc[-1]
    (m,) = [m for m in miniature if m.cell.name == "squared-depth2"]
    assert last["relative"] == m.values["relative"][-1][0][1]


def planted(measured_cells, kind, **ends):
    """Cells of a kind with other values: of a series the last moment, else the whole."""

    def with_end(m, name, value):
        old = m.values[name]
        return [*old[:-1], value] if len(old) == len(m.values["moments"]) else value

    return [
        replace(m, values=m.values | {name: with_end(m, name, v) for name, v in ends.items()})
        if m.cell.settings["kind"] == kind
        else m
        for m in measured_cells
    ]


def test_verdicts_follow_the_numbers(miniature):
    twice = [m for m in miniature if m.cell.settings["depth"] == 2]
    found = EXPERIMENT.conclude(planted(twice, "margin", relative=[[0.8, 0.81, 0.79]]))
    assert by_claim(found, "Without ridge").verdict == "confirmed"
    found = EXPERIMENT.conclude(planted(twice, "margin", relative=[[0.1, 0.8, 0.4]]))
    assert by_claim(found, "Without ridge").verdict == "open"
    found = EXPERIMENT.conclude(planted(twice, "bounded", relative=[[0.05, 0.06, 0.04]]))
    assert by_claim(found, "Control").verdict == "refuted"
    found = EXPERIMENT.conclude(planted(twice, "bounded", gradient=[1e-3, 1.1e-3, 0.9e-3]))
    assert by_claim(found, "Control").verdict == "refuted"
    found = EXPERIMENT.conclude(planted(twice, "plain", miss=[[1e-3, 1.1e-3, 0.9e-3]]))
    assert by_claim(found, "stays what it was").verdict == "refuted"
    found = EXPERIMENT.conclude(planted(twice, "margin", rank_ratio=[[2.0, 2.1, 1.9]]))
    assert by_claim(found, "rank one, and its").verdict == "refuted"
    found = EXPERIMENT.conclude(planted(twice, "classes", stable_rank=[[1.0, 1.01, 1.02]] * 2))
    assert by_claim(found, "With ten classes the relative").verdict == "refuted"
    shares = {"least": [[1.0, 1.0, 4.0]] * 2, "leading": [[100.0, 50.0, 40.0]] * 2}
    found = EXPERIMENT.conclude(planted(twice, "classes", **shares, sine=[[0.8, 0.6, 0.1]]))
    nine = by_claim(found, "all nine")
    assert nine.verdict == "open"
    assert "at least 0.05 of the first in 1 seeds, mean sine 0.1; " in nine.words
    assert "less than 0.05 of the first in 2 seeds, mean sine 0.7." in nine.words


def test_controls_differ_from_what_they_control_in_the_loss_alone():
    cells = {c.name: c.settings for c in EXPERIMENT.cells(Options())}
    for depth in (2, 3, 4):
        one, other = cells[f"logistic-depth{depth}"], cells[f"squared-depth{depth}"]
        same = ("classes", "features", "limit", "scale", "seeds", "width", "depth", "data")
        assert all(one[key] == other[key] for key in same)
    assert all(len(s["seeds"]) == 10 for s in cells.values())
