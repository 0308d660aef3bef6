"""`flagscope.track` and its report: curves are those of scans, and only new steps are read."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pandas
import pytest
from safetensors.torch import load_file

import flagscope
from flagscope.api import track_motion as motion_module
from flagscope.api import tracked_scans as module
from flagscope.checkpoint import Checkpoint
from flagscope.demo import checkpoints
from flagscope.engine.cache.stored_tensor import StoredTensor
from flagscope.engine.plan.pieces import Piece
from flagscope.errors import InputError, StoreError
from flagscope.observables import null_band
from flagscope.schema import TRACK_SCHEMA_FILE, track_schema
from flagscope.series import kept as kept_module
from flagscope.series.motion import step_states as states_module
from series.made import adapters, mlp, saved

BUNDLED = Path(checkpoints()[0]).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(mlp(0, steps=6), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def report(run: Path) -> flagscope.SeriesReport:
    return flagscope.track(run)


def test_curves_are_what_a_scan_of_each_step_finds(
    run: Path, report: flagscope.SeriesReport
) -> None:
    for place, step in enumerate(report.result.steps):
        pairs = {pair.name: pair for pair in flagscope.scan(run / step.name).result.pairs}
        for curve in (one for one in report.result.curves if one.part == "pairs"):
            pair = pairs[curve.pair]
            assert curve.values[place] == getattr(pair, curve.observable)
            band = null_band(pair, curve.observable)
            assert (curve.low[place], curve.high[place]) == (
                (None, None) if band is None else (band.low, band.high)
            )
    assert {curve.observable for curve in report.result.curves} >= {
        "gram_correlation", "commutator_ratio", "imbalance"
    }  # fmt: skip


def test_frames_have_a_row_for_each(report: flagscope.SeriesReport) -> None:
    assert report.steps["number"].tolist() == [0, 10, 20, 30, 40, 50]
    assert report.curves.groupby(["pair", "observable"]).size().max() == 6
    assert isinstance(report.curves, pandas.DataFrame)
    assert repr(report) == "SeriesReport(6 checkpoints; no fault found)"
    assert report.integrity.faults == report.faults == []


def test_json_comes_back_and_keeps_its_schema(
    report: flagscope.SeriesReport, run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "series.json"
    text = report.to_json(path)
    assert str(run) not in text
    assert str(run) in report.to_json(paths=True)
    jsonschema.Draft202012Validator(track_schema()).validate(json.loads(text))
    assert json.loads(TRACK_SCHEMA_FILE.read_text(encoding="utf-8")) == track_schema()
    assert flagscope.SeriesReport.from_json(path).to_json(paths=True) == text
    with pytest.raises(InputError, match="not a series"):
        flagscope.SeriesReport.from_json(BUNDLED / "config.json")


def test_sources_are_folders_patterns_and_files_in_the_order_of_numbers(run: Path) -> None:
    one = run / "checkpoint-50"
    for sources in ([one, run / "checkpoint-0"], f"{run}/checkpoint-[05]*", [f"{run}/checkpoint-0",
                    f"{run}/*50"]):  # fmt: skip
        found = flagscope.track(sources, verify=True)
        assert found.steps["name"].tolist() == ["checkpoint-0", "checkpoint-50"]
    single = flagscope.track(BUNDLED / "step-000080.safetensors", verify=True)
    assert single.steps["number"].tolist() == [80]
    with pytest.raises(InputError, match="no checkpoint is named"):
        flagscope.track([])
    with pytest.raises(InputError, match="type dict"):
        flagscope.track([{"a": 1}])  # type: ignore[list-item]


def test_verify_looks_at_integrity_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "scan", None)
    found = flagscope.track(run, verify=True).result
    assert found.curves == found.motion == []


def test_settings_are_those_of_a_scan() -> None:
    steps = checkpoints()[:2]
    kinds = flagscope.track(steps, only="pairs", kinds="mlp", layers=[0, 1])
    assert {curve.pair for curve in kinds.result.curves} == {"layer.0.mlp", "layer.1.mlp"}
    halved = flagscope.track(steps, only="pairs", kinds="qk", layers=0, heads=3, workers=1,
                             config={"model_type": "gpt2", "n_head": 3})  # fmt: skip
    assert {curve.pair for curve in halved.result.curves} == {
        f"layer.0.head.{i}.qk" for i in range(3)
    }
    bare = flagscope.track(steps, only=["pairs"], family="none", kinds=["mlp"], memory=10**9)
    assert {curve.label for curve in bare.result.curves} == {None}
    with pytest.raises(InputError, match="memory is -1"):
        flagscope.track(steps, memory=-1)
    with pytest.raises(InputError, match="no family"):
        flagscope.track(steps, family="gtp2")


def test_a_longer_series_reads_its_new_step_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = mlp(1, steps=5), tmp_path / "store"
    folder = saved(run[:4], tmp_path / "run")
    flagscope.track(folder, store=store)
    saved(run[4:], folder)
    read, scanned = [], []
    original = kept_module.read_step
    monkeypatch.setattr(
        kept_module, "read_step", lambda place: read.append(place.name) or original(place)
    )
    original_scan = module.scan
    monkeypatch.setattr(
        module,
        "scan",
        lambda source, **rest: scanned.append(source) or original_scan(source, **rest),
    )
    opened: list[str] = []
    original_opened = motion_module.opened
    monkeypatch.setattr(
        motion_module,
        "opened",
        lambda source, **rest: opened.append(source) or original_opened(source, **rest),
    )
    longer = flagscope.track(folder, store=store)
    assert opened == [str(folder / "checkpoint-40")]
    assert all(motion.change[4] for motion in longer.result.motion)
    assert read == ["checkpoint-40"]
    assert scanned == [str(folder / "checkpoint-40")]
    assert longer.to_json() == flagscope.track(folder).to_json()


def test_a_step_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    run, store = mlp(1, steps=5), tmp_path / "store"
    folder = saved(run, tmp_path / "run")
    first = flagscope.track(folder, store=store, verify=True)
    again = [(step, state) for step, state in run if step == 20]
    again[0][1]["0.bias"] += 1
    for path in (folder / "checkpoint-20").iterdir():
        path.unlink()
    (folder / "checkpoint-20").rmdir()
    saved(again, folder)
    second = flagscope.track(folder, store=store, verify=True)
    assert second.to_json() == flagscope.track(folder, verify=True).to_json()
    assert second.to_json() != first.to_json()


def test_damage_in_the_store_costs_time_alone(tmp_path: Path) -> None:
    folder, store = saved(mlp(1, steps=4), tmp_path / "run"), tmp_path / "store"
    first = flagscope.track(folder, store=store)
    for path in (store / "steps").iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert flagscope.track(folder, store=store).to_json() == first.to_json()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be made"):
        flagscope.track(folder, store=tmp_path / "file")


def test_a_step_that_cannot_be_read_leaves_the_others_their_curves(tmp_path: Path) -> None:
    folder = saved(mlp(1, steps=5), tmp_path)
    (folder / "checkpoint-20" / "model.safetensors").write_bytes(b"no tensors")
    found = flagscope.track(folder)
    assert [(fault.code, fault.steps) for fault in found.faults] == [
        ("truncated", ["checkpoint-20"])
    ]
    curve = found.result.curves[0]
    assert [value is None for value in curve.values] == [False, False, True, False, False]


def test_adapters_have_curves_of_their_own_which_verify_leaves_out(tmp_path: Path) -> None:
    folder = saved(adapters(0, steps=5), tmp_path)
    found = flagscope.track(folder)
    assert found.result.curves == found.result.notes == []
    assert len(found.result.adapters) == 8
    assert flagscope.track(folder, verify=True).result.adapters == []


def test_progress_counts_steps(run: Path) -> None:
    said: list[tuple[int, int, str]] = []
    flagscope.track(run, verify=True, progress=lambda *one: said.append(one))
    assert said[0] == (1, 6, "reading checkpoint-0")
    assert said[-1][:2] == (6, 6)


def test_the_bundled_training_starts_at_chance_and_leaves_it() -> None:
    found = flagscope.track(BUNDLED, kinds="mlp")
    assert found.faults == []
    rho = found.curves[found.curves["observable"] == "gram_correlation"]
    first = rho[rho["number"] == 0]
    assert ((first["value"] > first["low"]) & (first["value"] < first["high"])).all()
    assert (rho.groupby("pair")["value"].max() > 0.3).all()
    state = load_file(checkpoints()[0])
    assert found.steps["tensors"].tolist() == [len(state)] * 5


def test_weights_next_to_the_steps_are_named(tmp_path: Path) -> None:
    folder = saved(mlp(1, steps=4), tmp_path)
    (folder / "model.safetensors").write_bytes(
        (folder / "checkpoint-30" / "model.safetensors").read_bytes()
    )
    found = flagscope.track(folder, verify=True)
    assert found.steps["number"].tolist() == [0, 10, 20, 30]
    assert found.result.notes == [
        f"model.safetensors in {tmp_path.name} itself belongs to no step."
    ]


def test_a_further_step_costs_the_bytes_of_its_own_tensors_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, store = mlp(1, steps=31), tmp_path / "store"
    folder = saved(run[:30], tmp_path / "run")
    flagscope.track(folder, store=store, kinds="sequential")
    saved(run[30:], folder)
    read: list[tuple[str, int]] = []
    original = states_module.read_piece

    def counted(checkpoint: Checkpoint, piece: Piece) -> StoredTensor:
        stored = original(checkpoint, piece)
        read.append((f"{checkpoint.source}:{piece.tensor}", stored.values.nbytes))
        return stored

    monkeypatch.setattr(states_module, "read_piece", counted)
    flagscope.track(folder, store=store, kinds="sequential")
    weights = {name: w for name, w in run[30][1].items() if name.endswith("weight")}
    assert len(read) == len({name for name, _ in read}) == len(weights)
    assert all("checkpoint-300" in name for name, _ in read)
    assert sum(size for _, size in read) == sum(w.nbytes for w in weights.values())


def test_maps_of_one_tensor_are_cut_out_of_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str]] = []
    original = states_module.read_piece
    monkeypatch.setattr(
        states_module,
        "read_piece",
        lambda checkpoint, piece: (
            read.append((checkpoint.source, piece.tensor)) or original(checkpoint, piece)
        ),
    )
    found = flagscope.track(checkpoints()[:2], layers=0)
    assert {motion.role for motion in found.result.motion} == {"q", "k", "v", "o", "up", "down"}
    assert len(read) == len(set(read)) == 2 * 4


def test_the_motion_of_the_bundled_training_has_a_row_for_each_map_side_and_step() -> None:
    found = flagscope.track(BUNDLED, kinds="mlp")
    assert len(found.motion) == 8 * 2 * 5
    assert not found.motion.duplicated(["map", "side", "step"]).any()
    assert {side: set(rows["label"]) for side, rows in found.motion.groupby("side")} == {
        "read": {"functional", "gauge"}, "write": {"functional", "gauge"}
    }  # fmt: skip
    claimed = found.motion[found.motion["turn_p_adjusted"] < 0.05]
    assert set(claimed["role"]) == {"up"}
    assert set(claimed["side"]) == {"read"}
    assert claimed["turn_block_ratio"].between(1.5, 3).all()


def test_kinds_that_match_nothing_are_said(run: Path) -> None:
    report = flagscope.track(run, kinds="qk")
    assert {curve.part for curve in report.result.curves} == {"health"}
    assert report.result.motion == []
    assert report.result.notes == [
        "No pair of maps was measured: no step that was read has one that was asked for."
    ]
