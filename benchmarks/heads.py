"""All pairs of heads of a model: time beside scipy's loop over pairs and batched SVDs, and memory.

Run as `python benchmarks/heads.py [--repeats 5] [--large]`. The first model has 12 layers of 12
heads of 64 in 768 dimensions (GPT-2 small), random, in float32: 144 heads and 10,296 pairs in each
of the four spaces q, k, v, o. All ways start from the same maps in memory:

ours    from the maps to the four tables, calibrated, as `flagscope.head_overlaps` does it
angles  `scipy.linalg.subspace_angles` for each pair with one BLAS thread, which is its fastest: a
        random sample of pairs is timed, and extrapolated to all of them
svd     one QR decomposition a head, then the singular values of all products Q_iᵀ Q_j in batches

Memory is that of a process of its own that reads a checkpoint from disk. With --large also that of
32 layers of 32 heads of 128 in 4096 dimensions, 8 key-value heads (Llama-8B's attention), in
bfloat16, under two bounds on memory.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

SMALL = {"layers": 12, "heads": 12, "shared": 12, "rank": 64, "d": 768, "dtype": "float32"}
LARGE = {"layers": 32, "heads": 32, "shared": 8, "rank": 128, "d": 4096, "dtype": "bfloat16"}
_SAMPLE = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="also Llama-8B's attention")
    parser.add_argument("--large-repeats", type=int, default=1)
    parser.add_argument("--only-large", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=float, nargs="+", default=[3e9, 1.5e9])
    parser.add_argument("--spaces", default="qkvo", help="of Llama-8B's attention")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        print(json.dumps(in_own_process(*arguments.process)))
        return
    if not arguments.only_large:
        side_by_side(arguments.repeats)
        with tempfile.TemporaryDirectory() as folder:
            write_attention(Path(folder), **SMALL)
            report_process("144 heads of 64 in 768", folder, 3e9, "qkvo", arguments.repeats)
    if arguments.large or arguments.only_large:
        with tempfile.TemporaryDirectory() as folder:
            write_attention(Path(folder), **LARGE)
            for memory in arguments.memory:
                title = f"1024 heads (256 shared) of 128 in 4096, memory {memory / 1e9:g} GB"
                report_process(title, folder, memory, arguments.spaces, arguments.large_repeats)


def side_by_side(repeats: int) -> None:
    """Time of the three ways in one process, one after the other in each round."""
    import torch

    maps = random_heads(**SMALL)
    rounds = [
        {"ours": timed(lambda: ours(maps)), "svd": timed(lambda: batched_svd(maps)),
         "angles": angle_loop(maps, seed)}
        for seed in range(repeats + 1)
    ][1:]  # fmt: skip
    heads = SMALL["layers"] * SMALL["heads"]
    pairs = heads * (heads - 1) // 2
    print(
        f"4 x {pairs:,} pairs of {heads} heads, {torch.get_num_threads()} threads, "
        f"{repeats} rounds: median [range]"
    )
    show("ours", [one["ours"] for one in rounds], "s")
    show("svd", [one["svd"] for one in rounds], "s, QR and batched svdvals")
    text = f"s, subspace_angles, 1 thread, extrapolated from {_SAMPLE} pairs a round"
    show("angles", [4 * pairs * one["angles"] for one in rounds], text)
    show("", [one["svd"] / one["ours"] for one in rounds], "svd / ours")
    show("", [4 * pairs * one["angles"] / one["ours"] for one in rounds], "angles / ours")


def show(name: str, values: list[float], text: str) -> None:
    print(
        f"{name:>7} {statistics.median(values):9.2f} "
        f"{f'[{min(values):.2f}, {max(values):.2f}]':>20}  {text}"
    )


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def random_heads(*, layers, heads, shared, rank, d, dtype) -> dict:
    """State dict of the attention of a Llama: as named there, nothing else."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = {"q": heads, "k": shared, "v": shared, "o": heads}
    state = {}
    for layer in range(layers):
        for role, count in rows.items():
            w = torch.randn(count * rank, d, generator=generator).mul_(0.02)
            w = w.T.contiguous() if role == "o" else w
            name = f"model.layers.{layer}.self_attn.{role}_proj.weight"
            state[name] = w.to(getattr(torch, dtype))
    return state


def config_of(*, layers, heads, shared, rank, d, dtype) -> dict:
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": d,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": shared,
        "head_dim": rank, "intermediate_size": 4 * d, "vocab_size": 32, "torch_dtype": dtype,
    }  # fmt: skip


def write_attention(folder: Path, **shape) -> None:
    from safetensors.torch import save_file

    save_file(random_heads(**shape), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_of(**shape)))


def ours(maps: dict) -> None:
    import flagscope

    found = flagscope.head_overlaps(maps, config=config_of(**SMALL))
    if [len(space.measured) for space in found.spaces] != [144] * 4:
        raise SystemExit("not all heads were measured")


def head_rows(maps: dict) -> list:
    """The heads of each space, shape (H, r, d)."""
    import torch

    rank, d = SMALL["rank"], SMALL["d"]
    spaces = []
    for role in "qkvo":
        layers = [w for name, w in maps.items() if f".{role}_proj." in name]
        rows = [w.T if role == "o" else w for w in layers]
        spaces.append(torch.cat(rows).reshape(-1, rank, d))
    return spaces


def batched_svd(maps: dict) -> None:
    """QR once a head, then svdvals of all products with each head."""
    import torch

    for heads in head_rows(maps):
        q = torch.linalg.qr(heads.mT).Q
        for i in range(len(q) - 1):
            torch.linalg.svdvals(q[i].mT @ q[i + 1 :]).square().sum(-1)


def angle_loop(maps: dict, seed: int) -> float:
    """Seconds a pair."""
    import numpy as np
    from scipy.linalg import subspace_angles
    from threadpoolctl import threadpool_limits

    draw = random.Random(seed)
    spaces = [heads.mT.numpy() for heads in head_rows(maps)]
    sample = []
    for _ in range(_SAMPLE):
        heads = draw.choice(spaces)
        i, j = draw.sample(range(len(heads)), 2)
        sample.append((heads[i], heads[j]))
    with threadpool_limits(1):
        start = time.perf_counter()
        for one, two in sample:
            (np.cos(subspace_angles(one, two)) ** 2).sum()
        return (time.perf_counter() - start) / _SAMPLE


def report_process(title: str, folder: str, memory: float, spaces: str, repeats: int) -> None:
    command = [sys.executable, __file__, "--process", folder, str(memory), spaces]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{title}, spaces {spaces}, from disk, runs: {repeats}: median [range]")
    show("time", [run["seconds"] for run in runs], "s")
    show("peak", [run["peak"] for run in runs], "MB beyond the imports, pages of the file included")
    show("held", [run["held"] for run in runs], "MB without them, which the system can take back")


def in_own_process(folder: str, memory: str, spaces: str) -> dict[str, float]:
    import flagscope

    # Whatever a first call imports is not counted.
    tiny = {"layers": 1, "heads": 2, "shared": 2, "rank": 2, "d": 8, "dtype": "float32"}
    flagscope.head_overlaps(random_heads(**tiny), config=config_of(**tiny))
    base = {name: memory_of(name) for name in ("VmHWM", "RssAnon")}
    held = [base["RssAnon"]]
    done = threading.Event()
    watcher = threading.Thread(target=watch, args=(held, done))
    watcher.start()
    start = time.perf_counter()
    flagscope.head_overlaps(folder, memory=float(memory), spaces=tuple(spaces))
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {
        "seconds": seconds,
        "peak": (memory_of("VmHWM") - base["VmHWM"]) / 1e6,
        "held": (max(held) - base["RssAnon"]) / 1e6,
    }


def watch(held: list[int], done: threading.Event) -> None:
    while not done.wait(0.005):
        held.append(memory_of("RssAnon"))


def memory_of(name: str) -> int:
    """Bytes: VmHWM is the largest resident set so far, RssAnon that without pages of files, now.

    Not `ru_maxrss`, which a process inherits from the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise SystemExit("this benchmark reads the memory of a process from /proc, so it needs Linux")


if __name__ == "__main__":
    main()
