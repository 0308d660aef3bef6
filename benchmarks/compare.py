"""What moved between two checkpoints next to a scan of one: time and memory, each by itself.

    python -m benchmarks.compare minilm FOLDER      # all-MiniLM-L6-v2 and a copy with 5 % noise
    python -m benchmarks.compare gpt2               # GPT2Config() with random weights
    python -m benchmarks.compare 7b --layers 1      # layers of the 7B shape in bfloat16

Seconds are those of the process's own cores, which a busy machine does not lengthen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.measure import peak_memory
from benchmarks.models import gpt2_small
from benchmarks.sharp import layers_of_7b


def noisy_copy(source: Path, target: Path, *, size: float = 0.05) -> Path:
    """A copy of a checkpoint of one file, its matrices moved by a share of their spread."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "config.json", target)
    generator = torch.Generator().manual_seed(1)
    state = load_file(source / "model.safetensors")
    for name, value in state.items():
        if value.ndim == 2 and value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            state[name] = (value.float() + size * value.float().std() * noise).to(value.dtype)
    save_file(state, target / "model.safetensors", metadata={"format": "pt"})
    return target


def compared(a: Path, b: Path) -> None:
    """What moved, as the command does it."""
    from flagscope.api.source import checked_settings, mapped, opened
    from flagscope.comparison.change.changed_maps import changed_maps

    sides = []
    for source in (a, b):
        checkpoint = opened(source, config=None, revision=None, base=None)
        sides.append(mapped(checkpoint, checked_settings(), source, None))
    (of_a, graph_a), (of_b, graph_b) = sides
    changed_maps(of_a, of_b, graph_a, graph_b)


def scanned(a: Path) -> None:
    """A scan with the defaults."""
    import flagscope

    flagscope.scan(a, workers=1, store=None)


def measured(task: Callable[..., None], *paths: Path) -> dict[str, float]:
    """Seconds of the cores and peak memory of a task in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measured, (task, paths))


def _measured(task: Callable[..., None], paths: tuple[Path, ...]) -> dict[str, float]:
    wall, cores = time.perf_counter(), time.process_time()
    task(*paths)
    return {
        "core_seconds": round(time.process_time() - cores, 2),
        "wall_seconds": round(time.perf_counter() - wall, 2),
        "peak_gb": round(peak_memory() / 1e9, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("minilm", "gpt2", "7b"))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--no-scan", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if options.what == "minilm":
            a = options.folder
        elif options.what == "gpt2":
            a = gpt2_small(work)
        else:
            (work / "a").mkdir()
            a = layers_of_7b(work / "a", options.layers, "0.3")
        b = noisy_copy(a, work / "b")
        print(json.dumps({"compare": measured(compared, a, b)}))
        if not options.no_scan:
            print(json.dumps({"scan": measured(scanned, a)}))


if __name__ == "__main__":
    main()
