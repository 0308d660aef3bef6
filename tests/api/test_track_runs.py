"""Several runs through `flagscope.track` and its command: curves of all, bands over seeds."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import jsonschema
import pytest
from scipy import stats

import flagscope
from cli.conftest import Run as Command
from cli.conftest import run as run
from flagscope.schema import track_schema
from series.made import mlp, saved

SEEDS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed in range(SEEDS):
        saved(mlp(seed, steps=3), folder / f"seed-{seed}")
    saved(mlp(0, steps=3), folder / "copy")  # of seed 0
    saved([(step + 5, state) for step, state in mlp(9, steps=1)], folder / "copy")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> flagscope.SeriesReport:
    return flagscope.track(f"{folder}/*", store=folder.parent / "store")


def test_steps_are_those_of_all_runs_and_curves_those_of_each(
    report: flagscope.SeriesReport, folder: Path
) -> None:
    steps = report.steps
    assert steps["run"].tolist() == ["copy"] * 4 + [
        f"seed-{i}" for i in range(SEEDS) for _ in "012"
    ]
    assert steps["name"].tolist()[-1] == "seed-4/checkpoint-20"
    alone = flagscope.track(folder / "seed-3")
    mine = [i for i, name in enumerate(steps["run"]) if name == "seed-3"]
    for one in alone.result.curves:
        (curve,) = (
            curve for curve in report.result.curves
            if (curve.pair, curve.observable) == (one.pair, one.observable)
        )  # fmt: skip
        assert [curve.values[i] for i in mine] == one.values
    own = [onset.model_copy(update={"run": None}) for onset in report.result.onsets
           if onset.run == "seed-3"]  # fmt: skip
    named = [one.model_copy(update={"after": one.after and f"seed-3/{one.after}",
                                    "by": one.by and f"seed-3/{one.by}"})
             for one in alone.result.onsets]  # fmt: skip
    assert own == named
    assert alone.result.runs is None
    assert len(alone.runs) == len(alone.relations) == len(alone.bands) == 0


def test_bands_are_those_of_the_runs_and_a_copy_counts_once(
    report: flagscope.SeriesReport,
) -> None:
    record = report.result.runs
    assert record is not None
    assert record.common == [0, 10, 20]
    curves = report.curves
    for band in record.bands:
        assert band.numbers == [0, 10, 20]  # 5 is in one run alone
        if band.observable == "gram_correlation":
            assert band.runs == [SEEDS] * 3
        for place, number in enumerate(band.numbers):
            rows = curves[(curves["pair"] == band.pair) & (curves["number"] == number)
                          & (curves["observable"] == band.observable)
                          & (curves["run"] != "copy")]  # fmt: skip
            values = rows["value"].tolist()
            assert band.runs[place] == len(values)
            if not values:
                continue
            assert band.mean[place] == pytest.approx(fmean(values))
            assert (band.low[place], band.high[place]) == (min(values), max(values))
            interval = (band.mean_low[place], band.mean_high[place])
            if len(values) < 5:
                assert interval == (None, None)
            else:
                exact = stats.ttest_1samp(values, 0).confidence_interval(0.95)
                assert interval == pytest.approx((exact.low, exact.high))


def test_frames_json_and_words(
    report: flagscope.SeriesReport, folder: Path, tmp_path: Path
) -> None:
    assert report.runs["name"].tolist() == ["copy", *(f"seed-{i}" for i in range(SEEDS))]
    assert len(report.relations) == 15
    same = report.relations[report.relations["answer"] == "same"]
    assert same[["first", "second"]].to_numpy().tolist() == [["copy", "seed-0"]]
    assert len(report.bands) == 3 * len(report.result.curves)
    assert set(report.onsets["run"]) == set(report.runs["name"])
    text = report.to_json(tmp_path / "runs.json")
    assert str(folder) not in text
    jsonschema.Draft202012Validator(track_schema()).validate(json.loads(text))
    assert flagscope.SeriesReport.from_json(tmp_path / "runs.json").to_json(paths=True) == text
    assert repr(report).startswith("SeriesReport(19 checkpoints of 6 runs; ")


def test_the_command_says_what_runs_share(run: Command, folder: Path, tmp_path: Path) -> None:
    answer = run("track", *sorted(folder.iterdir()), "--store", folder.parent / "store", "--csv",
                 tmp_path / "bands.csv", "--csv-table", "bands", "--fail-on",
                 "of-another-run")  # fmt: skip
    assert answer.code == 0
    rows = (tmp_path / "bands.csv").read_text().splitlines()
    assert rows[0] == "number,pair,kind,layer,observable,runs,mean,low,high,mean_low,mean_high,part"
    text = " ".join(run("track", f"{folder}/*", "--verify").out.split())
    assert "of 6 runs" in text
    assert "Equal at all common steps: copy and seed-0 (1 of 15 pairs of runs)." in text
    assert "Steps in all runs: 3" in text
    assert "than independent weights: copy and seed-1" in text


def test_a_gate_on_exchanged_steps_and_the_table_of_onsets(run: Command, tmp_path: Path) -> None:
    one, two = mlp(0, steps=5), mlp(1, steps=5)
    one[0], two[0] = two[0], one[0]
    saved(one, tmp_path / "a")
    saved(two, tmp_path / "b")
    answer = run("track", tmp_path / "a", tmp_path / "b", "--verify", "--fail-on", "of-another-run")
    assert answer.code == 4
    text = " ".join(answer.out.split())
    assert "a/checkpoint-10 and later steps descend from the start of b" in text
    assert "no, from b" in text
    alone = run("track", tmp_path / "a", "--csv", "-", "--csv-table", "onsets", "--kinds",
                "sequential")  # fmt: skip
    header, *rows = alone.out.splitlines()
    assert header.startswith("run,pair,kind,layer,of,answer,side,after,by")
    assert len(rows) == 3 * 6
    text = " ".join(run("track", tmp_path / "a").out.split())
    assert "level 3, basis" in text
    assert "between the step before and the one named" in text


def test_motion_is_that_of_each_run_whatever_the_number_of_its_steps(
    report: flagscope.SeriesReport, folder: Path, run: Command
) -> None:
    alone = flagscope.track(folder / "seed-3").motion
    both = report.motion[report.motion["run"] == "seed-3"]
    assert both["step"].tolist() == [f"seed-3/{step}" for step in alone["step"]]
    assert both["change"].dropna().tolist() == alone["change"].dropna().tolist()
    out = run("track", f"{folder}/*").out
    for name in ("copy", "seed-4"):
        assert f"{name}: way of 4 maps" in out


def test_motion_passes_over_steps_of_another_run(tmp_path: Path) -> None:
    one, two = mlp(0, steps=8), mlp(1, steps=8)
    one[4:], two[4:] = two[4:], one[4:]
    saved(one, tmp_path / "a")
    saved(two, tmp_path / "b")
    report = flagscope.track([tmp_path / "a", tmp_path / "b"])
    crossed = {step for fault in report.faults if fault.code == "of-another-run"
               for step in fault.steps}  # fmt: skip
    assert crossed == {f"{run}/checkpoint-{10 * place}" for run in "ab" for place in range(4, 8)}
    moved = {step for step, norm in zip(report.motion["step"], report.motion["norm"], strict=True)
             if norm == norm}  # fmt: skip
    assert moved == set(report.steps["name"]) - crossed
    assert sum(report.runs["faults"]) == len(report.faults)
