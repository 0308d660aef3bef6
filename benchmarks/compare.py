"""A comparison of two checkpoints, and its part of what moved, next to a scan of one and to PEFT.

    python -m benchmarks.compare minilm FOLDER      # all-MiniLM-L6-v2 and a copy with 5 % noise
    python -m benchmarks.compare gpt2               # GPT2Config() with random weights
    python -m benchmarks.compare 7b --layers 1      # layers of the 7B shape in bfloat16

Each is a process of its own, in turn. `peft` is what its search for intruder dimensions takes on
one map, the first square one: the decompositions of W and W + ΔW in float32.
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


def whole(a: Path, b: Path) -> None:
    """All parts of a comparison, with the defaults."""
    import flagscope

    flagscope.compare(a, b)


def scanned(a: Path) -> None:
    """A scan with the defaults."""
    import flagscope

    flagscope.scan(a)


def decomposed(a: Path, b: Path) -> None:
    """PEFT's decompositions of one map on both sides."""
    sides = [load_file(folder / "model.safetensors") for folder in (a, b)]
    name = next(key for key, w in sides[0].items() if w.ndim == 2 and w.shape[0] == w.shape[1])
    base, merged = (torch.linalg.svd(side[name].float(), full_matrices=False)[0] for side in sides)
    (merged.T @ base).abs().max(dim=1)


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
    parser.add_argument("--spectrum", default="random", help="random, or p of values i^-p (7b)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if options.what == "minilm":
            a = options.folder
        elif options.what == "gpt2":
            a = gpt2_small(work)
        else:
            (work / "a").mkdir()
            a = layers_of_7b(work / "a", options.layers, options.spectrum)
        b = noisy_copy(a, work / "b")
        for name, task, paths in (
            ("compare", whole, (a, b)),
            ("change alone", compared, (a, b)),
            ("scan of one", scanned, (a,)),
            ("peft, one map", decomposed, (a, b)),
        ):
            print(json.dumps({name: measured(task, *paths)}), flush=True)


if __name__ == "__main__":
    main()
