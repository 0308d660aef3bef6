"""Sharp scans next to full ones, in turn: time, memory, and the plain products behind them.

    python -m benchmarks.sharp shape --layers 1 --spectrum random --repeats 3
    python -m benchmarks.sharp agree CHECKPOINT…        # sketches forced, against a full scan
    python -m benchmarks.sharp cover CHECKPOINT… --sizes 300,500 --seeds 500

`shape` writes layers of the 7B shape (4096, 11008, 32 heads) in bfloat16 to a temporary folder and
scans each in a process of its own. `cover` counts how often intervals of sketched commutators hold
the exact values, of drawn pairs and of pairs of the checkpoints.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.sharp_agreement import print_agreement
from benchmarks.sketch_coverage import measured_coverage
from flagscope.geometry import gram

WIDTH, INNER, HEADS = 4096, 11008, 32


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


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["shape", "agree", "cover"])
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--spectrum", default="random", help="random, 0.3 or 0.5")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--depths", default="sharp,full")
    parser.add_argument("--sizes", default="300,500", help="of the spaces of drawn pairs")
    parser.add_argument("--seeds", type=int, default=500)
    options = parser.parse_intermixed_args()
    if options.what == "shape":
        depths = options.depths.split(",")
        measured_shape(options.layers, options.spectrum, options.repeats, depths)
    elif options.what == "cover":
        sizes = [int(size) for size in options.sizes.split(",") if size]
        measured_coverage(sizes, options.seeds, options.sources)
    else:
        for source in options.sources:
            print_agreement(source)


if __name__ == "__main__":
    main()
