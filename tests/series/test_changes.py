"""Jumps of curves: none on smooth growth, noise and random walks; planted ones with their steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import flagscope
from flagscope.demo import checkpoints
from flagscope.records.series import SeriesCurve, StepRecord
from flagscope.records.series_changes import ChangePoints
from flagscope.series.changes import LEAST, LEVEL, SIDE, change_points
from series.made import mlp, saved

STEPS, CURVES = 30, 10
Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def _exponential(draws: np.random.Generator, s: np.ndarray) -> np.ndarray:
    return 1 - np.exp(-s / draws.uniform(1, 15))


NULLS: dict[str, Draw] = {
    "walk": lambda draws, s: draws.normal(size=s.size).cumsum(),
    "fading walk": lambda draws, s: (draws.normal(size=s.size) * np.exp(-s / 8)).cumsum(),
    "growth": _exponential,
    "power": lambda draws, s: (1 + s) ** -draws.uniform(0.3, 2),
    "transition": lambda draws, s: (
        1 / (1 + np.exp(-(s - draws.uniform(8, 22)) / draws.uniform(0.7, 4)))
    ),
    "growth, scatter": lambda draws, s: _exponential(draws, s) + 0.01 * draws.normal(size=s.size),
    "growth, walk": lambda draws, s: (
        _exponential(draws, s) + 0.01 * draws.normal(size=s.size).cumsum()
    ),
    "constant": lambda draws, s: np.full(s.size, draws.normal()),
}


def _steps(numbers: np.ndarray, run: str | None = None) -> list[StepRecord]:
    return [
        StepRecord(name=f"step-{i}", run=run, source="", number=int(i), unit="step", tensors=1,
                   bytes_total=0, bytes_sampled=0)
        for i in numbers
    ]  # fmt: skip


def _curve(values: np.ndarray, observable: str = "gram_correlation") -> SeriesCurve:
    chance: list[float | None] = [None] * len(values)
    return SeriesCurve(pair="p", kind="mlp", layer=0, observable=observable, label=None,
                       values=[None if np.isnan(one) else float(one) for one in values],
                       low=chance, high=chance)  # fmt: skip


def _found(*curves: np.ndarray, numbers: np.ndarray | None = None) -> ChangePoints:
    numbers = np.arange(len(curves[0])) * 10 if numbers is None else numbers
    return change_points(_steps(numbers), [_curve(one) for one in curves])


@pytest.mark.parametrize("null", NULLS)
def test_trainings_without_a_jump_have_none_more_often_than_said(null: str) -> None:
    claims, draws, s = 0, np.random.default_rng(5), np.arange(STEPS)
    for _ in range(200):
        claims += bool(_found(*(NULLS[null](draws, s) for _ in range(CURVES))).points)
    assert stats.binom.sf(claims - 1, 200, LEVEL) > 0.01, claims


@pytest.mark.parametrize("null", ["walk", "growth", "growth, scatter", "growth, walk"])
def test_a_planted_jump_is_named_with_its_steps(null: str) -> None:
    named, draws, s = 0, np.random.default_rng(6), np.arange(STEPS)
    size = 15 if null == "walk" else 0.3
    for _ in range(50):
        curves = [NULLS[null](draws, s) for _ in range(CURVES)]
        curves[3] = curves[3] + size * (s >= 12)
        points = _found(*curves).points
        named += any((point.after_number, point.by_number) == (110, 120) for point in points)
        if null != "walk":
            jumps = [point.jump for point in points if point.by_number == 120]
            assert all(abs(jump - size) < 0.15 for jump in jumps)
    assert named >= 45


def test_what_cannot_be_tested_is_said() -> None:
    draws = np.random.default_rng(0)
    jump = 10.0 * (np.arange(LEAST - 1) > LEAST // 2)
    few = _found(jump + draws.normal(size=LEAST - 1) / 100)
    assert (few.tests, few.points) == (0, [])
    assert few.not_looked_at == (
        f"Too few steps with a number: 11, and a jump is looked for from {LEAST} on."
    )
    long = np.append(jump, 10) + draws.normal(size=LEAST) / 100
    assert (_found(long).curves, _found(long).tests) == (1, LEAST - 1 - 2 * SIDE)
    uneven = _found(long, numbers=2 ** np.arange(LEAST))
    assert uneven.tests == 0
    assert "evenly apart" in uneven.not_looked_at
    for counted in ("intersection_beyond_chance", "overlap_ratio"):
        assert change_points(_steps(np.arange(LEAST)), [_curve(long, counted)]).curves == 0
    # Walks of heads are not known to be as those of pairs.
    heads = _curve(long).model_copy(update={"part": "heads"})
    assert change_points(_steps(np.arange(LEAST)), [heads]).curves == 0


def test_a_step_that_is_missing_is_bridged_and_runs_are_apart() -> None:
    draws, s = np.random.default_rng(1), np.arange(STEPS)
    values = draws.normal(size=STEPS) / 100 + (s >= 15)
    values[15] = np.nan
    (point,) = [one for one in _found(values).points if one.jump > 0.5]
    assert (point.after, point.by) == ("step-140", "step-160")
    steps = [*_steps(s, "a"), *_steps(s, "b")]
    both = np.concatenate([draws.normal(size=STEPS) / 100, draws.normal(size=STEPS) / 100 + 5])
    for run in "ab":
        assert change_points(steps, [_curve(both)], run=run).points == []


def test_the_bundled_series_has_too_few_steps() -> None:
    found = flagscope.track(checkpoints(), kinds="mlp", layers=0).result.change_points
    assert [one.not_looked_at[:13] for one in found] == ["Too few steps"]


def test_a_layer_that_starts_anew_is_found_in_a_training(tmp_path: Path) -> None:
    run = mlp(0, steps=18)
    state = dict(run[9][1])
    state["2.weight"] = mlp(5, steps=1)[0][1]["2.weight"]
    later = mlp(3, start=state, steps=9)
    run = [*run[:9], *((step + 90, weights) for step, weights in later)]
    report = flagscope.track(saved(run, tmp_path))
    frame = report.change_points
    assert {(80, 90)} == set(zip(frame["after_number"], frame["by_number"], strict=True))
    assert {"0-2", "2-4"} >= set(frame["pair"])
    assert len(frame) >= 2
    assert flagscope.track(saved(mlp(0, steps=18), tmp_path / "sound")).change_points.empty
