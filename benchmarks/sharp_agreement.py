"""Sharp scans of trained networks, every space sketched, against full ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import flagscope
from flagscope.diagnose import sharp_pairs
from flagscope.engine.plan import depth
from flagscope.records import Depth, PairRecord
from flagscope.records.pairs import ArraySummary

# What a sharp scan computes without estimates, to 1e-5; of leading spaces, to 1e-4.
EXACT = ("gram_correlation", "imbalance", "overlap_ratio", "flag_defect")
RELATIVE = ("participation_write", "participation_read")
COUNTS = (
    "rank_write", "rank_read", "effective_rank_write", "effective_rank_read", "dominant",
    "intersection_exact", "intersection_beyond_chance", "status",
)  # fmt: skip
LARGE = 256  # dimensions beyond which pairs are sharp where nothing is forced
ESTIMATES = ("commutator_ratio", "commutation_defect")

Both = list[tuple[PairRecord, PairRecord]]


@contextmanager
def sketched_everywhere() -> Iterator[None]:
    """Sharp scans are sharp beyond 8 dimensions, and form no product of Gram matrices."""
    with patch.object(sharp_pairs, "PRODUCT_UP_TO", 0), patch.dict(depth._FROM, sharp=8):
        yield


def print_agreement(source: str) -> None:
    """Print the largest differences of a sharp scan from a full one."""

    def pairs(asked: Depth) -> dict[str, PairRecord]:
        report = flagscope.scan(source, depth=asked, only=("pairs", "residual"), edges=0, workers=1)
        return {pair.name: pair for pair in report.result.pairs}

    known = pairs("full")
    with sketched_everywhere():
        found = pairs("sharp")
    both = [(pair, known[name]) for name, pair in found.items() if pair.depth == "sharp"]
    print(f"{source}: {len(both)} of {len(known)} pairs sharp")
    for line in (*_exact(both), *_estimates(both), *_effects(both), *_p_values(both)):
        print(f"  {line}", flush=True)
    large = [(one, two) for one, two in both if one.d > LARGE]
    print(f"  of those with more than {LARGE} dimensions, {len(large)}:")
    for line in _p_values(large):
        print(f"    {line}")
    for one, two in large:
        if one.commutator_ratio_error is not None:
            print(
                f"    {one.name}, d {one.d}: C {one.commutator_ratio:.4f} ± "
                f"{one.commutator_ratio_error:.4f} for {two.commutator_ratio:.4f}, p "
                f"{one.commutator_p:.1e} for {two.commutator_p:.1e}"
            )


def _exact(both: Both) -> Iterator[str]:
    for name in (*EXACT, *RELATIVE):
        values = [(getattr(one, name), getattr(two, name)) for one, two in both]
        lost = sum((one is None) != (two is None) for one, two in values)
        gaps = [
            abs(one - two) / (two if name in RELATIVE else 1)
            for one, two in values if None not in (one, two)
        ]  # fmt: skip
        yield f"{name}: {max(gaps, default=0):.1e} at most, null in one alone: {lost}"
    gaps = [
        abs(x - y)
        for one, two in both
        for x, y in zip(_values(one.cosines), _values(two.cosines), strict=True)
    ]
    yield f"cosines of leading spaces: {max(gaps, default=0):.1e} at most, of {len(gaps)}"
    for name in COUNTS:
        wrong = [one.name for one, two in both if getattr(one, name) != getattr(two, name)]
        yield f"{name}: {len(wrong)} differ {wrong[:3]}"


def _values(cosines: list[float] | ArraySummary | None) -> list[float]:
    return cosines.top if isinstance(cosines, ArraySummary) else cosines or []


def _estimates(both: Both) -> Iterator[str]:
    for name in ESTIMATES:
        estimated = [
            (getattr(one, name), getattr(two, name), error)
            for one, two in both
            if (error := getattr(one, f"{name}_error")) is not None
        ]
        whole = [
            abs(getattr(one, name) / getattr(two, name) - 1)
            for one, two in both
            if getattr(one, f"{name}_error") is None and getattr(two, name)
        ]
        yield (
            f"{name}: {len(estimated)} sampled, at most "
            f"{max((abs(one / two - 1) for one, two, _ in estimated), default=0):.2%} and "
            f"{max((abs(one - two) / error for one, two, error in estimated), default=0):.1f} "
            f"standard errors off; {len(whole)} of all directions, {max(whole, default=0):.1e} off"
        )


def _effects(both: Both) -> Iterator[str]:
    """The sizes of effects: |ln| of ratios, atanh of correlations."""
    sizes: dict[str, Callable[[float], float]] = {
        "commutator_ratio": _log, "overlap_ratio": _log,
        "gram_correlation": lambda rho: math.atanh(min(abs(rho), 1 - 1e-12)),
    }  # fmt: skip
    for name, size in sizes.items():
        values = [(getattr(one, name), getattr(two, name)) for one, two in both]
        gaps = [abs(size(one) - size(two)) for one, two in values if None not in (one, two)]
        yield f"effect of {name}: {max(gaps, default=0):.1e} at most"


def _log(ratio: float) -> float:
    return abs(math.log(max(ratio, 1e-12)))


def _p_values(both: Both) -> Iterator[str]:
    """Raw p-values, as logarithms to the base of 10."""

    def log10(p: float | None) -> float | None:
        return None if p is None else math.log10(max(p, 1e-300))

    tests: dict[str, Callable[[PairRecord], float | None]] = {
        "ρ": lambda pair: log10(pair.gram_correlation_p),
        "the overlap of dominant spaces": lambda pair: (
            None if pair.overlap_test is None else pair.overlap_test.dominant_log10_p
        ),
        "C": lambda pair: log10(pair.commutator_p),
        "the combined overlap (sharp: of dominant ranks alone)": lambda pair: pair.log10_p,
    }
    for name, test in tests.items():
        values = [(test(one), test(two), one.name) for one, two in both]
        lost = sum((one is None) != (two is None) for one, two, _ in values)
        known = [(one, two, pair) for one, two, pair in values if None not in (one, two)]
        worst = max(known, key=lambda v: abs(v[0] - v[1]) / max(1, abs(v[1])), default=(0, 0, "–"))
        other = [sum((one < at) != (two < at) for one, two, _ in known) for at in (-2, -3)]
        yield (
            f"log10 p of {name}: {worst[0]:.3f} for {worst[1]:.3f} at worst ({worst[2]}); on the "
            f"other side of .01 / .001: {other[0]} / {other[1]} of {len(known)}; null in one "
            f"alone: {lost}"
        )
