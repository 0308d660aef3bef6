"""One run of the command line in a child that is forked, watched and limited."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HANG = 20.0
"""Seconds after which a run hangs."""

_DATA = 4 << 30  # bytes of memory that a child may take, so that the machine stays whole
_FORBIDDEN = (
    "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "os.forkpty", "pty.spawn", "socket.connect", "socket.bind", "socket.getaddrinfo",
    "socket.gethostbyname", "pickle.find_class", "os.kill", "os.killpg", "shutil.rmtree",
    "ftplib.connect", "urllib.Request", "code.__new__",
)  # fmt: skip
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink", "os.link", "os.chmod",
            "os.chown", "os.truncate", "os.utime")  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """How a run ended: exit code (negative for a signal), output, and what it did besides."""

    code: int
    hung: bool
    out: bytes
    err: bytes
    deeds: str
    seconds: float
    megabytes: float


def run(arguments: Sequence[str], folder: Path, *, hang: float = HANG) -> Ran:
    """Run the command line on arguments; it may write in `folder` alone."""
    places = [folder / name for name in ("stdout", "stderr", "deeds")]
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(arguments, folder, places)
    hung = False
    while True:
        ended, status, used = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - begun > hang:
            hung = True
            os.kill(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            break
        time.sleep(0.005)
    out, err, deeds = (place.read_bytes() if place.exists() else b"" for place in places)
    seconds = time.monotonic() - begun
    code = os.waitstatus_to_exitcode(status)
    told = deeds.decode(errors="replace")
    return Ran(code, hung, out, err, told, seconds, used.ru_maxrss / 1024)


def _child(arguments: Sequence[str], folder: Path, places: Sequence[Path]) -> None:
    """Become the command line; never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        deeds = os.open(places[2], flags | os.O_APPEND)
        for number, place in enumerate(places[:2], start=1):
            os.dup2(os.open(place, flags), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_DATA, (_DATA, _DATA))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        from flagscope.cli import main

        sys.addaudithook(_hook(deeds, os.fspath(folder)))
        code: Any = 98
        try:
            main(list(arguments))
        except SystemExit as leaving:
            code = leaving.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 99)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(97)


def _hook(deeds: int, folder: str) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that notes what no run may do."""
    inside = False

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal inside
        if inside:
            return
        inside = True
        try:
            if _is_misdeed(event, arguments, folder):
                os.write(deeds, f"{event} {arguments!r:.300}\n".encode(errors="replace"))
        finally:
            inside = False

    return hook


def _is_misdeed(event: str, arguments: tuple[Any, ...], folder: str) -> bool:
    if event in _FORBIDDEN:
        return True
    if event in _CHANGES:
        return not _within(arguments[0], folder)
    if event != "open":
        return False
    path, mode, flags = arguments
    if isinstance(path, int):
        return False
    writes = isinstance(mode, str) and any(letter in mode for letter in "wax+")
    writes |= isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return (writes and not _within(path, folder)) or os.fsdecode(path).startswith("/etc/passwd")


def _within(path: Any, folder: str) -> bool:
    if isinstance(path, int):  # a descriptor of an open file
        return True
    whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links stay as they are)
    return whole == os.devnull or whole == folder or whole.startswith(folder + os.sep)
