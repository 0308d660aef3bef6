"""Adapters against each other, and a merge replayed: time by width, and next to a plain product.

python -m benchmarks.adapters pair      # widths 640 … 16,384 at fixed d·r²
python -m benchmarks.adapters replay    # one bfloat16 tensor, next to one product of its factors
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from flagscope.checkpoint import from_state_dict
from flagscope.checkpoint.lora import AdapterWeights, read_adapter
from flagscope.comparison.adapters.pair import compared_adapters
from flagscope.comparison.adapters.replay import replayed_merge

WIDTHS = (640, 1600, 4096, 16_384)
# Ranks at the largest width, which fix d·r² of all.
RANKS = (64, 16)


def adapter(folder: Path, width: int, rank: int, seed: int) -> AdapterWeights:
    """An adapter of one square module with random factors."""
    generator = torch.Generator().manual_seed(seed)
    folder.mkdir()
    b, a = (torch.randn(*shape, generator=generator) for shape in ((width, rank), (rank, width)))
    start = "base_model.model.m.q"
    factors = {f"{start}.lora_A.weight": a / math.sqrt(width), f"{start}.lora_B.weight": 0.02 * b}
    save_file(factors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return read_adapter(folder)


def best(act: Callable[[], object], repeats: int) -> float:
    """Least time of several, in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return min(times)


def pair(repeats: int, last: int) -> None:
    """Time of a pair by width, as a ratio to the least; `last` is the rank at the largest width."""
    seconds = {}
    for width in WIDTHS:
        rank = round(last * math.sqrt(WIDTHS[-1] / width))
        with tempfile.TemporaryDirectory() as folder:
            sides = [adapter(Path(folder, str(k)), width, rank, k) for k in (0, 1)]
            seconds[width, rank] = best(lambda s=sides: compared_adapters(*s), repeats)
    least = min(seconds.values())
    for (width, rank), taken in seconds.items():
        print(
            f"d {width:6d}  r {rank:3d}  {1e3 * taken:8.2f} ms  {taken / least:5.2f} of the least"
        )


def replay(repeats: int, width: int = 4096, rank: int = 16) -> None:
    """Time of a replay of one tensor, and of one float32 product of its factors added to it."""
    base = (0.02 * torch.randn(width, width)).bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        weights = adapter(Path(folder, "a"), width, rank, 0)
        left, right = (factor.float() for factor in weights.matrices("m.q"))
        merged = base + 2 * (left @ right)
        plain = best(lambda: base + 2 * (left @ right), repeats)
        given = from_state_dict({"m.q.weight": base})
        made = from_state_dict({"m.q.weight": merged.bfloat16()})
        taken = best(lambda: replayed_merge(given, made, weights), repeats)
    print(f"replay of {width} × {width}, rank {rank}: {taken:.2f} s, a plain merge {plain:.3f} s")


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pair", "replay"])
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    if given.what == "replay":
        replay(given.repeats)
        return
    for last in RANKS:
        pair(given.repeats, last)


if __name__ == "__main__":
    main()
