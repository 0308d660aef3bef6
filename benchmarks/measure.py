"""How things are measured: processes of their own, alternation, medians with their range."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Results

ROOT = Path(__file__).resolve().parents[1]
# What decides how many threads a process takes, by library.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"),
    *("NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)

# Cores that others may use while something is timed: background services of the system.
QUIET = 0.1
# How often a run is tried on a machine that is not quiet, before it is taken as it is.
_ATTEMPTS = 3


def peak_memory() -> int:
    """Bytes of the largest resident set so far.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("the benchmarks read the peak memory from /proc, so they need Linux")


def environment(threads: int | None) -> dict[str, str]:
    """The environment of a process with this many BLAS threads; None for those of this process."""
    chosen = {} if threads is None else dict.fromkeys(_THREADS, str(threads))
    return dict(os.environ) | chosen


def in_process(
    module: str,
    arguments: Mapping[str, Any],
    *,
    threads: int | None = None,
    python: str | Path = sys.executable,
) -> dict[str, Any]:
    """What a worker prints: JSON on its last line.

    Parameters
    ----------
    module
        A module of this package, or the path of a script that does without it.
    arguments
        Given to the worker as JSON.
    threads
        BLAS threads; None for as many as this process may take.
    """
    started = [module] if module.endswith(".py") else ["-m", f"benchmarks.{module}"]
    load = _Load()
    done = subprocess.run(
        [str(python), *started, json.dumps(arguments)],
        cwd=ROOT, env=environment(threads), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{module} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1]) | {"others": load.of_others()}


def scanned(folder: Path, *, minimal: bool = False, **options: object) -> dict[str, float]:
    """A scan with these options in a process of its own; on request its minimal work after it."""
    return in_process(
        "scan_worker", {"folder": str(folder), "options": options, "minimal": minimal}
    )


class _Load:
    """How many cores all that is not of ours has used since this was made."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def of_others(self) -> float:
        """In cores, on average; what a host takes from a virtual machine counts too."""
        busy, own = _busy_seconds() - self._busy, _own_seconds() - self._own
        return max(0.0, (busy - own) / (time.perf_counter() - self._start))


def _busy_seconds() -> float:
    """Seconds of all cores since the machine was started, idle and waiting ones left out."""
    fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def alternated(
    results: Results,
    part: str,
    runs: Mapping[str, Callable[[], Mapping[str, float]]],
    *,
    repeats: int,
    warm: Sequence[str] = (),
) -> None:
    """Run each thing in turn, `repeats` times, so that all of them meet the same machine.

    What a run returns is kept at once under "run: number", so that a stopped benchmark goes on
    where it was. `warm` names runs that are done once before, uncounted: they fill the file cache.
    A run during which other processes were busy is done again, whatever it gave, and how often that
    happened is kept.
    """
    if not any(key.startswith(f"{name}: ") for name in runs for key in results.rows(part)):
        for name in warm:
            runs[name]()
    for i in range(repeats):
        for name, run in runs.items():
            if results.count(part, f"{name}: ") > i:
                continue
            found = _alone(run, results, part) if repeats > 1 else run()
            results.append(part, {f"{name}: {key}": value for key, value in found.items()})
            print(f"  {part} {i + 1}/{repeats} {name}: {_brief(found)}", file=sys.stderr)
            if found.get("others", 0) > QUIET:
                print(
                    "    other processes were busy meanwhile: not to be relied on", file=sys.stderr
                )


def _alone(
    run: Callable[[], Mapping[str, float]], results: Results, part: str
) -> Mapping[str, float]:
    found = run()
    for _ in range(_ATTEMPTS - 1):
        if found.get("others", 0) <= QUIET:
            break
        print(f"  {part}: others were busy, again ({_brief(found)})", file=sys.stderr)
        results.fact(part, "done again", results.facts(part).get("done again", 0) + 1)
        found = run()
    return found


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _brief(found: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in found.items())
