"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flagscope.writing import write_whole

FULL = """
import resource, signal, sys
from flagscope.writing import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(sys.argv[1], "x" * 5000)
except OSError as error:
    print(error.strerror)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_disk_that_fills_up_keeps_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("of last week")
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "File too large\n"
    assert path.read_text() == "of last week"
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), fail)
    (tmp_path / "a").write_text("before")
    for name in ("a", "new"):
        with pytest.raises(type(error)):
            write_whole(tmp_path / name, b"after")
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_the_mode_is_that_of_the_file_or_of_the_umask(tmp_path: Path) -> None:
    private, new = tmp_path / "private", tmp_path / "new"
    private.write_text("mine")
    private.chmod(0o600)
    before = os.umask(0o027)
    try:
        write_whole(private, "still mine")
        write_whole(new, "the group may read")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, new)] == [0o600, 0o640]


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(Path("far") / name)
    (tmp_path / "far" / "old").write_text("before")
    for name in ("old", "new"):
        write_whole(tmp_path / name, "after")
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "far" / name).read_text() == "after"


def test_the_longest_name_that_a_folder_takes(tmp_path: Path) -> None:
    write_whole(tmp_path / ("n" * 255), "whole")
    assert names(tmp_path) == ["n" * 255]


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_whole(pipe, "through")
    reader.join(30)
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "LOG"])
def test_what_stdout_leads_to_is_appended_to(tmp_path: Path, name: str) -> None:
    log = tmp_path / "log"
    log.write_text("earlier\n")
    target = str(log) if name == "LOG" else name
    code = f"from flagscope.writing import write_whole; write_whole({target!r}, 'later\\n')"
    with log.open("a") as stdout:
        subprocess.run([sys.executable, "-c", code], stdout=stdout, check=True)
    assert log.read_text() == "earlier\nlater\n"
    assert names(tmp_path) == ["log"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_takes_no_new_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    tmp_path.chmod(0o555)
    try:
        write_whole(tmp_path / "a", "after")
    finally:
        tmp_path.chmod(0o755)
    assert (tmp_path / "a").read_text() == "after"
