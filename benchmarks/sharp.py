"""Sharp scans next to full ones, in turn: time, memory, and the plain products behind them.

    python -m benchmarks.sharp shape --layers 1 --spectrum random --repeats 3
    python -m benchmarks.sharp agree CHECKPOINT…        # sketches forced, against a full scan
    python -m benchmarks.sharp cover --d 500 --seeds 500

`shape` writes layers of the 7B shape (4096, 11008, 32 heads) in bfloat16 to a temporary folder and
scans each in a process of its own. `cover` counts how often the intervals of `sketched_commutator`
hold the exact value.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor

import flagscope
from flagscope.diagnose import sharp_pairs
from flagscope.engine.plan import depth
from flagscope.geometry import gram, sketched_commutator
from flagscope.records import Depth, PairRecord

WIDTH, INNER, HEADS = 4096, 11008, 32
# Fields that a sharp scan computes without estimates.
EXACT = ("gram_correlation", "imbalance", "overlap_ratio", "participation_write")
COUNTS = ("rank_write", "rank_read", "effective_rank_write", "effective_rank_read", "status")


def layers_of_7b(folder: Path, layers: int, spectrum: str) -> Path:
    """Layers with random entries, or with the spectrum i^-0.3 or i^-0.5 in random bases."""
    generator = torch.Generator().manual_seed(0)

    def entries(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator)

    def weight(rows: int, columns: int) -> Tensor:
        if spectrum == "random":
            return (0.02 * entries(rows, columns)).bfloat16()
        n = min(rows, columns)
        left, right = (torch.linalg.qr(entries(size, n))[0] for size in (rows, columns))
        values = torch.arange(1, n + 1.0) ** -float(spectrum)
        return (0.0025 * (rows * columns) ** 0.5 * (left * values) @ right.T).bfloat16()

    state = {"model.embed_tokens.weight": entries(64, WIDTH).bfloat16()}
    for i in range(layers):
        block = f"model.layers.{i}."
        for name in ("q", "k", "v", "o"):
            state[f"{block}self_attn.{name}_proj.weight"] = weight(WIDTH, WIDTH)
        for name in ("gate", "up"):
            state[f"{block}mlp.{name}_proj.weight"] = weight(INNER, WIDTH)
        state[f"{block}mlp.down_proj.weight"] = weight(WIDTH, INNER)
        for name in ("input", "post_attention"):
            state[f"{block}{name}_layernorm.weight"] = 1 + 0.1 * entries(1, WIDTH)[0].bfloat16()
    state["model.norm.weight"] = torch.ones(WIDTH).bfloat16()
    save_file(state, folder / "model.safetensors")
    config = {
        "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "vocab_size": 64, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def plain_seconds(layers: int) -> float:
    """The Gram matrix of each map and W2 W1 of both pairs of each MLP, as plain products."""
    square, wide = torch.randn(WIDTH, WIDTH), torch.randn(WIDTH, INNER)
    begun = time.perf_counter()
    for _ in range(layers):
        for _ in range(4):
            gram(square)
        for _ in range(3):
            gram(wide)
        for _ in range(2):
            torch.mm(wide, wide.mT)
    return time.perf_counter() - begun


def measured_shape(layers: int, spectrum: str, repeats: int, depths: list[str]) -> None:
    """Scan the layers at each depth in turn, and print seconds, memory and their ratios."""
    with tempfile.TemporaryDirectory() as place:
        folder = layers_of_7b(Path(place), layers, spectrum)
        for repeat in range(repeats):
            seconds = {}
            for depth in depths:
                command = [sys.executable, "-m", "flagscope", "scan", str(folder), "--depth", depth]
                done = subprocess.run(
                    [*command, "--json", "-"], capture_output=True, text=True, check=True
                )
                run = json.loads(done.stdout)["run"]
                seconds[depth] = run["seconds"]
                print(f"{repeat} {spectrum} {layers} {depth}: {run['seconds']:.1f} s, "
                      f"{run['peak_rss_bytes'] / 1e9:.2f} GB")  # fmt: skip
            plain = plain_seconds(layers)
            print(f"{repeat} plain Gram matrices and products: {plain:.1f} s")
            if len(seconds) == 2:
                print(f"{repeat} full / sharp: {seconds['full'] / seconds['sharp']:.2f}; "
                      f"sharp / plain: {seconds['sharp'] / plain:.2f}", flush=True)  # fmt: skip


def agreement(source: str) -> None:
    """The largest differences of a sharp scan, sketches forced, from a full one."""

    def pairs(asked: Depth) -> dict[str, PairRecord]:
        report = flagscope.scan(source, depth=asked, only=("pairs", "residual"), edges=0)
        return {pair.name: pair for pair in report.result.pairs}

    known = pairs("full")
    # Of every size, sketches included.
    with patch.object(sharp_pairs, "PRODUCT_UP_TO", 0), patch.dict(depth._FROM, sharp=8):
        found = {name: pair for name, pair in pairs("sharp").items() if pair.depth == "sharp"}
    print(f"{source}: {len(found)} of {len(known)} pairs sharp")
    for field in EXACT:
        values = [(getattr(found[n], field), getattr(known[n], field)) for n in found]
        print(f"  {field}: {max((abs(a - b) for a, b in values if b is not None), default=0):.1e}")
    for field in COUNTS:
        wrong = [n for n in found if getattr(found[n], field) != getattr(known[n], field)]
        print(f"  {field}: {len(wrong)} differ {wrong[:3]}")
    for field in ("commutator_ratio", "commutation_defect"):
        off = [
            (getattr(pair, field), getattr(known[n], field), getattr(pair, f"{field}_error"))
            for n, pair in found.items() if getattr(pair, f"{field}_error") is not None
        ]  # fmt: skip
        if not off:
            print(f"  {field}: exact in all")
            continue
        relative = max(abs(a / b - 1) for a, b, _ in off)
        errors = max(abs(a - b) / e for a, b, e in off)
        print(f"  {field}: {len(off)} sketched, at most {relative:.2%} off, {errors:.1f} errors")


def pairs_to_cover(d: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs of trace-free Gram matrices of different kinds."""
    generator = torch.Generator().manual_seed(1)
    line = torch.arange(1, d + 1).double()

    def entries(columns: int) -> Tensor:
        return torch.randn(d, columns, generator=generator).double()

    def bulk() -> Tensor:
        w = entries(4 * d)
        return w @ w.T / (4 * d)

    def turned(values: Tensor, basis: Tensor | None = None) -> Tensor:
        q = torch.linalg.qr(entries(d))[0] if basis is None else basis
        return (q * values) @ q.T

    few, common = (line <= d // 8).double(), torch.linalg.qr(entries(d))[0]
    kinds: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "flat": lambda: (bulk(), bulk()),
        "decaying": lambda: (turned(line**-1.0), turned(line**-0.6)),
        "spiked": lambda: (turned(1 + 9 * (line <= 5)) + bulk(), turned(1 + 9 * (line <= 5))),
        "low rank": lambda: (turned(few), turned(few)),
        "near commuting": lambda: (
            turned(line**-0.5, common) + 1e-3 * bulk(), turned(line**-0.7, common) + 1e-3 * bulk(),
        ),
    }  # fmt: skip
    for name, make in kinds.items():
        a, b = (x - x.trace() / d * torch.eye(d).double() for x in make())
        yield name, a, b


def coverage(d: int, seeds: int) -> None:
    """How often 95 % intervals of C and ν hold the exact values, in float32."""
    for name, a, b in pairs_to_cover(d):
        product = a @ b
        commutator = float((product - product.T).square().sum())
        defect = commutator / (2 * float(product.square().sum()))
        one, two, hits = a.float(), b.float(), [0, 0]
        for seed in range(seeds):
            made = sketched_commutator(
                lambda x, one=one: one @ x, lambda x, two=two: two @ x, d,
                generator=torch.Generator().manual_seed(seed),
            )  # fmt: skip
            reach = float(stats.t.ppf(0.975, made.degrees)) if made.degrees else 1.96
            hits[0] += abs(made.commutator - commutator) <= reach * made.commutator_error
            hits[1] += abs(made.defect - defect) <= reach * made.defect_error
        shares = ", ".join(f"{hit / seeds:.1%}" for hit in hits)
        print(f"{name}: {shares} (± {1.96 * math.sqrt(0.05 * 0.95 / seeds):.1%})", flush=True)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["shape", "agree", "cover"])
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--spectrum", default="random", help="random, 0.3 or 0.5")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--depths", default="sharp,full")
    parser.add_argument("--d", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=500)
    options = parser.parse_args()
    if options.what == "shape":
        depths = options.depths.split(",")
        measured_shape(options.layers, options.spectrum, options.repeats, depths)
    elif options.what == "cover":
        coverage(options.d, options.seeds)
    for source in options.sources:
        agreement(source)


if __name__ == "__main__":
    main()
