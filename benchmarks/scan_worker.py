"""One scan in a process of its own, its peak memory, and on request its minimal work after it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

import flagscope
from benchmarks.measure import peak_memory


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    options = asked["options"]
    if "executor" in options:
        raise SystemExit("what another process does is not measured here")
    # Whatever a first scan imports is not the scan's.
    flagscope.scan(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)))
    base = peak_memory()
    start, used = time.perf_counter(), time.process_time()
    result = flagscope.scan(asked["folder"], **options).result
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    peak = peak_memory()
    if result.failures:
        raise SystemExit(f"{len(result.failures)} tasks failed: {result.failures[0]}")
    found = {"seconds": seconds, "cpu": cpu, "peak_mb": (peak - base) / 2**20}
    found["import_mb"] = base / 2**20
    if asked.get("minimal"):
        found |= _minimal(asked["folder"], options)
    print(json.dumps(found))


def _minimal(folder: str, options: dict[str, Any]) -> dict[str, float]:
    from benchmarks.minimal_work import minimal_work, timed

    known = {key: value for key, value in options.items() if key in ("only", "window", "edges")}
    precision = options.get("precision", "mixed")
    work = minimal_work(flagscope.inspect(folder, **known), precision=precision)
    threads = torch.get_num_threads()
    found = {"minimal_in_sequence": timed(work)}
    if threads > 1:
        found["minimal_at_once"] = timed(work, workers=threads)
    return found


if __name__ == "__main__":
    main()
