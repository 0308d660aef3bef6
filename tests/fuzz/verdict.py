"""What is wrong with a run, whatever its file was."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from fuzz.child import Ran

_MEGABYTES = 1024
_LONGEST_LINE = 3000
# What steers a terminal or turns its text around.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]"
)
_GUARDED = re.compile(r"^error: .* failed: |internal error")


def faults(ran: Ran, folder: Path, *, baseline: float) -> list[str]:
    """What a run may not do: none for a good one."""
    found = []
    err = ran.err.decode("utf-8", "replace")
    if ran.hung:
        found.append(f"hangs for {ran.seconds:.0f} s")
    elif ran.code not in (0, 1, 2):
        found.append(f"exit code {ran.code}")
    if "Traceback" in err:
        found.append("a traceback")
    if "Warning" in err:
        found.append("a warning of Python")
    if ran.code in (1, 2):
        found += _hints(err)
    if ran.code == 0 and re.search(r"^error:", err, re.M):
        found.append("an error and exit code 0")
    for name, raw in (("stdout", ran.out), ("stderr", ran.err)):
        found += _text(name, raw)
    if max(map(len, err.splitlines()), default=0) > _LONGEST_LINE:
        found.append("a message that fits no screen")
    if ran.megabytes - baseline > _MEGABYTES:
        found.append(f"{ran.megabytes - baseline:.0f} MB above the baseline")
    if ran.deeds.strip():
        found.append(f"does what it may not: {ran.deeds.splitlines()[0]}")
    if (folder / "canary").exists():
        found.append("ran pickled code")
    return found + _report(folder / "report.json")


def unforeseen(ran: Ran) -> str | None:
    """An error that only the guard knew, which deserves a check of its own."""
    err = ran.err.decode("utf-8", "replace")
    for line in err.splitlines():
        if _GUARDED.search(line):
            return line
    return None


def _hints(err: str) -> list[str]:
    """Each error is followed by what to do about it."""
    lines = [line for line in err.splitlines() if line]
    for number, line in enumerate(lines):
        follows = lines[number + 1] if number + 1 < len(lines) else ""
        if line.startswith(("error:", "failed:")) and not follows.startswith("hint: "):
            return [f"no hint behind {line[:80]!r}"]
    told = any(line.startswith(("error:", "failed:")) for line in lines)
    return [] if told else ["neither an error nor a failure is told"]


def _text(name: str, raw: bytes) -> list[str]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return [f"{name} is no UTF-8"]
    control = _CONTROL.search(text)
    return [f"{name} holds the control character {control[0]!r}"] if control else []


def _report(path: Path) -> list[str]:
    if not path.exists():
        return []

    def refused(name: str) -> Any:
        raise ValueError(name)

    try:
        json.loads(path.read_bytes(), parse_constant=refused)
    except ValueError as error:
        return [f"the report is no JSON: {str(error)[:80]}"]
    return []
