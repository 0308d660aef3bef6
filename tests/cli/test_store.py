"""`flagscope scan --store`: what is said and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Run
from cli.test_wrong_use import complaint
from flagscope.engine.run import attempt as engine_attempt


def test_a_second_scan_takes_all_from_the_store(run: Run, mlp: Path, tmp_path: Path) -> None:
    store = tmp_path / "new" / "store"
    one, other = (json.loads(run("scan", mlp, "--store", store, "--json", "-").out) for _ in "ab")
    runs = one.pop("run"), other.pop("run")
    assert one == other
    assert [(r["tasks"], r["tasks_from_store"]) for r in runs] == [(3, 0), (3, 3)]
    assert "3 of 3 tasks from the store" in run("scan", mlp, "--store", store).out
    assert "from the store" not in run("scan", mlp).out


def test_what_failed_is_kept_from_the_store(
    run: Run, mlp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(task: object, *_: object) -> None:
        raise MemoryError("9 TB")

    with monkeypatch.context() as patch:
        patch.setattr(engine_attempt, "execute", failing)
        answer = run("scan", mlp, "--store", tmp_path / "store")
    assert answer.code == 1
    assert answer.err.splitlines()[-1].endswith("run again to try the rest alone")
    assert run("scan", mlp, "--store", tmp_path / "store").code == 0


def test_a_store_that_cannot_be_is_refused_before_the_work(
    run: Run, mlp: Path, tmp_path: Path
) -> None:
    complaint(run("scan", mlp, "--store", mlp))
    (tmp_path / "results.sqlite3").write_text("no database" * 100)
    error, hint = complaint(run("scan", mlp, "--store", tmp_path))
    assert "is damaged" in error
    assert "scan again" in hint
