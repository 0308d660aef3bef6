"""What `flagscope track` says of the heads of random weights, and what heads and health cost.

    python -m benchmarks.series_heads null   # series of random GPT-2s, through `flagscope.track`
    python -m benchmarks.series_heads cost   # a step of the bundled training, in turn

Null: series of three steps with independent weights, of layers with few and with more dimensions.
Cost: the scan of a step with and without heads and health, by CPU time of this process.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

import flagscope
from flagscope.demo import checkpoints
from flagscope.lab.gpt import GPTShape, initial_state
from flagscope.records import Part

SERIES, STEPS, ROUNDS = 40, 3, 15
SIZES = ((8, 4), (16, 4), (48, 4), (96, 6))  # width, heads
PARTS: dict[str, tuple[Part, ...]] = {
    "pairs": ("pairs",),
    "pairs, heads": ("pairs", "heads"),
    "pairs, health": ("pairs", "health"),
    "all three": ("pairs", "heads", "health"),
}


def null() -> None:
    """Counts of values outside of what chance gives, and of series with a claim."""
    for width, heads in SIZES:
        shape = GPTShape(vocab_size=11, n_layer=4, n_head=heads, n_embd=width, n_positions=8)
        counts: Counter[str] = Counter()
        for seed in range(SERIES):
            with tempfile.TemporaryDirectory() as folder:
                draws = torch.Generator().manual_seed(seed)
                for step in range(STEPS):
                    save_file(
                        initial_state(shape, draws), Path(folder) / f"step-{step}.safetensors"
                    )
                (Path(folder) / "config.json").write_text(json.dumps(shape.config()))
                found = flagscope.track(folder, only="heads").result
            counts["series"] += 1
            counts["with near-copies"] += any(one.of == "near_copies" for one in found.onsets)
            for curve in found.curves:
                for value, low, high in zip(curve.values, curve.low, curve.high, strict=True):
                    if value is not None and low is not None and high is not None:
                        counts[f"{curve.observable}, values"] += 1
                        counts[f"{curve.observable}, outside"] += not low <= value <= high
        print(width, heads, dict(counts))


def cost() -> None:
    """CPU seconds of one step by the parts that are measured."""
    seconds: dict[str, list[float]] = {name: [] for name in PARTS}
    for place in range(ROUNDS + 1):
        for name in list(PARTS) if place % 2 else list(PARTS)[::-1]:
            start = time.process_time()
            flagscope.scan(checkpoints()[-1], only=PARTS[name], edges=0, progress=False, workers=1)
            if place:
                seconds[name].append(time.process_time() - start)
    for name, some in seconds.items():
        shares = [a / b for a, b in zip(some, seconds["pairs"], strict=True)]
        low, *_, high = sorted(shares)
        print(f"{name}: median {median(some):.3f} s ({min(some):.3f} to {max(some):.3f}), "
              f"over pairs alone {median(shares):.3f} ({low:.3f} to {high:.3f})")  # fmt: skip


if __name__ == "__main__":
    {"null": null, "cost": cost}[sys.argv[1]]()
