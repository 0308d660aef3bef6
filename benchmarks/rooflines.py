"""What the machine can do: matrix products, symmetric eigenproblems, reading from disk."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks.measure import in_process
from benchmarks.models import gpt2_small
from benchmarks.results import Results

_BLOCK = 1 << 24
_TYPES = {"float32": torch.float32, "float64": torch.float64}


def rooflines(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """Rates of plain calls with all threads, and of reading a file cold and warm."""
    folder = gpt2_small(cache, quick=quick)
    file = str(folder / "model.safetensors")
    products = [256, 512] if quick else [512, 1024, 2048, 4096]
    systems = [128, 256] if quick else [768, 2048, 4096]
    for i in range(repeats):
        if results.count("rooflines", "disk") > i:
            continue
        asked = {"products": products, "systems": systems, "file": file}
        results.append("rooflines", in_process("rooflines", asked))
        print(f"  rooflines {i + 1}/{repeats}", file=sys.stderr)


def _measured(asked: dict) -> dict[str, float]:
    found = {}
    for name, dtype in _TYPES.items():
        for n in asked["products"]:
            found[f"product {n} {name}, GFLOP/s"] = _product_rate(n, dtype) / 1e9
        for n in asked["systems"]:
            found[f"eigh {n} {name}, s"] = _seconds(_gram(n, dtype), torch.linalg.eigh)
            found[f"eigvalsh {n} {name}, s"] = _seconds(_gram(n, dtype), torch.linalg.eigvalsh)
    cold, warm = _read_rates(asked["file"])
    return found | {"disk, cold, MB/s": cold / 1e6, "disk, warm, MB/s": warm / 1e6}


def _product_rate(n: int, dtype: torch.dtype) -> float:
    a = torch.randn(n, n, dtype=dtype)
    times = max(1, int(2e10 / (2 * n**3)))
    a @ a
    start = time.perf_counter()
    for _ in range(times):
        a @ a
    return 2 * n**3 * times / (time.perf_counter() - start)


def _gram(n: int, dtype: torch.dtype) -> torch.Tensor:
    maps = torch.randn(n, 2 * n, dtype=dtype)
    return maps @ maps.mT


def _seconds(a: torch.Tensor, call) -> float:
    call(a[:64, :64])
    start = time.perf_counter()
    call(a)
    return time.perf_counter() - start


def _read_rates(file: str) -> tuple[float, float]:
    """Bytes a second after the file was dropped from the cache, and when it is there.

    Dropping is a wish that the kernel fulfils for clean pages. A disk of a virtual machine may
    have a cache of its own beneath.
    """
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        return _read_rate(handle), _read_rate(handle)
    finally:
        os.close(handle)


def _read_rate(handle: int) -> float:
    buffer = memoryview(bytearray(_BLOCK))
    total, at = 0, time.perf_counter()
    os.lseek(handle, 0, os.SEEK_SET)
    while got := os.readv(handle, [buffer]):
        total += got
    return total / (time.perf_counter() - at)


if __name__ == "__main__":
    print(json.dumps(_measured(json.loads(sys.argv[1]))))
