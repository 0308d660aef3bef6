"""How time and memory of a scan grow: with layers, heads, dimensions and workers; and at 7B."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import flagscope
from benchmarks.estimates import estimated_scan
from benchmarks.measure import alternated, scanned
from benchmarks.models import gpt2, llama
from benchmarks.results import Results

_SHAPES = {
    "layers": [{"layers": n, "d": 512, "heads": 8} for n in (1, 2, 4, 8, 16, 32)],
    "heads": [{"layers": 2, "d": 1024, "heads": h} for h in (4, 8, 16, 32, 64)],
    "d": [{"layers": 2, "d": d, "heads": d // 64} for d in (256, 512, 1024, 2048)],
}
_WORKERS = (1, 2)


def growth(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """Small GPT-2-like models, one size changed at a time."""
    runs: dict[str, Callable[[], Mapping[str, float]]] = {}
    for what, shapes in _SHAPES.items():
        for shape in shapes[:2] if quick else shapes:
            smaller = shape | {"d": shape["d"] // 4} if quick else shape
            folder = gpt2(cache, **smaller)
            runs[f"{what} {shape[what]}"] = partial(scanned, folder, workers=1)
    middle = gpt2(cache, layers=8, d=128 if quick else 512, heads=8)
    for workers in _WORKERS:
        runs[f"workers {workers}"] = partial(scanned, middle, workers=workers)
    results.fact("growth", "shapes", _SHAPES)
    alternated(results, "growth", runs, repeats=repeats)


def large(
    results: Results, cache: Path, *, repeats: int, quick: bool, layers: Sequence[int]
) -> None:
    """The shape of Llama-7B, bfloat16, one shard a layer, scanned with the default workers."""
    shape = {"d": 256, "ff": 688, "heads": 8, "kv_heads": 8} if quick else {}
    runs: dict[str, Callable[[], Mapping[str, float]]] = {}
    for count in layers:
        folder = llama(cache, layers=count, **shape)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        results.fact("large", f"layers {count}, GB", size / 1e9)
        plan = flagscope.inspect(folder).tasks
        results.fact("large", f"layers {count}, TFLOP", sum(task.flops for task in plan) / 1e12)
        runs[f"layers {count}"] = partial(estimated_scan, folder)
    alternated(results, "large", runs, repeats=repeats)
