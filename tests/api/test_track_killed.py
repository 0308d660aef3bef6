"""A run with a store that is killed at any point ends with the same bytes when it is run again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flagscope
from flagscope import writing
from flagscope.api import track_motion, tracked_scans
from flagscope.series import kept
from series.made import linear, saved

STEPS = 4
WRITES = 4 * STEPS  # samples, scan, states of maps and imbalances of each step
ASKED = {
    "kinds": "sequential", "learning_rate": 0.1, "weight_decay": 0.02, "optimiser": "sgd",
}  # fmt: skip


class Killed(BaseException):
    """Where the process ends; nothing that comes after it is done."""


def dies(*_: object, **__: object) -> None:
    raise Killed


def at_call(stop: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which is killed at one of its calls."""
    calls: list[int] = []

    def counted(*given: object, **named: object) -> Any:
        calls.append(1)
        if len(calls) == stop:
            dies()
        return function(*given, **named)

    return counted


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(list(linear())[:STEPS], tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def undisturbed(run: Path) -> str:
    return flagscope.track(run, **ASKED).to_json()


@pytest.fixture(scope="module")
def computed() -> dict[tuple[str, str], Any]:
    """What was computed of each step: the same for each run, and not what is tested here."""
    return {}


@pytest.fixture
def once(
    computed: dict[tuple[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> pytest.MonkeyPatch:
    """Each step is scanned, and its maps measured, once for all tests."""
    parts: tuple[tuple[Any, str, Callable[[Any], str]], ...] = (
        (tracked_scans, "scan", str),
        (track_motion, "measured_states", lambda checkpoint: checkpoint.source),
        (tracked_scans, "imbalances", lambda step: step.place.source),
    )
    for module, name, key_of in parts:
        monkeypatch.setattr(module, name, _known(getattr(module, name), name, key_of, computed))
    return monkeypatch


def _known(
    function: Callable[..., Any],
    name: str,
    key_of: Callable[[Any], str],
    computed: dict[tuple[str, str], Any],
) -> Callable[..., Any]:
    def known(what: Any, *rest: object, **named: object) -> Any:
        key = name, key_of(what)
        if key not in computed:
            computed[key] = function(what, *rest, **named)
        return computed[key]

    return known


def killed_at_a_write(patch: pytest.MonkeyPatch, stop: int, point: str) -> list[Path]:
    """Kill the process at one write to the store; the list holds what was written before it."""
    begun: list[Path] = []
    write_whole, write_out = kept.write_whole, writing._write_out

    def half(descriptor: int, data: bytes) -> None:
        write_out(descriptor, data[: len(data) // 2])
        dies()

    def writes(path: Path, content: bytes) -> None:
        begun.append(path)
        if len(begun) != stop:
            write_whole(path, content)
            return
        if point == "before":
            dies()
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Path, "unlink", dies)  # a process that is killed does not clean up
            if point == "half":
                inner.setattr(writing, "_write_out", half)
            if point == "before the rename":
                inner.setattr(Path, "replace", dies)
            write_whole(path, content)
        dies()

    patch.setattr(kept, "write_whole", writes)
    return begun


POINTS = ("before", "half", "before the rename", "after")


@pytest.mark.parametrize(
    ("stop", "point"), [(stop, POINTS[stop % len(POINTS)]) for stop in range(1, WRITES + 1)]
)
def test_killed_at_a_write(
    stop: int, point: str, run: Path, undisturbed: str, once: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begun = killed_at_a_write(once, stop, point)
    with pytest.raises(Killed):
        flagscope.track(run, store=tmp_path, **ASKED)
    left = [path.stat().st_size for path in (tmp_path / "steps").glob(".flagscope-*")]
    assert len(left) == (point in ("half", "before the rename"))
    assert all(left)
    assert flagscope.track(run, store=tmp_path, **ASKED).to_json() == undisturbed
    again = point != "after"  # what was written whole is not written anew
    assert len(begun) == WRITES + again
    assert len(set(begun)) == WRITES


READS = [
    (kept, "read_step", 3),
    (tracked_scans, "scan", 2),
    (track_motion, "opened", 1),
    (track_motion, "measured_states", 3),
    (tracked_scans, "imbalances", 4),
    (kept.KeptSteps, "_read", 2 * STEPS + 3),  # a look for what is not there yet
]


@pytest.mark.parametrize(("module", "name", "stop"), READS, ids=[name for _, name, _ in READS])
def test_killed_while_reading(
    module: Any, name: str, stop: int, run: Path, undisturbed: str, once: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    with once.context() as patch:
        patch.setattr(module, name, at_call(stop, getattr(module, name)))
        with pytest.raises(Killed):
            flagscope.track(run, store=tmp_path, **ASKED)
    assert flagscope.track(run, store=tmp_path, **ASKED).to_json() == undisturbed


def test_killed_again_and_again(
    run: Path, undisturbed: str, once: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One store, killed at each third write in another way, and then while it reads what it has."""
    for count in range(3):
        with once.context() as patch:
            killed_at_a_write(patch, 3, POINTS[count + 1])
            with pytest.raises(Killed):
                flagscope.track(run, store=tmp_path, **ASKED)
    assert flagscope.track(run, store=tmp_path, **ASKED).to_json() == undisturbed
    with once.context() as patch:
        patch.setattr(kept.KeptSteps, "_read", at_call(6, kept.KeptSteps._read))
        with pytest.raises(Killed):
            flagscope.track(run, store=tmp_path, **ASKED)
    assert flagscope.track(run, store=tmp_path, **ASKED).to_json() == undisturbed
