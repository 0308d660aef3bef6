"""The ends of ridge descent: against roots, proximal descent, a plain loop, and SciPy's angles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import minimize_scalar

from flagscope.lab import Measured, Options
from flagscope.lab.data import load_images
from flagscope.lab.experiments.attractor.experiment import EXPERIMENT
from flagscope.lab.experiments.attractor.kempf_ness import orbit_of_random_maps, ridge_on_orbit
from flagscope.lab.experiments.attractor.limits import (
    nuclear_certificate,
    optimal_threshold,
    survival_threshold,
    surviving_value,
)
from flagscope.lab.experiments.attractor.records import STRENGTHS
from flagscope.lab.experiments.attractor.runs import (
    adjacent,
    departures,
    descend,
    ends,
    planted_flag,
    product,
    whitened_targets,
)
from flagscope.lab.experiments.attractor.training import DECAYS
from flagscope.lab.linear import class_regression
from flagscope.lab.networks import initial_network

from .test_published import LAB, estimates, parts

WANTED = ("depth2-decay0.3", "depth2-decay1.1", "depth3-decay0.3", "small-decay0.3",
          "no-ridge-depth2", "no-ridge-depth3", "no-loss", "flag-decay0", "flag-decay0.3",
          "images-decay0.05", "images-decay0.35", "orbits")  # fmt: skip
VERDICTS = ["confirmed", "confirmed", "refuted", "confirmed", "refuted", "confirmed"]
VERDICTS += ["confirmed", "refuted", "confirmed", "confirmed"]


@pytest.fixture(scope="module")
def measured():
    cells = {c.name: c for c in EXPERIMENT.cells(Options(seeds=2, quick=True))}
    chosen = [cells[name] for name in WANTED]
    return [Measured(c, EXPERIMENT.measure(c, lambda _: None), 0.0) for c in chosen]


def verdicts(measured):
    return [finding.verdict for finding in EXPERIMENT.conclude(measured)]


def tampered(measured, name, **change):
    """The same with the first run of one cell changed."""
    found = []
    for m in measured:
        first, *others = m.values["runs"]
        if m.cell.name == name:
            m = replace(m, values=m.values | {"runs": [first | change, *others]})
        found.append(m)
    return found


def cost(sigma, t, decay, depth):
    return (sigma**depth - t) ** 2 / 2 + depth * decay * sigma**2 / 2


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
@pytest.mark.parametrize("decay", [0.05, 0.3])
@pytest.mark.parametrize("t", [0.2, 0.6, 1.0, 3.0])
def test_survivors_are_the_largest_roots(t, decay, depth):
    """σ^{2L-2} - t σ^{L-2} + λ as a polynomial, its roots by NumPy."""
    coefficients = np.zeros(2 * depth - 1)
    coefficients[0], coefficients[depth], coefficients[-1] = 1, -t, decay
    if depth == 2:
        coefficients = np.array([1, 0, decay - t])
    roots = np.roots(coefficients)
    real = roots[(abs(roots.imag) < 1e-9) & (roots.real > 0)].real
    found = surviving_value(t, decay, depth)
    if t > survival_threshold(decay, depth):
        assert found == pytest.approx(max(real) ** depth, rel=1e-10)
    else:
        assert found is None
        assert len(real) == 0


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_the_optimal_threshold_divides_costs(depth):
    decay = 0.3
    for t, pays in [(0.99, False), (1.01, True)]:
        strength = t * optimal_threshold(decay, depth)
        best = minimize_scalar(
            cost, bounds=(1e-3, 3), args=(strength, decay, depth), method="bounded"
        )
        value = surviving_value(strength, decay, depth)
        if value is None:
            assert depth == 2
            assert not pays
            continue
        survives = cost(value ** (1 / depth), strength, decay, depth)
        assert (survives < strength**2 / 2) == pays
        assert best.fun == pytest.approx(survives, abs=1e-4) or not pays


def test_thresholds_of_the_page():
    assert survival_threshold(0.4, 2) == optimal_threshold(0.4, 2) == 0.4
    assert survival_threshold(0.4, 3) == pytest.approx(4 * (0.4 / 3) ** 0.75)
    assert optimal_threshold(0.4, 3) == pytest.approx(2 * 0.4**0.75)
    assert surviving_value(0.7, 0.0, 3) == pytest.approx(0.7)


def test_descent_is_that_of_a_plain_loop():
    task = class_regression(load_images())
    network = initial_network([64, 5, 10], [3])
    start = [w.detach().clone() for w in network.weights]
    options = {"step": 0.2, "decay": 0.05}
    end, driven = descend(
        start, task.input_covariance, task.cross_covariance, **options, steps=50,
        record=lambda n, w: None, moments=[], report=lambda _: None,
    )  # fmt: skip
    optimiser = torch.optim.SGD(network.weights, lr=0.2, weight_decay=0.05)
    for _ in range(50):
        optimiser.zero_grad()
        error = network(task.inputs) - task.targets
        (0.5 * error.square().sum() / len(task.inputs)).backward()
        optimiser.step()
    for found, expected in zip(end, network.weights, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-12)
    (row,) = departures(start, end, driven, (1 - 0.2 * 0.05) ** 100)
    assert row["off_law"] < 1e-12


def shrunk(matrix, by):
    """Soft thresholding of singular values."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    return (u * np.maximum(s - by, 0)) @ v


def test_images_end_where_proximal_descent_does(measured):
    """The convex problem in M alone, with no layers."""
    task = class_regression(load_images())
    xx, yx = task.input_covariance.numpy(), task.cross_covariance.numpy()
    m = np.zeros_like(yx)
    for _ in range(4000):
        m = shrunk(m - (m @ xx - yx), 0.05)
    run = next(m for m in measured if m.cell.name == "images-decay0.05").values["runs"][0]
    np.testing.assert_allclose(run["values"], np.linalg.svd(m)[1], atol=1e-8)
    excess, gap = nuclear_certificate(
        torch.tensor(m)[None], task.input_covariance, task.cross_covariance, 0.05
    )
    assert excess < 1e-9
    assert abs(gap) < 1e-9


def test_the_gap_bounds_the_excess():
    """M = 0 and M too small, where the residual is within λ or made so by a large λ."""
    yx = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))
    one = torch.eye(2, dtype=torch.float64)

    def objective(m):
        return (m - yx).square().sum() / 2 + 0.6 * torch.linalg.svdvals(m).sum()

    best = torch.diag(torch.tensor([0.4, 0.0], dtype=torch.float64))
    for scale, certified in [(1.0, True), (1.2, False), (0.5, False)]:
        m = scale * best
        excess, gap = nuclear_certificate(m[None], one, yx, 0.6)
        assert (excess.item() < 1e-9 and abs(gap.item()) < 1e-9) == certified
        if excess.item() < 1e-9:
            assert objective(m) - objective(best) <= gap.item() + 1e-12


def test_planted_flags_are_recognised():
    targets = whitened_targets([1.0, 0.8], inputs=7, outputs=6, seeds=range(4))
    w1, w2 = planted_flag(targets, width=9, write=2, read=4, seed=0)
    for i, row in enumerate(adjacent(w1, w2)):
        assert (row["write"], row["read"], row["strict_flag"]) == (2, 4, True)
        angles = subspace_angles(w1[i].numpy(), w2[i].mT.numpy()[:, :4])
        assert np.sin(angles).max() >= row["sine"] - 1e-9
    # Turned a little it is none; cut down to V it is not strict.
    turned = torch.linalg.matrix_exp(0.01 * torch.ones(9, 9, dtype=torch.float64).tril(-1))
    assert not any(row["strict_flag"] for row in adjacent(turned @ w1, w2))
    assert not any(row["strict_flag"] for row in adjacent(w1, w2 @ w1 @ torch.linalg.pinv(w1)))


def test_angles_are_those_of_scipy():
    generator = torch.Generator().manual_seed(0)
    w1 = torch.randn(1, 6, 2, generator=generator, dtype=torch.float64)
    w2 = torch.randn(1, 3, 6, generator=generator, dtype=torch.float64)
    (row,) = adjacent(w1, w2)
    expected = np.sin(subspace_angles(w1[0].numpy(), w2[0].mT.numpy())).max()
    assert row["sine"] == pytest.approx(expected)
    (state,) = ends([w1, w2])
    assert state["ranks"] == [2, 3]
    assert state["rank_of_product"] == 2
    assert state["nuclear"] == pytest.approx(np.linalg.svd(product([w1, w2])[0])[1].sum())


def test_the_derivative_along_an_orbit_by_differences():
    row = orbit_of_random_maps(5)
    generator = torch.Generator().manual_seed(5)
    w1, w2, x = (
        torch.randn(m, n, generator=generator, dtype=torch.float64)
        for m, n in ((6, 10), (8, 6), (6, 6))
    )
    x = (x + x.mT) / 2
    ahead, behind = (ridge_on_orbit(w1, w2, torch.linalg.matrix_exp(s * x)) for s in (1e-5, -1e-5))
    assert row["predicted"] == pytest.approx(float((ahead - behind) / 2e-5), rel=1e-6)
    assert row["derivative"] == pytest.approx(row["predicted"])
    assert row["ridge_balanced"] < row["ridge"]


def test_every_part_is_settled(measured):
    assert verdicts(measured) == VERDICTS
    findings = EXPERIMENT.conclude(measured)
    assert set(EXPERIMENT.draw(measured, findings)) == set(dict(EXPERIMENT.figures))
    table = EXPERIMENT.table(measured)
    assert len(table) == 2 * len(WANTED)
    assert not table.map(lambda value: isinstance(value, list)).any().any()


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("depth2-decay0.3", {"rank_of_product": 3}, 0),
        ("depth2-decay0.3", {"values": [0.7, 0.5, 0.3, 0.101, 0]}, 0),
        ("depth3-decay0.3", {"values": [0.65, 0.389, 0, 0, 0]}, 1),
        ("depth3-decay0.3", {"ranks": [2, 3, 2]}, 1),
        ("depth3-decay0.3", {"imbalance": [1e-3, 0.0]}, 3),
        ("depth2-decay0.3", {"sines": [1e-3]}, 3),
        ("images-decay0.05", {"gap": 1e-3}, 5),
        ("images-decay0.05", {"residual_excess": 1e-3}, 5),
        ("images-decay0.05", {"ranks": [0, 0], "rank_of_product": 0}, 5),
        ("orbits", {"derivative": 1.0}, 6),
        ("no-ridge-depth2", {"off_law": 1e-3}, 8),
        ("no-ridge-depth3", {"ranks": [1, 1, 1]}, 8),
        ("flag-decay0", {"strict_flags": [False]}, 8),
        ("no-loss", {"law_ratio": 1.1}, 9),
        ("no-loss", {"leading_sine": 0.1}, 9),
    ],
)
def test_one_counterexample_refutes(measured, name, change, part):
    assert verdicts(tampered(measured, name, **change))[part] == "refuted"


def test_claims_that_held_would_be_confirmed(measured):
    """Strict flags at every end, small starts that survive, ridge that is ‖A - B‖²."""
    changed = []
    for m in measured:
        runs = [dict(run) for run in m.values["runs"]]
        for run in runs:
            if m.cell.name == "small-decay0.3":
                run |= {"rank_of_product": 2}
            if "strict_flags" in run:
                run |= {"strict_flags": [True]}
            if m.cell.name == "orbits":
                run |= {"ridge": run["moment"], "ridge_balanced": 0.0}
        changed.append(replace(m, values=m.values | {"runs": runs}))
    found = verdicts(changed)
    assert (found[2], found[4], found[7]) == ("confirmed",) * 3


def test_settings_lie_between_thresholds():
    """No λ of the full run is so close to a threshold that descent would not end in time."""
    for depth, decays in DECAYS.items():
        for decay in decays:
            ratios = [t / survival_threshold(decay, depth) for t in STRENGTHS]
            assert min(abs(r - 1) for r in ratios) > 0.04


def test_the_page_says_what_the_table_says():
    table = pd.read_csv(LAB / "attractor/table.csv")
    shallow = table[(table.kind == "whitened") & (table.depth == 2)]
    values = shallow[[f"values_{i}" for i in range(1, 6)]].to_numpy()
    expected = np.maximum(0, np.array(STRENGTHS) - shallow.decay.to_numpy()[:, None])
    np.testing.assert_allclose(values, expected, atol=1e-8)
    ended = table[table.kind.isin(["whitened", "small", "images"]) & (table.rank_of_product > 0)]
    flags = ended[[c for c in table if c.startswith("strict_flags_") and "start" not in c]]
    printed = parts("attractor")[
        "A strict flag, V in U and not all of it, is an end of ridge descent."
    ]
    assert estimates(printed)[0].n == len(ended)
    assert not flags.fillna(False).astype(bool).any().any()
    assert (ended.ranks_1 == ended.ranks_2).all()
