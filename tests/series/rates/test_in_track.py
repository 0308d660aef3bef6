"""Rates in the report of `track`: 2λ of linear networks, AdamW's own, or the reason for none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import flagscope
from flagscope.api import track as module
from flagscope.api import tracked_scans
from flagscope.checkpoint import Checkpoint
from flagscope.errors import InputError
from flagscope.series.places import places
from flagscope.series.schedules import schedule_of
from flagscope.series.step import read_step
from flagscope.series.step_rates import imbalances
from series.made import Run, linear, saved

RATE, DECAY, EVERY = 0.1, 0.02, 100  # of `linear`
HAND = {"learning_rate": RATE, "weight_decay": DECAY, "optimiser": "sgd"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(list(linear()), tmp_path_factory.mktemp("linear"))


@pytest.fixture(scope="module")
def report(folder: Path) -> flagscope.SeriesReport:
    return flagscope.track(folder, **HAND)


def test_a_linear_network_decays_by_two_lambda(report: flagscope.SeriesReport) -> None:
    assert report.rates["pair"].tolist() == ["0-2", "2-4"]
    assert report.rates["answer"].tolist() == ["rate", "rate"]
    # The initialisation is left out: with it the rates are 1.002 and 1.003.
    assert (report.rates["rate"] - 1).abs().max() < 0.001
    assert report.rates["points"].tolist() == [12, 12]
    assert any("initialisation is left out" in note for note in report.result.rates[0].notes)
    # A file says nothing of what lies between two layers.
    assert report.rates["predicted"].isna().all()
    assert any("is not known: no rate" in note for note in report.result.rates[0].notes)


def test_the_imbalance_is_that_of_the_maps(folder: Path) -> None:
    step = read_step(places([folder])[5])
    state = linear()[5][1]
    found = imbalances(step, flagscope.scan(step.place.source).result.pairs)
    for name, first, second in (("0-2", "0", "2"), ("2-4", "2", "4")):
        w, v = (state[f"{one}.weight"].double() for one in (first, second))
        exact = torch.linalg.matrix_norm(w @ w.mT - v.mT @ v)
        assert found[name] == pytest.approx(float(exact), rel=1e-5)


def test_slices_of_fused_tensors_are_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from flagscope.demo import checkpoints

    step = read_step(places([checkpoints()[3]])[0])
    pairs = flagscope.scan(step.place.source).result.pairs
    read, original = [], Checkpoint.read
    with monkeypatch.context() as patch:
        patch.setattr(
            Checkpoint, "read", lambda *given: read.append(original(*given)) or original(*given)
        )
        found = imbalances(step, pairs)
    assert sum(part.nbytes for part in read) < step.nbytes / 2  # values and outputs of attention
    fused = flagscope.checkpoint.open_checkpoint(step.place.source)
    w = fused.read("transformer.h.1.attn.c_attn.weight").double()
    v = fused.read("transformer.h.1.attn.c_proj.weight").double()
    a, b = w[:, 272:288], v[80:96, :]
    exact = torch.linalg.matrix_norm(a.mT @ a - b @ b.mT)
    assert found["layer.1.head.5.ov"] == pytest.approx(float(exact), rel=1e-5)
    assert not any("mlp" in name for name in found)


def _trainer(folder: Path, steps: int, **settings: object) -> None:
    transformers = pytest.importorskip("transformers")
    made = transformers.TrainingArguments(
        output_dir=str(folder / "out"), use_cpu=True, report_to=[], learning_rate=RATE,
        lr_scheduler_type="constant", max_steps=steps * EVERY, **settings,
    )  # fmt: skip
    for n in range(0, steps * EVERY + 1, EVERY):
        inner = folder / f"checkpoint-{n}"
        log = [{"step": k, "learning_rate": RATE} for k in range(EVERY, n + 1, EVERY)]
        state = {"global_step": n, "max_steps": steps * EVERY, "log_history": log}
        (inner / "trainer_state.json").write_text(json.dumps(state))
        torch.save(made, inner / "training_args.bin")


def test_the_schedule_of_a_trainer_is_read(tmp_path: Path, report: flagscope.SeriesReport) -> None:
    saved(list(linear()), tmp_path)
    _trainer(tmp_path, 12, weight_decay=DECAY, optim="sgd")
    (found,) = flagscope.track(tmp_path).result.rates
    assert found.source == "trainer_state.json, training_args.bin"
    assert [one.rate for one in found.rates] == pytest.approx(report.rates["rate"].tolist())


def test_no_decay_is_an_answer(tmp_path: Path) -> None:
    saved(list(linear()), tmp_path)
    _trainer(tmp_path, 12, optim="sgd")
    assert {one.answer for one in flagscope.track(tmp_path).result.rates[0].rates} == {"no-decay"}


def test_saved_optimisers_are_read(tmp_path: Path, report: flagscope.SeriesReport) -> None:
    saved(list(linear()), tmp_path)
    for n in range(0, 12 * EVERY + 1, EVERY):
        own = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=RATE, weight_decay=DECAY)
        torch.save(own.state_dict(), tmp_path / f"checkpoint-{n}" / "optimizer.pt")
    (found,) = flagscope.track(tmp_path).result.rates
    assert found.source == "optimizer.pt"
    assert [one.rate for one in found.rates] == pytest.approx(report.rates["rate"].tolist())


def test_the_initialisation_is_used_where_few_other_steps_are_there(folder: Path) -> None:
    few = [folder / f"checkpoint-{n}" for n in range(0, 800, 100)]
    found = flagscope.track(few, kinds="sequential", **HAND)
    assert found.rates["points"].tolist() == [8, 8]
    assert not any("left out" in note for note in found.result.rates[0].notes)


def test_too_few_checkpoints_cannot_be_resolved(folder: Path) -> None:
    few = [folder / f"checkpoint-{n}" for n in (0, 100, 200)]
    assert set(flagscope.track(few, **HAND).rates["answer"]) == {"unresolved"}


def test_without_a_schedule_the_reason_is_said(folder: Path) -> None:
    found = flagscope.track(folder)
    assert set(found.rates["answer"]) == {"unknown-schedule"}
    assert any("none lies next to the checkpoints" in note for note in found.result.rates[0].notes)
    assert flagscope.track(folder, verify=True).result.rates == []


def test_a_file_that_asks_for_code_is_a_reason(tmp_path: Path) -> None:
    import os
    import pickle

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    saved(list(linear()), tmp_path)
    (tmp_path / "checkpoint-1200" / "optimizer.pt").write_bytes(pickle.dumps(Attack()))
    (found,) = flagscope.track(tmp_path).result.rates
    assert not (tmp_path / "ran").exists()
    assert any("cannot be read" in note for note in found.notes)
    assert {one.answer for one in found.rates} == {"unknown-schedule"}


def test_steps_that_a_fault_names_are_left_out(tmp_path: Path) -> None:
    run: Run = list(linear())
    run[5] = (run[5][0], run[7][1])
    found = flagscope.track(saved(run, tmp_path), **HAND)
    assert [fault.code for fault in found.faults] == ["equal"]
    assert found.rates["points"].tolist() == [10, 10]
    assert (found.rates["rate"] - 1).abs().max() < 0.02


def test_adamw_has_its_own_prediction(tmp_path: Path) -> None:
    """Weights whose gradients are noise turn by the predicted angle; samples show it."""
    draws = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(0.1 * torch.randn(64, 64, generator=draws)) for _ in range(4)]
    optimizer = torch.optim.AdamW(weights, lr=0.01, weight_decay=0.5)
    run: Run = []
    for n in range(1201):
        if n % 100 == 0:
            run.append((n, {f"{i}.weight": w.detach().clone() for i, w in enumerate(weights)}))
        for w in weights:
            w.grad = torch.randn(w.shape, generator=draws)
        optimizer.step()
    found = flagscope.track(
        saved(run, tmp_path), learning_rate=0.01, weight_decay=0.5, optimiser="adamw",
        kinds="sequential",
    ).result.rates[0]  # fmt: skip
    assert all(one.predicted is None for one in found.rates)
    late = [one for one in found.rotations if one.settled]
    assert [one.start for one in late] == list(range(400, 1200, 100))
    assert {one.tensors for one in found.rotations} == {4}
    ratios = np.array([one.angle_ratio for one in late])
    assert abs(ratios.mean() - 1) < 0.03, ratios
    for one in late:
        assert one.kept == pytest.approx(one.decay_leaves, abs=0.08)


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0.1}, {"momentum": 0.9}, {"optimiser": "adam"},
     {"learning_rate": -0.1, "weight_decay": 0.1, "optimiser": "sgd"},
     {"learning_rate": 0.1, "weight_decay": -1.0, "optimiser": "sgd"},
     {"learning_rate": 0.1, "weight_decay": 0.1, "optimiser": "sgd", "momentum": 2.0}],
)  # fmt: skip
def test_half_a_schedule_is_refused_before_anything_is_read(
    wrong: dict, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "read_steps", None)
    with pytest.raises(InputError):
        flagscope.track(folder, **wrong)


def test_a_momentum_and_logged_rates_go_into_the_schedule(folder: Path) -> None:
    steps = [read_step(place) for place in places([folder])]
    made, _ = schedule_of(steps, rates={100: 0.1, 1200: 0.05}, decay=0.1, optimiser="sgd")
    assert made is not None
    assert not made.groups[0].rates.exact
    with_momentum, _ = schedule_of(steps, rates=0.1, decay=0.01, optimiser="sgd", momentum=0.9)
    assert with_momentum is not None
    tau = with_momentum.groups[0].decay_time([100]).value[0]
    assert tau > 5 * 2 * 0.1 * 0.01 * 100


def test_maps_are_read_once_with_a_store(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = flagscope.track(folder, store=tmp_path, **HAND)
    monkeypatch.setattr(tracked_scans, "imbalances", None)
    assert flagscope.track(folder, store=tmp_path, **HAND).to_json() == first.to_json()
