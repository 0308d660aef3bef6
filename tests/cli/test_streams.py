"""stdout and stderr that are full or closed, and interrupts while the libraries are imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's devices")

COMMANDS = [["--help"], ["families"], ["demo"], ["demo", "--json", "-"]]
# The signal comes before Python runs a line of flagscope: nothing can be done about it.
SCRIPT = "import sys; from flagscope.__main__ import start; print('here', flush=True); start()"


def answer(arguments: list[str], redirected: str) -> tuple[int, str]:
    """Exit code and stderr of a command under a shell's redirection."""
    words = " ".join([sys.executable, "-m", "flagscope", *arguments, redirected])
    ended = subprocess.run(["sh", "-c", words], stderr=subprocess.PIPE, text=True, timeout=120)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_full_stdout_is_an_error(
    arguments: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    code, err = answer(arguments, "> /dev/full")
    assert code == 2
    assert "error: stdout cannot be written: No space left on device\nhint: " in err
    assert "Traceback" not in err
    assert "ignored" not in err


def test_a_closed_stdout_is_an_error() -> None:
    code, err = answer(["demo"], ">&-")
    assert code == 2
    assert err.startswith("error: stdout is closed\nhint: ")
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize("redirected", ["2>&-", "2> /dev/full"])
def test_without_stderr_the_exit_code_says_it(redirected: str) -> None:
    assert answer(["families"], f"> /dev/null {redirected}")[0] == 0
    assert answer(["scan", "no/such/file.pt"], f"> /dev/null {redirected}")[0] == 2


def test_a_reader_that_has_enough_is_no_error() -> None:
    code, err = answer(["demo", "--json", "-"], "| head -1 > /dev/null")
    assert (code, err) == (0, "")


@pytest.mark.parametrize("arguments", [["inspect"], ["scan"], ["heads"]])
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3, 0.8])
def test_an_interrupt_while_libraries_are_imported(arguments: list[str], delay: float) -> None:
    import flagscope.demo

    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments, str(flagscope.demo.final())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.02 + delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")


def test_an_interrupt_that_a_shell_turned_off_stays_off() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "flagscope", "demo", "--quiet"],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    for _ in range(5):
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 0
