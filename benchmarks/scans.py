"""A scan of GPT-2-small-size weights beside its own minimal work, and beside WeightWatcher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import flagscope
from benchmarks.measure import alternated, in_process, scanned
from benchmarks.minimal_work import listing, minimal_work
from benchmarks.models import gpt2_small
from benchmarks.peers.environment import WEIGHTWATCHER, peer_python
from benchmarks.results import Results

_WORKER = "benchmarks/peers/weightwatcher_worker.py"
# Modules of one block and the first of the next, so that the pairs made of neighbours are one of
# each kind that a block has: numbers by which WeightWatcher knows them, in its own order.
_ONE_BLOCK = [0, 1, 4, 5, 6]
_PAIRS_OF_ONE_BLOCK = 4


def own(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """Scan and minimal work in one process, a fresh one each time."""
    folder = gpt2_small(cache, quick=quick)
    found = flagscope.inspect(folder)
    for precision in ("mixed", "float64"):
        work = minimal_work(found, precision=precision)
        results.fact("scan", f"minimal work, {precision}", listing(work))
    results.fact("scan", "plan_gflop", sum(task.flops for task in found.tasks) / 1e9)
    results.fact("scan", "parameters", found.parameters)
    results.fact("scan", "pairs", sum(len(pair.members) for pair in found.graph.pairs))
    runs = {
        precision: partial(scanned, folder, precision=precision, minimal=True)
        for precision in ("mixed", "float64")
    }
    alternated(results, "scan", runs, repeats=repeats)


def peers(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """WeightWatcher, the scan and its minimal work in turn, on one file."""
    folder = gpt2_small(cache, quick=quick)
    python = peer_python(cache, "weightwatcher", WEIGHTWATCHER)
    results.fact("peers", "weightwatcher", list(WEIGHTWATCHER))

    def analyze(threads: int | None) -> Mapping[str, float]:
        asked = {"folder": str(folder), "intra": False, "layers": []}
        return in_process(_WORKER, asked, threads=threads, python=python)

    runs = {
        "scan": partial(scanned, folder, minimal=True),
        "analyze, one thread": partial(analyze, 1),
        "analyze, default threads": partial(analyze, None),
    }
    alternated(results, "peers", runs, repeats=repeats, warm=["scan"])


def intra(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """`analyze(intra=True)` on the modules of one block, and what that makes for the whole model.

    WeightWatcher pairs each module with the next in the order of their names. Of one block and the
    first module of the next it makes four pairs, one of each kind; the model has as many times
    that as it has pairs.
    """
    folder = gpt2_small(cache, quick=quick)
    python = peer_python(cache, "weightwatcher", WEIGHTWATCHER)
    pairs = 4 * (2 if quick else 12)  # of 4 modules a block and the table of positions
    results.fact("intra", "pairs in all", pairs)
    results.fact("intra", "pairs measured", _PAIRS_OF_ONE_BLOCK)

    def one_block(threads: int | None) -> Mapping[str, float]:
        asked = {"folder": str(folder), "intra": True, "layers": _ONE_BLOCK}
        found = in_process(_WORKER, asked, threads=threads, python=python)
        whole = found["seconds"] * pairs / found["rows"]
        return found | {"seconds_of_all": whole}

    runs = {
        "scan": partial(scanned, folder),
        "intra, one thread": partial(one_block, 1),
        "intra, default threads": partial(one_block, None),
    }
    alternated(results, "intra", runs, repeats=repeats, warm=["scan"])
