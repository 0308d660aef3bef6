"""Motion of maps: planted turns are found, random ones are not; gauge; sizes, straightness."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import kstest
from torch import Tensor

import flagscope
from comparison.change.networks import BERT, bert
from comparison.change.test_changed_maps import with_signal
from flagscope.comparison.change import leading
from flagscope.geometry.norm_sketch import norm_sketch, sketch_variance
from series.made import Run, State, mlp, saved

SHAPES = {"0": (128, 96), "2": (96, 128)}


def start(seed: int) -> State:
    """Two maps with three directions that stand out, with gaps between them."""
    draw = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, (rows, columns) in SHAPES.items():
        w = torch.randn(rows, columns, generator=draw)
        u = torch.linalg.qr(torch.randn(rows, 3, generator=draw))[0]
        v = torch.linalg.qr(torch.randn(columns, 3, generator=draw))[0]
        state[f"{name}.weight"] = w + (u * torch.tensor([90.0, 70.0, 50.0])) @ v.mT
    return state


def shaken(state: State, draw: torch.Generator, size: float = 0.1) -> State:
    return {n: w + size * torch.randn(w.shape, generator=draw) for n, w in state.items()}


def walk(seed: int, steps: int, change: Callable[[int, State], State] | None = None) -> Run:
    """Steps of equal size in random directions, with a change planted in front of some."""
    draw, state = torch.Generator().manual_seed(1000 + seed), start(seed)
    run: Run = []
    for step in range(steps):
        if step:
            state = shaken(state if change is None else change(step, state), draw)
        run.append((10 * step, state))
    return run


def turned(state: State, angle: float) -> State:
    """The first two output directions of one map turned into each other, its values as before."""
    w = state["0.weight"].double()
    u, s, vt = torch.linalg.svd(w, full_matrices=False)
    c, d = math.cos(angle), math.sin(angle)
    new = u.clone()
    new[:, 0], new[:, 1] = c * u[:, 0] + d * u[:, 1], c * u[:, 1] - d * u[:, 0]
    return {**state, "0.weight": ((new * s) @ vt).float()}


def test_a_planted_turn_is_found_at_its_step_in_its_block_and_on_its_side(tmp_path: Path) -> None:
    run = walk(0, 6, lambda step, state: turned(state, 0.1) if step == 3 else state)
    report = flagscope.track(saved(run, tmp_path))
    frame = report.motion
    found = frame[frame["turn_p_adjusted"] < 0.05]
    assert found[["step", "map", "side"]].values.tolist() == [
        ["checkpoint-30", "0.weight", "write"]
    ]
    row = found.iloc[0]
    assert (row["turn_block_first"], row["turn_block_size"]) in {(0, 1), (1, 1)}
    assert row["turn_block_ratio"] > 3
    # The two turned into each other: the space that they and the third span did not turn.
    assert row["turn_directions"] == 3
    assert row["turn_mean_square_sine"] < 0.1 * math.sin(0.1) ** 2
    last = frame[(frame["map"] == "0.weight") & (frame["side"] == "write")]
    assert (last["last_block_ratio"].iloc[:3] > 3).all()


@pytest.mark.parametrize("dense", [1024, 32])
def test_random_updates_have_uniform_p_values(
    dense: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "DENSE", dense)
    p, ratios, claims = [], [], 0
    for seed in range(20):
        report = flagscope.track(saved(walk(seed, 2), tmp_path / str(seed)))
        rows = report.motion[report.motion["number"] == 10]
        rows = rows[rows["turn_status"] == "ok"]
        p += (10 ** rows["turn_log10_p"]).tolist()
        ratios += rows["turn_ratio"].tolist()
        claims += bool((rows["turn_p_adjusted"] < 0.05).any())
    assert len(p) >= 76  # of large maps a few products may leave a bound too wide
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs(np.mean(ratios) - 1) < 4 * np.std(ratios) / math.sqrt(len(ratios))
    assert claims <= 4  # of 20 at 5 %: more has a probability of 0.3 %


def test_a_change_of_a_hidden_basis_alone_is_gauge(tmp_path: Path) -> None:
    before = with_signal(bert())
    after = {name: w.clone() for name, w in before.items()}
    layer = "encoder.layer.0.attention."
    value, out = f"{layer}self.value.weight", f"{layer}output.dense.weight"
    skew = torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    turn = torch.block_diag(*[torch.linalg.matrix_exp(0.02 * (skew - skew.mT))] * 4)
    after[value], after[out] = turn @ before[value], before[out] @ turn.mT
    bias = value.replace("weight", "bias")
    after[bias] = turn @ before[bias]
    for step, state in ((0, before), (10, after)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({n: w.contiguous() for n, w in state.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(BERT))
    rows = flagscope.track(tmp_path).motion
    assert set(rows[rows["part"] == "product"]["turn_p_adjusted"].dropna()) == set()
    rows = rows[(rows["number"] == 10) & (rows["part"] == "map")].set_index(["map", "side"])
    moved = rows[rows["turn_mean_square_sine"] > 1e-6]
    assert {(name.rpartition(".")[2], side) for name, side in moved.index} == {
        ("v", "write"), ("o", "read")
    }  # fmt: skip
    assert set(moved["label"]) == {"gauge"}
    functional = rows[rows["label"] == "functional"]
    assert {(name.rpartition(".")[2], side) for name, side in functional.index} == {
        ("up", "read"), ("down", "write")
    }  # fmt: skip
    assert set(functional["status"]) == {"identical"}


def test_sizes_path_and_straightness_are_those_of_the_tensors(tmp_path: Path) -> None:
    run = mlp(0, steps=5)
    report = flagscope.track(saved(run, tmp_path))
    assert [motion.name for motion in report.result.motion] == [
        "0.weight", "2.weight", "4.weight", "6.weight"
    ]  # fmt: skip
    for motion in report.result.motion:
        way = [state[motion.tensor].double() for _, state in run]
        steps = [float((b - a).norm()) for a, b in pairwise(way)]
        assert motion.change[0] is None
        assert motion.change[1:] == pytest.approx(steps)
        assert motion.relative_change[1:] == pytest.approx(
            [s / float(a.norm()) for s, a in zip(steps, way, strict=False)]
        )
        assert motion.distance_first == pytest.approx([float((w - way[0]).norm()) for w in way])
        assert motion.distance_last[:-1] == pytest.approx(
            [float((w - way[-1]).norm()) for w in way[:-1]]
        )
        assert motion.path_length == pytest.approx(sum(steps))
        assert motion.straightness == pytest.approx(float((way[-1] - way[0]).norm()) / sum(steps))
        assert motion.straightness_random == pytest.approx(np.linalg.norm(steps) / sum(steps))


def test_a_random_walk_is_as_straight_as_said_and_a_line_is_straight(tmp_path: Path) -> None:
    motion = flagscope.track(saved(walk(1, 10), tmp_path / "walk")).result.motion[0]
    assert motion.straightness_random == pytest.approx(1 / 3, rel=1e-3)
    assert motion.straightness == pytest.approx(1 / 3, rel=0.05)
    first, step = start(2), shaken({n: 0 * w for n, w in start(2).items()}, torch.Generator())
    line = [(10 * i, {n: w + i * step[n] for n, w in first.items()}) for i in range(5)]
    motion = flagscope.track(saved(line, tmp_path / "line")).result.motion[0]
    assert motion.straightness == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("kind", ["even", "column", "low rank"])
def test_a_sketch_gives_norms_of_differences(kind: str) -> None:
    draw = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(30):
        change: Tensor = torch.randn(200, 300, generator=draw)
        if kind == "column":
            change[:, 1:] = 0
        if kind == "low rank":
            change = torch.outer(change[:, 0], change[0])
        base = torch.randn(200, 300, generator=draw)
        square = float((norm_sketch(base + change) - norm_sketch(base)).square().sum())
        errors.append(square / float(change.square().sum()) - 1)
    sd = math.sqrt(sketch_variance(60_000))
    assert abs(np.mean(errors)) < 4 * sd / math.sqrt(30)
    # Few entries, and those of one column, share no number with another; those of a rank-one
    # change are of unequal size.
    assert np.std(errors) < (1e-6 if kind == "column" else 1.6 * sd)


def test_steps_whose_content_belongs_elsewhere_are_passed_over(tmp_path: Path) -> None:
    run = mlp(0, steps=8)
    run[4] = (run[4][0], mlp(7, steps=2)[1][1])
    run[6] = (run[6][0], {n: w.clone() for n, w in run[6][1].items()})
    run[6][1]["2.weight"][0, 0] = math.inf
    report = flagscope.track(saved(run, tmp_path))
    assert [fault.code for fault in report.faults if "checkpoint-40" in fault.steps] == [
        "foreign-step"
    ]
    assert "Motions of maps pass over checkpoint-40 (foreign-step)." in report.result.notes
    first, second = report.result.motion[:2]
    assert first.change[4] is None
    assert first.status[4] is None
    gap = float((run[5][1]["0.weight"] - run[3][1]["0.weight"]).norm())
    assert first.change[5] == pytest.approx(gap)
    assert second.status[6] == "not finite, or beyond double precision"
    assert second.change[6] is None
    assert second.change[7] is not None


def test_what_stands_still_or_is_only_rounded_says_so(tmp_path: Path) -> None:
    state = start(0)
    coarse = {n: w.bfloat16() for n, w in state.items()}
    run = [(0, coarse), (10, coarse), (20, {n: w.bfloat16().float() for n, w in state.items()})]
    run.append((30, {n: w + 1e-4 * torch.randn_like(w) for n, w in run[2][1].items()}))
    motion = flagscope.track(saved(run[:3], tmp_path)).result.motion[0]
    assert motion.status == ["the first step", "identical", "identical"]
    assert motion.change[1:] == [0.0, 0.0]
    assert motion.straightness is None
    assert motion.write.before.status[1] == "identical"
