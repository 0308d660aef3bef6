"""Scans of networks without alignment: how many claim something, and the sizes of every p-value.

`python -m benchmarks.null_scans --scans 300 --page docs/nulls.md` writes the table of the page.
With `--sharp` all but the smallest pairs are measured sharply, their commutators by sketches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from scipy import stats

import flagscope
from benchmarks.null_networks import NETWORKS, NullNetwork
from benchmarks.sharp_agreement import sketched_everywhere
from benchmarks.tables import replaced_between

LEVELS = (0.05, 0.01, 0.001)


def p_values(result: Any) -> Iterator[tuple[str, float]]:
    """Every p-value of a scan, with the name of its test."""
    for pair in result.pairs:
        if pair.p is not None:
            yield f"overlap, {pair.kind}", pair.p
        if pair.commutator_p is not None:
            sampled = ", sampled" if pair.commutator_ratio_error is not None else ""
            yield f"C, {pair.kind}{sampled}", pair.commutator_p
        if pair.gram_correlation_p is not None:
            yield f"ρ, {pair.kind}", pair.gram_correlation_p
        if pair.balanced is not None and pair.balanced.gram_correlation_z is not None:
            yield f"balanced ρ (z), {pair.kind}", _normal(pair.balanced.gram_correlation_z)
    for group in result.heads:
        if group.p is not None:
            yield f"R, {group.space}", group.p
        if group.shared_log10_p is not None:
            yield "shared direction", 10.0**group.shared_log10_p
    if len(result.edges) == result.edge_tests:
        for edge in result.edges:
            yield "link overlap", edge.p
            if edge.composition_log10_p is not None:
                yield "link composition", 10.0**edge.composition_log10_p


def _normal(z: float) -> float:
    return float(torch.special.erfc(torch.tensor(abs(z) / 2**0.5, dtype=torch.float64)))


def one_scan(network: NullNetwork, seed: int, *, sharp: bool = False) -> dict[str, Any]:
    """The claims of one scan and its p-values, those of each test counted by level."""
    torch.set_num_threads(1)
    state, config = network.draw(seed)
    with sketched_everywhere() if sharp else nullcontext():
        report = flagscope.scan(state, config=config, workers=1, depth="sharp" if sharp else "auto")
    result = report.result
    sizes: dict[str, list[int]] = {}
    for name, p in p_values(result):
        counts = sizes.setdefault(name, [0] * (len(LEVELS) + 1))
        counts[0] += 1
        for at, level in enumerate(LEVELS, 1):
            counts[at] += p <= level
    claims = [f.text for f in report.findings if f.severity in ("strong", "notable")]
    exact = sum((pair.intersection_exact or 0) > 0 for pair in result.pairs)
    return {"claims": claims, "exact": exact, "sizes": sizes, "failures": len(result.failures)}


def _work(job: tuple[int, int, bool]) -> dict[str, Any]:
    return one_scan(NETWORKS[job[0]], job[1], sharp=job[2])


def main() -> None:
    """Scan, and print or write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=300)
    parser.add_argument("--only", default="", help="part of the names of the networks to scan")
    parser.add_argument("--sharp", action="store_true", help="measure sharply, with sketches")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="a JSON file for the counts")
    parser.add_argument("--page", type=Path, help="a page with marks for the table")
    parser.add_argument("--counts", type=Path, help="take counts from a file that --out wrote")
    options = parser.parse_args()
    found = json.loads(options.counts.read_text()) if options.counts else scanned(options)
    if options.page:
        replaced_between(options.page, "scans", "benchmarks.null_scans", table(found))


def scanned(options: argparse.Namespace) -> dict[str, Any]:
    """The summary of each network."""
    found: dict[str, Any] = {}
    with ProcessPoolExecutor(options.workers) as pool:
        for at, network in enumerate(NETWORKS):
            if options.only not in network.name:
                continue
            begun = time.perf_counter()
            scans = min(options.scans, network.scans or options.scans)
            jobs = [(at, seed, options.sharp) for seed in range(scans)]
            rows = list(pool.map(_work, jobs, chunksize=4))
            found[network.name] = summary(rows)
            found[network.name]["seconds"] = round(time.perf_counter() - begun, 1)
            print(line(network.name, found[network.name]), flush=True)
            if options.out:
                options.out.write_text(json.dumps(found, indent=1, ensure_ascii=False))
    return found


STATED = "σ = 1/i"  # with a profile: outside of both nulls, and only stated


def table(found: dict[str, Any]) -> list[str]:
    """The lines of the page: each network, and all of them together."""
    lines = [
        "| network | scans | with a claim | with an exact intersection | "
        "overlap .05 / .01 / .001 | C | ρ | R |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        sizes = " | ".join(_sizes(one["sizes"], test) for test in ("overlap", "C", "ρ", "R"))
        lines.append(
            f"| {name} | {one['scans']} | {one['with a claim']} | "
            f"{one['with an exact intersection']} | {sizes} |"
        )
    kept = [one for name, one in found.items() if not ("profile" in name and name.endswith(STATED))]
    scans, claims = (sum(one[key] for one in kept) for key in ("scans", "with a claim"))
    high = float(stats.beta.ppf(0.975, claims + 1, scans - claims))
    lines += [
        "",
        f"All but the one with a profile *and* σ = 1/i: {claims} of {scans:,} scans claim "
        f"something, {claims / scans:.1%}, upper 95 % end {high:.1%}.",
    ]
    return lines


def _sizes(sizes: dict[str, list[int]], test: str) -> str:
    """Sizes of a test at the three levels, over every kind of pair or space."""
    counts = [value for name, value in sizes.items() if name.split(",")[0] == test]
    if not counts:
        return "–"
    total = [sum(column) for column in zip(*counts, strict=True)]
    return " / ".join(f"{value / total[0]:.3g}" for value in total[1:])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Scans with a claim, examples of claims, and the sizes of each test."""
    sizes: dict[str, list[int]] = {}
    for row in rows:
        for name, counts in row["sizes"].items():
            total = sizes.setdefault(name, [0] * len(counts))
            sizes[name] = [a + b for a, b in zip(total, counts, strict=True)]
    texts = Counter(text for row in rows for text in row["claims"])
    return {
        "scans": len(rows),
        "with a claim": sum(bool(row["claims"]) for row in rows),
        "with an exact intersection": sum(row["exact"] > 0 for row in rows),
        "failures": sum(row["failures"] for row in rows),
        "examples": [text for text, _ in texts.most_common(5)],
        "sizes": sizes,
    }


def line(name: str, found: dict[str, Any]) -> str:
    """One network in words, the tests whose size is furthest above nominal behind it."""
    worst = sorted(
        (
            (counts[at + 1] / counts[0] / level, test, level, counts[0])
            for test, counts in found["sizes"].items()
            for at, level in enumerate(LEVELS)
            if counts[0] * level >= 3
        ),
        reverse=True,
    )[:4]
    told = "; ".join(f"{test} {ratio:.2f} × {level} (n {n})" for ratio, test, level, n in worst)
    return (
        f"{name}: {found['with a claim']} of {found['scans']} claim, "
        f"{found['with an exact intersection']} exact, {found['failures']} failures, "
        f"{found['seconds']} s. {told}"
    )


if __name__ == "__main__":
    main()
