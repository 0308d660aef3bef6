"""A restart that only the optimiser shows: its count of updates falls back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import flagscope
from series.made import adapters, checked, mlp, saved

RUN = mlp(0, steps=6)


def _with_optimisers(folder: Path, counts: dict[int, int], kind: str = "adamw") -> Path:
    """optimizer.pt in each step, of which each count is that of the updates done."""
    for step, count in counts.items():
        weight = torch.nn.Parameter(torch.ones(3))
        made = torch.optim.AdamW([weight]) if kind == "adamw" else torch.optim.SGD([weight], lr=0.1)
        weight.grad = torch.ones(3)
        made.step()
        state = made.state_dict()
        for own in state["state"].values():
            if "step" in own:
                own["step"] = torch.tensor(float(count))
        torch.save(state, folder / f"checkpoint-{step}" / "optimizer.pt")
    return folder


def test_an_optimiser_that_began_anew_is_named(tmp_path: Path) -> None:
    counts = {0: 0, 10: 10, 20: 20, 30: 10, 40: 20, 50: 30}
    faults = checked(_with_optimisers(saved(RUN, tmp_path), counts)).faults
    assert [(fault.code, fault.steps) for fault in faults] == [("restart", ["checkpoint-30"])]
    assert "10 updates, that of checkpoint-20 20" in faults[0].evidence


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_one_that_counts_on_is_sound_and_sgd_does_not_count(kind: str, tmp_path: Path) -> None:
    folder = _with_optimisers(saved(RUN, tmp_path), {i: i for i in range(0, 60, 10)}, kind)
    assert checked(folder).faults == []


def test_a_copied_step_is_no_restart_of_the_next(tmp_path: Path) -> None:
    run = list(RUN)
    run[2] = (20, run[5][1])
    counts = {0: 0, 10: 10, 20: 50, 30: 30, 40: 40, 50: 50}
    faults = checked(_with_optimisers(saved(run, tmp_path), counts)).faults
    assert [fault.code for fault in faults] == ["equal"]


def test_a_training_that_began_anew_is_named_once(tmp_path: Path) -> None:
    run, again = list(mlp(0)), mlp(7, start=RUN[0][1])
    run[5:] = [(step, again[i + 1][1]) for i, (step, _) in enumerate(run[5:])]
    counts = {10 * i: 10 * i if i < 5 else 10 * (i - 4) for i in range(16)}
    faults = checked(_with_optimisers(saved(run, tmp_path), counts)).faults
    assert [(fault.code, fault.steps) for fault in faults] == [("restart", ["checkpoint-50"])]
    assert "The weights need not" not in faults[0].evidence


def test_a_store_keeps_the_count(tmp_path: Path) -> None:
    counts = {0: 0, 10: 10, 20: 20, 30: 10, 40: 20, 50: 30}
    folder = _with_optimisers(saved(RUN, tmp_path / "run"), counts)
    first = flagscope.track(folder, verify=True, store=tmp_path / "store")
    second = flagscope.track(folder, verify=True, store=tmp_path / "store")
    assert [fault.code for fault in second.faults] == ["restart"]
    assert second.to_json() == first.to_json()


def test_one_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    folder = saved(adapters(0, steps=4), tmp_path)
    (folder / "checkpoint-50" / "optimizer.pt").write_bytes(b"nothing")
    found = checked(folder)
    assert found.faults == []
    assert any("its optimizer.pt cannot be read" in line for line in found.not_looked_at)
