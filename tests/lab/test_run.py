"""A planted experiment carried through: verdicts, files, resuming, failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from scipy import stats

from flagscope.errors import InputError, MissingExtraError
from flagscope.lab import Options, run_lab
from flagscope.lab.experiment import Cell, Measured
from flagscope.lab.measurement import read_cell, write_cell
from flagscope.lab.registry import load_experiment
from flagscope.lab.results import CellFailure, results_json


@contextmanager
def threads():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def carry_out(toy, out, options=None):
    with threads() as pool:
        (result,) = run_lab([toy], options, out=out, executor=pool)
    return result


def measured_cells(journal: Path) -> list[str]:
    return [line.split()[0] for line in journal.read_text().splitlines()]


def test_results_hold_no_paths_of_this_machine(toy):
    experiment = load_experiment(str(toy))
    cell = Cell("one", {"data": "/home/ann/secret/data.npz", "seeds": 3})
    failure = CellFailure("one", "cannot read /home/ann/secret/data.npz", None)
    content = results_json(
        experiment,
        Options(data="/home/ann/secret/data.npz"),
        [Measured(cell, {}, 1.0)],
        (),
        [failure],
    )
    assert "ann" not in json.dumps(content["settings"])
    assert content["settings"]["data"] == content["cells"][0]["settings"]["data"] == "data.npz"
    assert content["failures"][0]["error"] == "cannot read data.npz"
    assert content["cells"][0]["settings"]["seeds"] == 3


def test_results_hold_prediction_numbers_interval_and_verdict(toy, tmp_path):
    result = carry_out(toy, tmp_path, Options(seeds=7))
    assert (result.verdict, result.measured, result.reused) == ("confirmed", 2, 0)
    content = json.loads((tmp_path / "toy/results.json").read_text())
    assert content["schema"] == "flagscope.lab/1"
    assert content["settings"] == {"seeds": 7, "quick": False, "data": None}
    assert content["verdict"] == "confirmed"
    (finding,) = content["findings"]
    assert finding["prediction"]["value"] == 0.5
    for cell, estimate in zip(content["cells"], finding["estimates"], strict=True):
        means = cell["values"]["means"]
        assert len(means) == estimate["n"] == 7
        low, high = stats.t.interval(0.95, 6, loc=sum(means) / 7, scale=stats.sem(means))
        assert estimate["low"] == pytest.approx(low, abs=1e-14)
        assert estimate["high"] == pytest.approx(high, abs=1e-14)
    lines = (tmp_path / "toy/table.csv").read_text().splitlines()
    assert lines[0] == "cell,seed,mean"
    assert len(lines) == 1 + 2 * 7
    assert (tmp_path / "toy/coins.png").read_bytes()[:4] == b"\x89PNG"
    assert b"<svg" in (tmp_path / "toy/coins.svg").read_bytes()


def test_two_runs_differ_in_their_times_alone(toy, tmp_path):
    for name in ("a", "b"):
        carry_out(toy, tmp_path / name)
    for file in ("table.csv", "coins.png", "coins.svg"):
        first, second = ((tmp_path / name / "toy" / file).read_bytes() for name in ("a", "b"))
        assert first == second
    first, second = (
        json.loads((tmp_path / name / "toy/results.json").read_text()) for name in ("a", "b")
    )
    del first["run"], second["run"]
    assert first == second


def test_worker_processes_measure_what_one_thread_measures(toy, tmp_path):
    carry_out(toy, tmp_path / "a")
    (result,) = run_lab([toy], out=tmp_path / "b", workers=2)
    assert result.measured == 2
    tables = [(tmp_path / name / "toy/table.csv").read_text() for name in ("a", "b")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("victim", ["run", "worker"])
def test_a_killed_run_goes_on_where_it_was(toy, tmp_path, victim):
    """coin-1 is done and coin-0 hangs when the process is killed; only coin-0 is done again."""
    journal = tmp_path / "journal"
    command = [sys.executable, "-m", "flagscope", "lab", toy, "--out", str(tmp_path)]
    environment = os.environ | {"TOY_JOURNAL": str(journal), "TOY_BIASES": "0.5,0.5"}
    process = subprocess.Popen(
        [*command, "--workers", "1"],
        env=environment | {"TOY_HANGS": "coin-0"},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    kept = tmp_path / "toy/cells"
    # The worker begins coin-0 while coin-1 is on its way to the disk.
    while not (
        journal.exists() and "coin-0" in journal.read_text() and [*kept.glob("coin-1-*.json")]
    ):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    worker = int(journal.read_text().split()[-1])
    if victim == "run":
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        # Its worker does not live on.
        while Path(f"/proc/{worker}/stat").exists() and time.monotonic() < deadline:
            if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.05)
        else:
            assert not Path(f"/proc/{worker}").exists()
    else:
        os.kill(worker, signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "failed: toy: coin-0: its worker process was killed" in errors
    process.stdout.close()
    process.stderr.close()
    assert measured_cells(journal) == ["coin-1", "coin-0"]

    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert measured_cells(journal) == ["coin-1", "coin-0", "coin-0"]
    assert "1 cells measured, 1 found on disk" in again.stderr
    carry_out(toy, tmp_path / "fresh")
    tables = [(folder / "toy/table.csv").read_text() for folder in (tmp_path, tmp_path / "fresh")]
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: raw.replace(b"0.5", b"0.7"),
        lambda raw: raw.replace(b'"means"', b'"mans"'),
        lambda raw: b"[]",
        lambda raw: b"\xff\xfe",
    ],
)
def test_a_damaged_cell_is_seen_and_measured_again(toy, tmp_path, damage):
    first = carry_out(toy, tmp_path)
    (file,) = (first.folder / "cells").glob("coin-0-*.json")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert file.read_bytes() != whole
    again = carry_out(toy, tmp_path)
    assert (again.reused, again.measured) == (1, 1)
    assert again.findings == first.findings
    assert json.loads(file.read_bytes())["values"] == json.loads(whole)["values"]


def test_other_settings_or_versions_are_other_measurements(toy, tmp_path, monkeypatch):
    assert carry_out(toy, tmp_path, Options(seeds=3)).measured == 2
    assert carry_out(toy, tmp_path, Options(seeds=4)).measured == 2
    # Neither overwrote the other.
    assert carry_out(toy, tmp_path, Options(seeds=3)).reused == 2
    experiment, cell = load_experiment(toy), Cell("c", {"x": [1, 2.5]})
    write_cell(tmp_path, experiment, Measured(cell, {"y": [0.1]}, 1.0))
    assert read_cell(tmp_path, experiment, cell) == Measured(cell, {"y": [0.1]}, 1.0)
    experiment.version = 2
    assert read_cell(tmp_path, experiment, cell) is None
    experiment.version = 1
    monkeypatch.setattr("flagscope.lab.measurement.version", lambda _: "99")
    assert read_cell(tmp_path, experiment, cell) is None


def test_another_file_of_the_same_name_is_other_data(toy, tmp_path):
    experiment, file = load_experiment(toy), tmp_path / "pictures.npz"
    folder = tmp_path / "idx"
    folder.mkdir()
    for source, inside in ((file, file), (folder, folder / "train-images-idx3-ubyte")):
        cell = Cell("c", {"data": str(source)})
        inside.write_bytes(b"one")
        write_cell(tmp_path, experiment, Measured(cell, {"y": 1}, 1.0))
        assert read_cell(tmp_path, experiment, cell) is not None
        inside.write_bytes(b"another")
        assert read_cell(tmp_path, experiment, cell) is None
        inside.write_bytes(b"one")
        assert read_cell(tmp_path, experiment, cell) is not None


def test_a_failed_cell_is_listed_and_the_others_stand(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_FAILS", "coin-0")
    result = carry_out(toy, tmp_path)
    assert [(f.cell, f.error) for f in result.failures] == [
        ("coin-0", "ArithmeticError: the coin rolled away")
    ]
    assert (result.findings, result.verdict, result.measured) == ((), "open", 1)
    content = json.loads((tmp_path / "toy/results.json").read_text())
    assert content["failures"][0]["cell"] == "coin-0"
    assert [cell["name"] for cell in content["cells"]] == ["coin-1"]
    monkeypatch.delenv("TOY_FAILS")
    assert carry_out(toy, tmp_path).reused == 1


def test_a_nan_is_a_failure_and_never_a_number(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_NAN", "coin-1")
    (failure,) = carry_out(toy, tmp_path).failures
    assert "coin-1 cannot be written as JSON" in failure.error
    assert "None" in (failure.hint or "")


def test_progress_grows_to_one(toy, tmp_path):
    seen = []
    with threads() as pool:
        run_lab([toy], out=tmp_path, executor=pool, progress=seen.append)
    fractions = [p.fraction for p in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert {p.finished for p in seen} - {None} == {"toy: coin-0", "toy: coin-1"}
    # Costly cells start first.
    assert next(p.finished for p in seen if p.finished) == "toy: coin-1"


def test_any_executor_will_do(toy, tmp_path):
    with ProcessPoolExecutor(1) as pool:
        (result,) = run_lab([toy], out=tmp_path, executor=pool)
    assert result.verdict == "confirmed"


def test_a_missing_extra_is_named_before_anything_is_measured(toy, tmp_path, monkeypatch):
    for package in ("matplotlib", "sklearn"):
        with monkeypatch.context() as context:
            context.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match="needs the package") as caught:
                carry_out(toy, tmp_path)
        assert caught.value.hint == "pip install 'flagscope[lab]'"
    assert not (tmp_path / "toy").exists()


def test_wrong_use_is_refused(toy, tmp_path):
    with pytest.raises(InputError, match="works on none"):
        carry_out(toy, tmp_path, Options(data="pydoc"))
    with pytest.raises(InputError, match="there is no experiment 'ridge-rat'") as caught:
        carry_out("ridge-rat", tmp_path)
    assert caught.value.hint == "did you mean ridge-rate?"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        carry_out(toy, tmp_path / "file")
    (tmp_path / "empty.py").write_text("x = 1")
    with pytest.raises(InputError, match="defines no experiment"):
        carry_out(str(tmp_path / "empty.py"), tmp_path)
