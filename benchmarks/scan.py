"""Time and memory of a scan of GPT-2-small-size weights, beside plain GEMM of the same flop count.

Run as `python benchmarks/scan.py [--repeats 5]`. The weights are those of `GPT2Config()` (124 M,
random), written once to a temporary folder. Each scan runs in a process of its own, so that its
peak memory is its own; GEMM is timed in the same process, before and after the scan.

The work is counted from the header, as `flagscope inspect` does: 2 m n k for a matrix product and
9 n³ for a symmetric eigenproblem with vectors (LAPACK's divide and conquer).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_SIZE = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="float64", choices=["float64", "float32"])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--worker-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker_of:
        print(json.dumps(measured(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        command = [sys.executable, __file__, "--worker-of", folder]
        command += ["--precision", arguments.precision]
        command += ["--workers", str(arguments.workers)] if arguments.workers else []
        runs = []
        for i in range(arguments.repeats + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            # The first run warms the file cache and is not counted.
            if i:
                runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"GPT2Config(), 124 M, {arguments.precision}, {len(runs)} runs: median [range]")
    for name, unit in (
        ("scan", "s"),
        ("gemm", "s, plain GEMM of the same flop count"),
        ("ratio", "scan / GEMM"),
        ("peak", "MB beyond the imports"),
        ("gflop", "GFLOP counted"),
        ("rate", "GFLOP/s of GEMM"),
    ):
        values = [run[name] for run in runs]
        spread = f"[{min(values):.2f}, {max(values):.2f}]"
        print(f"{name:>6} {statistics.median(values):9.2f} {spread:>20}  {unit}")


def write_model(folder: Path) -> None:
    """Random GPT-2-small weights."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)


def measured(arguments: argparse.Namespace) -> dict[str, float]:
    """One scan and the GEMM around it."""
    import torch

    import flagscope
    import flagscope.api

    dtype = getattr(torch, arguments.precision)
    # Whatever a first scan imports is not the scan's.
    flagscope.scan(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)))
    before = gemm_rate(dtype)
    base = peak_memory()
    start = time.perf_counter()
    result = flagscope.scan(
        arguments.worker_of, precision=arguments.precision, workers=arguments.workers
    ).result
    seconds = time.perf_counter() - start
    peak = peak_memory()
    rate = (before + gemm_rate(dtype)) / 2
    tasks = flagscope.inspect(arguments.worker_of).tasks
    flops = sum(task.flops for task in tasks)
    if result.failures:
        raise SystemExit(f"{len(result.failures)} tasks failed")
    gemm = flops / rate
    return {
        "scan": seconds,
        "gemm": gemm,
        "ratio": seconds / gemm,
        "peak": (peak - base) / 2**20,
        "gflop": flops / 1e9,
        "rate": rate / 1e9,
    }


def peak_memory() -> int:
    """Bytes of the largest resident set so far.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("this benchmark reads the peak memory from /proc, so it needs Linux")


def gemm_rate(dtype) -> float:
    """Flops a second of square matrix products, the best of several."""
    import torch

    a = torch.randn(_SIZE, _SIZE, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best


if __name__ == "__main__":
    main()
