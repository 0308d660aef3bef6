"""What the same angles cost by the plain way: a loop of `subspace_angles`, and SVDs.

One thread, in a process of its own: more threads make these small decompositions slower (see
docs/performance.md). Where a loop would take minutes, a part of it is timed and extrapolated by
the number of pairs, which are all of one shape there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import subspace_angles
from torch import Tensor

import flagscope
from benchmarks.measure import alternated, in_process, peak_memory, scanned
from benchmarks.models import gpt2_small
from benchmarks.results import Results
from flagscope.arch import Graph
from flagscope.checkpoint import open_checkpoint

_ROLES = ("q", "k", "v", "o")
# Head pairs of the loop that are timed, of each role.
_SAMPLE = 200


def angles(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """The loop and the SVDs for the pairs of a scan; all pairs of heads by the loop and by ours."""
    folder = gpt2_small(cache, quick=quick)
    graph = flagscope.inspect(folder).graph
    heads = sum(group.count for group in graph.heads if group.space == "q")
    results.fact("angles", "heads", heads)
    results.fact("angles", "head pairs of four roles", 4 * comb(heads, 2))
    results.fact("angles", "head pairs timed", 4 * min(_SAMPLE, comb(heads, 2)))

    def run(what: str, threads: int | None) -> dict[str, float]:
        return in_process("angles", {"folder": str(folder), "what": what}, threads=threads)

    runs: dict[str, Callable[[], dict[str, float]]] = {
        "scan": partial(scanned, folder),
        "subspace_angles of the scan's pairs": partial(run, "pairs", 1),
        "svd of every matrix": partial(run, "svd", 1),
        "svd of every matrix, all threads": partial(run, "svd", None),
        "all pairs of heads, loop": partial(run, "head_loop", 1),
        "all pairs of heads, flagscope, one thread": partial(run, "heads", 1),
        "all pairs of heads, flagscope": partial(run, "heads", None),
    }
    alternated(results, "angles", runs, repeats=repeats, warm=["scan"])


def _worker(asked: dict[str, Any]) -> dict[str, float]:
    if asked["what"] == "heads":
        return _head_overlaps(asked["folder"])
    graph = flagscope.inspect(asked["folder"]).graph
    with open_checkpoint(asked["folder"]) as checkpoint:
        tensors = {name: checkpoint.read(name).float() for name in checkpoint.tensors}
    if asked["what"] == "pairs":
        return _pair_loop(graph, tensors)
    if asked["what"] == "svd":
        matrices = [t for n, t in tensors.items() if t.ndim == 2 and ".h." in n]
        return {"seconds": _timed(lambda: [torch.linalg.svd(m, full_matrices=False)
                                           for m in matrices])}  # fmt: skip
    return _head_loop(_heads(graph, tensors))


def _pair_loop(graph: Graph, tensors: dict[str, Tensor]) -> dict[str, float]:
    """Every pair of the scan: dominant spaces by one SVD of every map, then angles pair by pair.

    The loop is spared what a scan adds: no norm is folded in, so that a map needs one SVD only.
    """
    bases: dict[tuple[object, ...], NDArray[np.float32]] = {}
    pairs: list[tuple[tuple[object, ...], tuple[object, ...]]] = []
    decompositions = angles_alone = 0.0
    for group in graph.pairs:
        keys = []
        for which, side in (("write", group.write), ("read", group.read)):
            one = side.map
            name = (which, one.tensor, one.out, one.inp, repr(one.select), side.transposed)
            if (*name, 0) not in bases:
                stored = tensors[one.tensor]
                maps = (side.write(stored) if which == "write" else side.read(stored).mT).clone()
                start = time.perf_counter()
                for i, matrix in enumerate(maps):
                    bases[*name, i] = _dominant_basis(matrix)
                decompositions += time.perf_counter() - start
            keys.append(name)
        write, read = keys
        pairs += [((*write, m.write_index), (*read, m.read_index)) for m in group.members]
    start = time.perf_counter()
    for one, other in pairs:
        subspace_angles(bases[one], bases[other])
    angles_alone = time.perf_counter() - start
    return {
        "seconds": decompositions + angles_alone, "svd_seconds": decompositions,
        "angle_seconds": angles_alone, "maps": len(bases), "pairs": len(pairs),
    }  # fmt: skip


def _dominant_basis(matrix: Tensor) -> NDArray[np.float32]:
    """Left singular vectors up to the participation ratio."""
    u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
    square = s.square()
    rank = max(1, round(float(square.sum() ** 2 / square.square().sum())))
    return u[:, :rank].contiguous().numpy()


def _heads(graph: Graph, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The heads of all layers by role, shape (heads, r, d)."""
    found: dict[str, list[Tensor]] = {role: [] for role in _ROLES}
    for group in graph.heads:
        stored = tensors[group.map.tensor]
        found[group.space].append(
            group.map.write_matrices(stored).mT
            if group.space == "o"
            else group.map.read_matrices(stored)
        )
    return {role: torch.cat(maps) for role, maps in found.items()}


def _head_loop(maps: dict[str, Tensor]) -> dict[str, float]:
    seconds = 0.0
    for one in maps.values():
        columns = one.mT.contiguous().numpy()
        pairs = list(combinations(range(len(columns)), 2))
        step = max(1, len(pairs) // _SAMPLE)
        timed = pairs[::step][:_SAMPLE]

        def loop(columns=columns, timed=timed) -> None:
            for i, j in timed:
                np.square(np.cos(subspace_angles(columns[i], columns[j]))).sum()

        loop_seconds = _timed(loop)
        seconds += loop_seconds * len(pairs) / len(timed)
    return {"seconds": seconds}


def _head_overlaps(folder: str) -> dict[str, float]:
    """From the file to the calibrated tables of all four spaces."""
    flagscope.scan(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)))
    base = peak_memory()
    seconds = _timed(lambda: flagscope.head_overlaps(folder))
    return {"seconds": seconds, "peak_mb": (peak_memory() - base) / 2**20}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(_worker(json.loads(sys.argv[1]))))
