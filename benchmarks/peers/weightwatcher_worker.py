"""One run of WeightWatcher, in its own environment: this script imports nothing of flagscope.

python weightwatcher_worker.py '{"folder": "...", "intra": false, "layers": []}'
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path


def main() -> None:
    asked = json.loads(sys.argv[1])
    # It warns and logs a line for each layer; no line is part of the work.
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import weightwatcher

    base = _peak_memory()
    start, used = time.perf_counter(), time.process_time()
    watcher = weightwatcher.WeightWatcher(model=asked["folder"])
    details = watcher.analyze(intra=asked["intra"], layers=asked["layers"])
    seconds, cpu = time.perf_counter() - start, time.process_time() - used
    found = {"seconds": seconds, "cpu": cpu, "rows": len(details)}
    print()
    print(json.dumps(found | {"peak_mb": (_peak_memory() - base) / 2**20}))


def _peak_memory() -> int:
    with Path("/proc/self/status").open() as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
