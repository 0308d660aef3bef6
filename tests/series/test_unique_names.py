"""Steps and trainings of one name are told apart: what is said of one is not said of the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

import flagscope
from flagscope.checkpoint import hub
from flagscope.series import places as module
from flagscope.series.places import Place, places, runs_of
from series.made import RATES, linear, mlp, saved


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["a/final.pt", "b/final.pt"], ["a/final.pt", "b/final.pt"]),
        (["runs/a/x/final.pt", "runs/b/x/final.pt"], ["a/x/final.pt", "b/x/final.pt"]),
        (["a/final.pt", "a/b/final.pt"], ["final.pt", "b/final.pt"]),
        (["a/final.pt", "b/last.pt"], ["final.pt", "last.pt"]),
        (["s3://x/a/model.safetensors", "s3://x/b/model.safetensors"],
         ["a/model.safetensors", "b/model.safetensors"]),
        (["a/step_1.pt", "a/step_2.pt", "a/final.pt", "b/final.pt"],
         ["step_1.pt", "step_2.pt", "a/final.pt", "b/final.pt"]),
        # Of several trainings each name is one of its own training already.
        (["a/step_1.pt", "b/step_1.pt", "a/final.pt", "b/final.pt"],
         ["step_1.pt", "step_1.pt", "final.pt", "final.pt"]),
    ],
)  # fmt: skip
def test_names_of_one_training_are_its_own(sources: list[str], names: list[str]) -> None:
    assert [place.name for place in places(sources)] == names


def test_revisions_of_two_repositories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "revisions", lambda _: ["main"])
    assert hub.is_hub_name("org/a")
    assert [one.name for one in places(["org/a@main", "org/b@main"])] == ["a@main", "b@main"]


@pytest.mark.parametrize(
    "folders", [("a", "a/a"), ("", "a"), ("x/a", "x/a/a"), ("a", "b"), ("x/a/s", "x/b/s")]
)
def test_no_training_is_lost_for_its_name(folders: tuple[str, str]) -> None:
    steps = [
        Place(f"{one}/step-{i}".lstrip("/"), f"step-{i}", number=i)
        for one in folders
        for i in (0, 9)
    ]
    runs = runs_of(steps)
    assert [len(run) for run in runs.values()] == [2, 2]
    assert "" not in runs


def test_what_is_measured_and_said_of_a_step_is_its_own(tmp_path: Path) -> None:
    """Two last steps of one name: one goes on from the training, one is of another."""
    run, other = mlp(0, steps=6), mlp(9, steps=6)
    saved(run[:5], tmp_path / "run")
    for name, state in (("a", run[5][1]), ("b", other[5][1])):
        (tmp_path / name).mkdir()
        save_file(state, tmp_path / name / "final.safetensors")
    found = flagscope.track([tmp_path / "run", *(tmp_path / x / "final.safetensors" for x in "ab")])
    assert found.steps["name"].tolist()[5:] == ["a/final.safetensors", "b/final.safetensors"]
    assert [(fault.code, fault.steps) for fault in found.faults] == [
        ("foreign-step", ["b/final.safetensors"])
    ]
    (note,) = (one for one in found.result.notes if "pass over" in one)
    assert "b/final.safetensors (foreign-step)" in note
    assert "a/final.safetensors" not in note
    assert [one.change[5] is None for one in found.result.motion] == [False] * 4
    assert [one.change[6] for one in found.result.motion] == [None] * 4
    for name, state in (("a", run[5][1]), ("b", other[5][1])):
        save_file(state, tmp_path / f"{name}.safetensors")
        scanned = flagscope.scan(tmp_path / f"{name}.safetensors").result.pairs[0]
        rows = found.curves[found.curves["step"] == f"{name}/final.safetensors"]
        rows = rows[(rows["pair"] == scanned.name) & (rows["observable"] == "gram_correlation")]
        assert rows["value"].tolist() == [scanned.gram_correlation]


def test_rates_are_those_of_the_step_and_not_of_its_name(tmp_path: Path) -> None:
    """Steps whose files have one name, and whose numbers the trainer says."""
    files = []
    for number, state in linear():
        inner = tmp_path / f"part-{'abcdefghijklm'[number // 100]}"
        inner.mkdir()
        save_file(state, inner / "model.safetensors")
        (inner / "trainer_state.json").write_text(
            f'{{"global_step": {number}, "max_steps": 1200, "log_history": []}}'
        )
        files.append(inner / "model.safetensors")
    found = flagscope.track(
        files, learning_rate=RATES["constant"], weight_decay=0.02, optimiser="sgd",
        kinds="sequential",
    )  # fmt: skip
    assert found.rates["answer"].tolist() == ["rate", "rate"]
    assert found.rates["rate"].tolist() == pytest.approx([1, 1], abs=0.001)
