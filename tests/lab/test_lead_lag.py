"""Signals are those of a scan, alarms keep their rate, and planted precursors are found."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from flagscope.lab import Cell, Measured, Options
from flagscope.lab.experiments.lead_lag.alarms import Alarms, Run, divergence
from flagscope.lab.experiments.lead_lag.experiment import EXPERIMENT
from flagscope.lab.experiments.lead_lag.findings import EVERY, Trainings, findings
from flagscope.lab.experiments.lead_lag.medians import holm, median_interval, sign_test
from flagscope.lab.experiments.lead_lag.settling import settled_at
from flagscope.lab.experiments.lead_lag.signals import BASELINES, DIAGNOSTICS, weight_numbers
from flagscope.lab.gpt import GPTShape, initial_state, logits
from flagscope.lab.text import pydoc_corpus, windows
from flagscope.monitor.measurement import measured as monitored
from flagscope.monitor.schedule import Part

SIGNAL = next(x for x in DIAGNOSTICS if not x.logarithm)
UPWARD = next(x for x in BASELINES if not x.logarithm)
STEPS = tuple(range(EVERY, 40 * EVERY + 1, EVERY))


def run_of(values, *, seed=0, diverged=None, signal=SIGNAL, finite=None):
    values = [None if math.isnan(x) else float(x) for x in values]
    steps, finite = STEPS[: len(values)], finite or (True,) * len(values)
    return Run(seed, steps, tuple(finite), {signal.name: values}, diverged)


def noise(seed, count, signal=SIGNAL):
    """Runs that differ by chance alone, with trend, spread that grows, and memory."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, len(STEPS))).cumsum(axis=1) + np.arange(len(STEPS))
    return [run_of(row, seed=i, signal=signal) for i, row in enumerate(x)]


def test_numbers_of_weights_are_those_of_the_monitor():
    shape = GPTShape(30, n_layer=2, n_head=4, n_embd=32, n_positions=16)
    generator = torch.Generator().manual_seed(0)
    state = {
        name: weight + 0.05 * torch.randn(weight.shape, generator=generator)
        for name, weight in initial_state(shape, generator).items()
    }
    part = Part("all", ("health", "pairs", "heads"), ("qk", "ov", "mlp"))
    settings = {"config": shape.config(), "device": "cpu", "workers": 1}
    scan = monitored(state, step=0, part=part, trainable=frozenset(), settings=settings)
    found = weight_numbers(state, shape)
    logged = {name: x for name, x in scan.scalars.items() if name in found}
    assert len(logged) == 9
    assert {name: found[name] for name in logged} == pytest.approx(logged, rel=2e-5)
    for kind in ("qk", "ov", "mlp"):
        pairs = [pair for pair in scan.report.result.pairs if pair.kind == kind]
        for name in ("commutator_ratio", "imbalance"):
            expected = np.mean([getattr(pair, name) for pair in pairs])
            assert found[f"pairs/{kind}/{name}"] == pytest.approx(expected, rel=2e-5)
        if kind != "mlp":
            ranks = [pair.functional.product_effective_rank for pair in pairs]
            assert found[f"pairs/{kind}/product_rank_min"] == pytest.approx(min(ranks), rel=2e-5)
    copied = {name: weight.clone() for name, weight in state.items()}
    copied["transformer.h.1.attn.c_attn.weight"][:, :8] = state[
        "transformer.h.1.attn.c_attn.weight"
    ][:, 8:16]
    assert weight_numbers(copied, shape)["heads/squared_cosine_max"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([3.0, 2.8, 2.9, 2.7], None),
        ([3.0, 3.35, 3.2, 3.35, 3.1], None),  # never two in a row
        ([3.0, 3.1, 3.35, 3.4], 9),
        ([3.0, 3.31, None], 6),
        ([3.0, 3.1, None], 9),
        ([None], 3),
    ],
)
def test_a_divergence_lasts_two_measurements(losses, step):
    assert divergence(range(EVERY, EVERY * len(losses) + 1, EVERY), losses) == step


def test_an_alarm_is_the_second_of_two_measurements():
    healthy = noise(0, 25)
    trend = np.arange(len(STEPS), dtype=float)
    single, double = trend.copy(), trend.copy()
    single[20] += 100
    double[20:22] += 100
    alarms = Alarms(SIGNAL, healthy)
    assert alarms.step(run_of(single)) is None
    late = run_of(double[:31], diverged=STEPS[29])
    assert alarms.step(late) == STEPS[21]
    assert alarms.lead(late, EVERY) == 8 * EVERY
    assert alarms.lead(run_of(single, diverged=STEPS[29]), EVERY) == -EVERY
    # Losses and gradient norms raise an alarm by a rise alone.
    upward = Alarms(UPWARD, noise(0, 25, UPWARD))
    assert upward.step(run_of(2 * trend - double, signal=UPWARD)) is None
    assert upward.step(run_of(double, signal=UPWARD)) == STEPS[21]
    broken = run_of(trend[:8], finite=(True,) * 7 + (False,), diverged=STEPS[7])
    assert alarms.lead(broken, EVERY) == 0


def test_one_healthy_run_in_twenty_raises_an_alarm():
    """Fresh runs next to thresholds from 19 others: 1 in 20 exceeds the largest."""
    shares = []
    for draw in range(60):
        healthy, fresh = noise(2 * draw, 19), noise(2 * draw + 1, 30)
        alarms = Alarms(SIGNAL, healthy)
        shares.append(np.mean([alarms.step(run) is not None for run in fresh]))
    error = np.std(shares, ddof=1) / len(shares) ** 0.5
    assert abs(np.mean(shares) - 0.05) < 4 * error
    assert error < 0.02


def test_what_never_varies_in_healthy_runs_is_an_alarm_where_it_does():
    alarms = Alarms(SIGNAL, [run_of(np.zeros(40), seed=i) for i in range(20)])
    assert alarms.threshold == 0
    assert alarms.step(run_of(np.zeros(40))) is None
    assert alarms.step(run_of(np.r_[np.zeros(10), 1e-6 * np.ones(30)])) == STEPS[10]
    # A signal that is rarely defined says nothing.
    unknown = Alarms(SIGNAL, [run_of(np.full(40, math.nan), seed=i) for i in range(20)])
    assert unknown.step(run_of(np.arange(40))) is None


def planted(precursor: int, *, diverge=16, survive=24, baseline=1):
    """Runs at the high rate, in which one diagnostic moves so many measurements before the end.

    Losses and the gradient norm rise `baseline` measurements before the divergence.
    """
    random = np.random.default_rng(5)
    cells, chosen = [], DIAGNOSTICS[4].name
    for seed in range(diverge + survive):
        length = int(random.integers(20, 36)) if seed < diverge else len(STEPS)
        series = {}
        for signal in (*BASELINES, *DIAGNOSTICS):
            x = 2 + 0.01 * random.standard_normal(length)
            if seed < diverge and signal in BASELINES:
                x[length - 2 - baseline :] += 1
            if seed < diverge and signal.name == chosen and precursor:
                x[length - 2 - precursor :] += 1
            series[signal.name] = x.tolist()
        diverged = STEPS[length - 2] if seed < diverge else None
        values = {
            "steps": STEPS[:length],
            "finite": [True] * length,
            "series": series,
            "diverged": diverged,
        }
        cells.append(Measured(Cell(f"edge-{seed}", {"arm": "edge", "seed": seed}), values, 0.0))
    return cells


@pytest.mark.parametrize(
    ("precursor", "verdicts"),
    [
        (8, ["refuted", "confirmed", "confirmed", "confirmed", "confirmed"]),
        (1, ["refuted", "refuted", "refuted", "refuted", "refuted"]),
        (0, ["refuted", "refuted", "refuted", "refuted", "refuted"]),
    ],
)
def test_a_planted_precursor_is_found_and_its_absence_too(precursor, verdicts):
    """An alarm needs two measurements: one that begins a measurement before has a lead of 0."""
    found = findings(planted(precursor))[:5]
    assert [finding.verdict for finding in found] == verdicts
    (lead,) = [e for e in found[1].estimates if e.name == f"lead, steps: {DIAGNOSTICS[4].label}"]
    assert lead.value == (precursor - 1) * EVERY
    assert "16 of 40 runs diverged" in found[0].words


def test_too_few_runs_leave_the_verdict_open():
    found = findings(planted(8, diverge=6))[:5]
    assert {finding.verdict for finding in found} == {"open"}
    assert "too few" in found[0].words
    assert {finding.verdict for finding in findings(planted(8, survive=10))[:5]} == {"open"}
    assert findings([])[0].estimates == ()


def test_medians_and_tests_are_exact():
    assert sign_test([3] * 10) == pytest.approx(2**-10)
    assert sign_test([0] * 10) == 1
    assert sign_test([-1, 1, 1, 1]) == pytest.approx(5 / 16)
    assert holm([0.01, 0.2, 0.02]) == pytest.approx([0.03, 0.2, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    random = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        estimate = median_interval("x", random.exponential(size=24))
        assert estimate.low <= estimate.value <= estimate.high
        covered.append(estimate.low <= math.log(2) <= estimate.high)
    assert 0.9 < np.mean(covered) < 0.99


def test_settled_is_near_the_end_from_there_on():
    steps = range(10, 110, 10)
    assert settled_at(steps, [0.0] + [1.0] * 9) == 0.2
    assert settled_at(steps, [0, 1, 1, 0.5, 1, 1, 1, 1, 1, 1]) == 0.5
    assert settled_at(steps, [1.0] * 10) is None
    assert settled_at(steps, [0.0, None] + [1.0] * 8) is None
    early = [0.0, 0.5] + [1.0] * 8
    late = list(np.linspace(0, 1, 10))
    assert settled_at(steps, early) < settled_at(steps, late)


def settling(early: float, late: float):
    """Trainings at sound rates in which alignment and held-out loss settle where it is said."""
    cells = []
    for arm in ("sound", "adamw"):
        for seed in range(12):
            shift = 0.02 * (seed % 5)
            series = {}
            for signal in (*BASELINES, *DIAGNOSTICS):
                end = (late if signal in BASELINES else early) + shift
                series[signal.name] = [
                    min(1.0, (i + 1) / len(STEPS) / end) for i in range(len(STEPS))
                ]
            values = {"steps": STEPS, "finite": [True] * 40, "series": series, "diverged": None}
            cell = Cell(f"{arm}-{seed}", {"arm": arm, "seed": seed})
            cells.append(Measured(cell, values, 0.0))
    return cells


@pytest.mark.parametrize(
    ("early", "late", "verdicts"),
    [(0.3, 0.7, ["confirmed", "refuted"]), (0.7, 0.3, ["refuted", "confirmed"])],
)
def test_the_order_of_settling_is_found(early, late, verdicts):
    found = findings(settling(early, late))
    assert [finding.verdict for finding in found[6:8]] == verdicts
    assert found[8].verdict == "confirmed"  # planted: both shift with the seed
    assert found[0].verdict == "open"


def small(arm, **changes):
    cell = next(c for c in EXPERIMENT.cells(Options(quick=True)) if c.settings["arm"] == arm)
    shape = cell.settings["shape"] | {"n_embd": 16, "n_positions": 16}
    fast = {"steps": 12, "batch": 2, "held_out_tokens": 65, "shape": shape}
    return replace(cell, settings=cell.settings | fast | changes)


def test_the_training_is_that_of_a_plain_loop():
    cell = small("edge", seed=3, rate=0.2, warmup=4)
    s, text = cell.settings, pydoc_corpus()
    shape = GPTShape(**s["shape"])
    state = initial_state(shape, torch.Generator().manual_seed(3))
    velocity = {name: torch.zeros_like(w) for name, w in state.items()}
    generator = torch.Generator().manual_seed(2**32 + 3)
    losses, norms = [], []
    for step in range(6):
        leaves = {name: w.clone().requires_grad_() for name, w in state.items()}
        x = windows(text, "real", rows=2, width=17, generator=generator)
        scores = logits(leaves, x[:, :-1], shape)
        loss = functional.cross_entropy(scores.flatten(0, 1), x[:, 1:].flatten())
        gradients = dict(zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True))
        losses.append(loss.item())
        norms.append(math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values())))
        for name, g in gradients.items():
            velocity[name] = 0.9 * velocity[name] + g
            state[name] = state[name] - 0.2 * min(1, (step + 1) / 4) * velocity[name]
    values = EXPERIMENT.measure(cell, lambda _: None)
    assert values["steps"] == [3, 6, 9, 12]
    found = values["series"]
    assert found["training_loss"][1] == pytest.approx(np.mean(losses[3:]), rel=1e-5)
    assert found["gradient_norm"][1] == pytest.approx(np.mean(norms[3:]), rel=1e-4)
    expected = weight_numbers(state, shape)
    assert {name: found[name][1] for name in expected} == pytest.approx(expected, rel=1e-3)
    assert values == EXPERIMENT.measure(cell, lambda _: None)


def test_a_training_ends_where_it_has_diverged():
    values = EXPERIMENT.measure(small("edge", rate=1e4, warmup=0), lambda _: None)
    assert values["diverged"] == values["steps"][0] == 3
    run = Run.of(Measured(small("edge"), values, 0.0))
    assert not all(run.finite) or run.series["held_out_loss"][-1] > 4
    assert len(run.steps) < 4


def test_every_part_has_its_finding_table_and_figure():
    cells = [*planted(4), *settling(0.3, 0.7)]
    cells += [Measured(c, EXPERIMENT.measure(c, lambda _: None), 0.0) for c in (small("adamw"),)]
    found = EXPERIMENT.conclude(cells)
    assert len(found) == 9
    assert all(finding.beyond for finding in found)
    assert set(EXPERIMENT.draw(cells, found)) == set(dict(EXPERIMENT.figures))
    frame = EXPERIMENT.table(cells)
    assert len(frame) == sum(len(m.values["steps"]) for m in cells)
    assert frame.columns[0] == "arm"
    assert math.isnan(frame[frame.arm == "adamw"].gradient_norm.iloc[-1])


def test_thresholds_of_sound_runs_are_judged_on_runs_that_survive():
    cells = [
        replace(m, cell=replace(m.cell, settings=m.cell.settings | {"arm": "sound"}))
        for m in planted(0, diverge=0, survive=24)
    ]
    quiet = findings([*cells, *planted(0)])[5]
    assert max(e.value for e in quiet.estimates) < 0.5
    shifted = planted(0)
    for m in shifted:
        m.values["series"] = {name: [x + 1 for x in v] for name, v in m.values["series"].items()}
    loud = findings([*cells, *shifted])[5]
    assert loud.verdict == "refuted"
    assert {e.value for e in loud.estimates} == {1.0}
    assert Trainings.of(cells).sound
