"""What nobody foresaw is an error with a hint, whose cause stays in sight."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NoReturn

import pytest

import flagscope
from cli.conftest import Run
from cli.conftest import mlp as mlp
from cli.conftest import run as run
from flagscope.checkpoint import open_checkpoint
from flagscope.errors import CorruptFileError, SourceError, UnforeseenError
from flagscope.guard import guarded

SEAMS = {
    "reading ": "flagscope.checkpoint.opening.opened_file",
    "mapping the tensors": "flagscope.api.source.build_graph",
    "planning the scan": "flagscope.engine.plan.tasks.in_parts",
}
TASK = "flagscope.engine.run.attempt.execute"


def failing(monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    module, _, name = place.rpartition(".")
    monkeypatch.setattr(importlib.import_module(module), name, fail)


@pytest.mark.parametrize("doing", SEAMS)
def test_each_seam_gives_one_error_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, mlp: Path, doing: str
) -> None:
    cause = KeyError("nobody thought of this")
    failing(monkeypatch, SEAMS[doing], cause)
    for call in (flagscope.scan, flagscope.inspect):
        with pytest.raises(UnforeseenError, match=f"^{doing}.* failed: KeyError") as caught:
            call(mlp)
        assert caught.value.__cause__ is cause
        assert caught.value.hint
        assert isinstance(caught.value, SourceError)


@pytest.mark.parametrize("doing", SEAMS)
def test_the_command_line_gives_2_and_two_lines(
    run: Run, monkeypatch: pytest.MonkeyPatch, mlp: Path, doing: str
) -> None:
    failing(monkeypatch, SEAMS[doing], ZeroDivisionError("oops\nand more"))
    answer = run("scan", mlp)
    assert (answer.code, answer.out) == (2, "")
    error, hint = answer.err.splitlines()
    assert error.startswith(f"error: {doing}")
    assert "ZeroDivisionError: oops" in error
    assert hint.startswith("hint: ")
    assert "Traceback" in run("scan", mlp, "--debug").err


@pytest.mark.parametrize(
    "error", [TypeError("oops"), AssertionError(), IndexError("\n"), EOFError()]
)
def test_a_task_that_fails_unforeseen_is_listed_and_the_others_stand(
    run: Run, monkeypatch: pytest.MonkeyPatch, mlp: Path, error: Exception
) -> None:
    failing(monkeypatch, TASK, error)
    report = flagscope.scan(mlp)
    assert len(report.result.failures) == 3
    told = report.result.failures[0]
    assert told.error.startswith(f"internal error: {type(error).__name__}")
    assert " at engine/run/attempt.py:" in told.error
    assert told.hint
    answer = run("scan", mlp)
    assert answer.code == 1
    assert "Traceback" not in answer.err


def test_what_fails_elsewhere_gives_3_one_line_and_a_hint(
    run: Run, monkeypatch: pytest.MonkeyPatch, mlp: Path
) -> None:
    failing(monkeypatch, "flagscope.engine.scan.coverage_of", TypeError("oops"))
    answer = run("scan", mlp)
    assert (answer.code, answer.out) == (3, "")
    error, hint = answer.err.splitlines()
    assert error.startswith("error: internal error: TypeError: oops at engine/scan.py:")
    assert "--debug" in hint
    for arguments in (("--debug", "scan", mlp), ("scan", mlp, "--debug")):
        answer = run(*arguments)
        assert answer.code == 3
        assert "Traceback" in answer.err
        assert answer.err.splitlines()[-1].startswith("hint: ")


@pytest.mark.parametrize("place", [*SEAMS.values(), TASK])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(7), CorruptFileError("known")])
def test_interrupts_exits_and_known_errors_pass(
    monkeypatch: pytest.MonkeyPatch, mlp: Path, place: str, error: BaseException
) -> None:
    failing(monkeypatch, place, error)
    if place == TASK and isinstance(error, CorruptFileError):
        assert flagscope.scan(mlp).result.failures[0].error == "known"
        return
    with pytest.raises(type(error)) as caught:
        flagscope.scan(mlp, workers=1)
    assert caught.value is error


def test_memory_and_depth_are_told_in_words() -> None:
    for cause, words in ((MemoryError(), "not enough memory"), (RecursionError("x"), "too deep")):
        with pytest.raises(UnforeseenError, match=words), guarded("reading x", hint="y"):
            raise cause


def test_a_file_that_is_not_there_is_no_unforeseen_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_checkpoint(tmp_path / "gone")
    assert not isinstance(caught.value, UnforeseenError)
