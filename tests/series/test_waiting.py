"""Steps that are being written are waited for; none is read half, and a killed writer is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import flagscope
from flagscope.errors import InputError
from flagscope.series import waiting
from flagscope.series.step import Step
from series.made import Run, mlp, saved

RUN = mlp(0, steps=5)
Act = Callable[[], object]


class Clock:
    """Time that passes in `sleep` alone, in which a writer does its next thing."""

    def __init__(self, *acts: Act) -> None:
        self.now, self.acts, self.slept = 0.0, list(acts), 0
        self._begun = time.time()

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self._begun + self.now

    def sleep(self, seconds: float) -> None:
        assert 0 < seconds <= 1
        self.now += seconds
        self.slept += 1
        if self.acts:
            self.acts.pop(0)()


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Clock]:
    def made(*acts: Act) -> Clock:
        clock = Clock(*acts)
        monkeypatch.setattr(waiting, "time", clock)
        return clock

    return made


def _aged(folder: Path) -> Path:
    """As if it had been written an hour ago."""
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (time.time() - 3600,) * 2)
    return folder


def _cut(file: Path, share: float) -> Act:
    """Cut a file, and return what adds the rest."""
    whole = file.read_bytes()
    middle = int(share * len(whole))
    file.write_bytes(whole[:middle])

    def rest() -> None:
        with file.open("ab") as out:
            out.write(whole[middle:])

    return rest


def _series(tmp_path: Path, run: Run = RUN, shards: int = 1) -> Path:
    return _aged(saved(run, tmp_path / "run", shards=shards))


def _faults(steps: list[Step]) -> list[tuple[str, str | None]]:
    return [(step.place.name, step.fault) for step in steps if step.fault is not None]


def test_a_file_written_in_pieces_is_read_once_it_is_whole(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path)
    file = folder / "checkpoint-40" / "model.safetensors"
    second = _cut(file, 0.7)
    first = _cut(file, 0.01)  # within the header
    clock = clocked(first, lambda: None, second)
    steps = waiting.read_steps([folder], wait=60)
    assert _faults(steps) == []
    assert clock.slept == 5  # the writing, and two seconds of quiet
    assert {name: one.tolist() for name, one in steps[4].values.items()} == {
        name: one.tolist() for name, one in waiting.read_steps([_aged(folder)])[4].values.items()
    }


def test_a_file_of_full_length_that_is_still_filled_is_read_again(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path)
    file = folder / "checkpoint-40" / "model.safetensors"
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[:header] + bytes(len(whole) - header))
    clocked(lambda: file.write_bytes(whole))
    filled = waiting.read_steps([folder], wait=60)[4].values
    assert all(one.any() for one in filled.values())


def test_shards_and_their_index_are_waited_for(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path, shards=3)
    inner = folder / "checkpoint-40"
    content = {path.name: path.read_bytes() for path in sorted(inner.iterdir())}
    for path in inner.iterdir():
        path.unlink()

    def write(name: str) -> Act:
        return lambda: (inner / name).write_bytes(content[name])

    clocked(*(write(name) for name in content))  # the index comes last
    steps = waiting.read_steps([folder], wait=60)
    assert _faults(steps) == []
    assert len({header.file for header in steps[4].headers.values()}) == 3


def test_a_temporary_name_is_waited_for(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path)
    final = folder / "checkpoint-40"
    final.rename(folder / "tmp-checkpoint-40")
    os.utime(folder / "tmp-checkpoint-40")
    clock = clocked(lambda: None, lambda: (folder / "tmp-checkpoint-40").rename(final))
    steps = waiting.read_steps([folder], wait=60)
    assert [step.place.name for step in steps][-1] == "checkpoint-40"
    assert len(steps) == 5
    assert clock.slept == 4


def test_what_is_never_whole_is_a_fault_when_the_time_runs_out(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path)
    rest = _cut(folder / "checkpoint-40" / "model.safetensors", 0.5)
    clock = clocked()  # the writer was killed
    assert _faults(waiting.read_steps([folder], wait=7.5)) == [("checkpoint-40", "truncated")]
    assert clock.now == 7.5
    rest()
    assert _faults(waiting.read_steps([folder], wait=7.5)) == []


def test_what_still_grows_when_the_time_runs_out_says_so(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path)
    file = folder / "checkpoint-40" / "model.safetensors"
    _cut(file, 0.5)

    def piece() -> None:
        with file.open("ab") as out:
            out.write(b"0")

    clocked(*[piece] * 20)
    report = flagscope.track(folder, verify=True, wait=5)
    assert [(fault.code, fault.steps) for fault in report.faults] == [
        ("being-written", ["checkpoint-40"])
    ]
    assert "less than 2 s before" in report.faults[0].evidence
    assert report.result.steps[4].status == "being-written"


def test_what_was_left_long_ago_is_not_waited_for(tmp_path: Path, clocked) -> None:
    folder = _series(tmp_path)
    _cut(folder / "checkpoint-20" / "model.safetensors", 0.5)
    (folder / "checkpoint-10").rename(folder / "tmp-checkpoint-10")
    _aged(folder)
    clock = clocked()
    assert _faults(waiting.read_steps([folder], wait=600))[-1] == ("checkpoint-20", "truncated")
    assert clock.slept == 0


def test_without_waiting_nothing_is_waited_for(tmp_path: Path, clocked) -> None:
    folder = saved(RUN, tmp_path)
    _cut(folder / "checkpoint-20" / "model.safetensors", 0.5)
    clock = clocked()
    assert _faults(waiting.read_steps([folder])) == [("checkpoint-20", "truncated")]
    assert clock.slept == 0


def test_steps_that_are_added_while_others_are_read_are_read_too(
    tmp_path: Path, clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _series(tmp_path, RUN[:3])
    clocked()
    later, original, read = list(RUN[3:]), waiting.read_step, []

    def reading(place):
        read.append(place.name)
        if later:
            saved([later.pop(0)], folder)
        return original(place)

    monkeypatch.setattr(waiting, "read_step", reading)
    steps = waiting.read_steps([folder], wait=30)
    assert [step.place.number for step in steps] == [0, 10, 20, 30, 40]
    assert read == [f"checkpoint-{i}" for i in (0, 10, 20, 30, 40)]  # each once
    assert _faults(steps) == []


def test_a_step_that_changes_while_it_is_read_is_not_taken(
    tmp_path: Path, clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, original, read = _series(tmp_path), waiting.read_step, []
    file = folder / "checkpoint-20" / "model.safetensors"

    def reading(place):
        step = original(place)
        if place.number == 20 and not read:
            read.append(place)
            os.utime(file)
        return step

    monkeypatch.setattr(waiting, "read_step", reading)
    steps = waiting.read_steps([folder])
    assert _faults(steps) == [("checkpoint-20", "being-written")]
    assert "while it was being read" in steps[2].reason
    read.clear()
    clocked()
    assert _faults(waiting.read_steps([folder], wait=30)) == []


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "60"])
def test_a_time_that_is_none_is_refused(wait: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wait is"):
        flagscope.track(_series(tmp_path), wait=wait)


_WRITER = """
import pathlib, sys, time
source, target, pieces = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
content = source.read_bytes()
target.parent.mkdir()
with target.open("wb", buffering=0) as out:
    for i in range(10):
        out.write(content[i * len(content) // 10 : (i + 1) * len(content) // 10])
        if i + 1 == pieces:
            print("written", flush=True)
            time.sleep(600)
        time.sleep(0.05)
"""


@pytest.mark.parametrize("pieces", [1, 5, 9, 11])
def test_a_process_that_writes_is_waited_for_and_a_killed_one_is_seen(
    pieces: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_PAUSE", 0.02)
    monkeypatch.setattr(waiting, "QUIET", 0.3)
    folder = _series(tmp_path)
    source = folder / "checkpoint-40" / "model.safetensors"
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, source, folder / "checkpoint-50" / "model.safetensors",
         str(pieces)], stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        if pieces < 11:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"written\n"
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            faults = _faults(waiting.read_steps([folder], wait=1))
            assert faults == [("checkpoint-50", "truncated")]
        else:
            while not (folder / "checkpoint-50").exists():
                assert writer.poll() is None
                time.sleep(0.005)
            steps = waiting.read_steps([folder], wait=120)
            assert _faults(steps) == []
            assert (steps[5].values["0.bias"] == steps[4].values["0.bias"]).all()
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()


def test_an_interrupt_while_waiting_leaves_a_whole_store(tmp_path: Path, clocked) -> None:
    folder, store = _series(tmp_path), tmp_path / "store"
    rest = _cut(folder / "checkpoint-40" / "model.safetensors", 0.5)

    def interrupt() -> None:
        raise KeyboardInterrupt

    clocked(lambda: None, interrupt)
    with pytest.raises(KeyboardInterrupt):
        flagscope.track(folder, verify=True, store=store, wait=60)
    assert len(list((store / "steps").glob("*.bin"))) == 4
    rest()
    done = flagscope.track(folder, verify=True, store=store)
    assert done.to_json() == flagscope.track(folder, verify=True).to_json()
    assert done.faults == []
