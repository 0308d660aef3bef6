"""Verdicts on invariance: outputs, functional numbers, gauge numbers, intersections, balance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from flagscope.diagnose import labels
from flagscope.lab.experiment import (
    Estimate,
    Finding,
    Measured,
    Prediction,
    Verdict,
)
from flagscope.lab.experiments.invariance.rewriting import (
    OBSERVABLES,
)
from flagscope.lab.intervals import band_verdict, mean_interval

# Error of Gram eigenproblems in float64, times the condition number of the maps.
ROUND_OFF, MOVED = 1e-6, 1e-3
FUNCTIONAL = tuple(n for n in OBSERVABLES if labels("gl").get(n) == "functional")
_GAUGE = tuple(n for n in OBSERVABLES if n not in FUNCTIONAL)
# Integers may well stay the same, and two generic spaces share no direction exactly.
_MUST_MOVE = tuple(
    n for n in _GAUGE if n not in ("intersection_exact", "intersection_beyond_chance")
)


def rows_of(
    measured: Sequence[Measured], *groups: str, network: str | None = None
) -> list[dict[str, Any]]:
    """Measured rows of the given groups, or of all, and of one network or all."""
    return [
        row
        for m in measured
        for row in m.values["rows"]
        if (not groups or row["group"] in groups) and network in (None, m.cell.name)
    ]


def _accurate(measured: Sequence[Measured], *groups: str) -> list[dict[str, Any]]:
    """Rows of networks in float64."""
    return [row for m in measured if m.cell.name != "ridge-linear"
            for row in rows_of([m], *groups)]  # fmt: skip


def _by_seed(
    rows: Sequence[dict[str, Any]], quantity: Callable[[dict[str, Any]], float | None]
) -> list[float]:
    """Mean over networks and groups for every seed, since only seeds are independent."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        value = quantity(row)
        if value is not None:
            by_seed.setdefault(row["seed"], []).append(value)
    return [float(np.mean(values)) for values in by_seed.values()]


def _at_most(
    estimates: Sequence[Estimate], bounds: Sequence[float], largest: Sequence[float]
) -> Verdict:
    """Verdict on exact statements: confirmed if all are in bounds, refuted if the mean is not.

    A mean can hide one network that violates the statement.
    """
    together = len(estimates)
    verdicts = {
        band_verdict([e], -math.inf, bound, together=together)
        for e, bound in zip(estimates, bounds, strict=True)
    }
    if "refuted" in verdicts:
        return "refuted"
    every = all(x < bound for x, bound in zip(largest, bounds, strict=True))
    return "confirmed" if every and verdicts == {"confirmed"} else "open"


def output_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether the outputs stay the same."""
    sorts = [("float64", 1e-12, _accurate(measured))]
    if stored := rows_of(measured, network="ridge-linear"):
        sorts.append(("stored in float32", 1e-5, stored))
    estimates = tuple(
        mean_interval(f"outputs moved, {name}", _by_seed(rows, lambda row: row["outputs"]))
        for name, _, rows in sorts
    )
    bounds = [bound for _, bound, _ in sorts]
    largest = [max(row["outputs"] for row in rows) for _, _, rows in sorts]
    yield Finding(
        "No change made here alters what a network computes",
        Prediction(
            "outputs move by round-off alone: below 1e-12, and 1e-5 in float32",
            0.0,
            "spec, section 2",
        ),
        estimates,
        _at_most(estimates, bounds, largest),
        f"At most {' and '.join(f'{x:.0e}' for x in largest)} in any network. The premise of all "
        "that follows.",
    )


def _largest(row: dict[str, Any], names: Sequence[str]) -> float:
    return max(row["moved"].get(name, 0.0) for name in names)


def orthogonal_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether orthogonal changes and permutations move any observable."""
    rows = _accurate(measured, "orthogonal", "permutation")
    moved = _by_seed(rows, lambda row: _largest(row, OBSERVABLES))
    estimates = (mean_interval("largest movement of any observable", moved),)
    most = max(_largest(row, OBSERVABLES) for row in rows)
    yield Finding(
        "Orthogonal changes and permutations move no observable",
        Prediction(f"largest relative movement below {ROUND_OFF:g}", 0.0, "spec, section 3"),
        estimates,
        _at_most(estimates, [ROUND_OFF], [most]),
        f"Of {len(OBSERVABLES)} observables, the intersection dimension among them; at most "
        f"{most:.0e} in any network.",
    )


def label_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether functional numbers stay the same and all others change."""
    rows = _accurate(measured, "gl", "scaling")
    by_seed = _by_seed(rows, lambda row: _largest(row, FUNCTIONAL))
    still = (mean_interval("largest movement of a functional number", by_seed),)
    most = max(_largest(row, FUNCTIONAL) for row in rows)
    yield Finding(
        "Ranks, kernel intersection and spectrum of W2 W1 survive every change",
        Prediction(
            f"movement under GL(d) and scalings below {ROUND_OFF:g}", 0.0, "spec, section 2.3"
        ),
        still,
        _at_most(still, [ROUND_OFF], [most]),
        f"These are what flagscope labels functional; at most {most:.0e} in any network.",
    )
    moved = tuple(mean_interval(name, _by_seed(rows, _moved(name))) for name in _MUST_MOVE)
    yield Finding(
        "All else is gauge: it moves though the function does not",
        Prediction(f"each number moves by more than {MOVED:g}", MOVED, "spec, section 2.4"),
        moved,
        band_verdict(moved, MOVED, math.inf),
        "Movement under GL(d) between linear maps and positive scalings across a ReLU, mean over "
        "the networks of a seed.",
    )


def _moved(name: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda row: row["moved"].get(name)


def intersection_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether the two intersections are invariant."""

    def changes(group: str, name: str) -> list[float]:
        return [
            after - before
            for row in rows_of(measured, group, network="ridge-linear")
            for before, after in zip(row["before"][name], row["after"][name], strict=True)
            if before is not None and after is not None
        ]

    for name, claim, words in (
        ("intersection_exact", "dim(write ∩ read) is invariant under every change of basis",
         "Under g the write space moves by g and the read space by its inverse transpose: only "
         "orthogonal g keep how they lie. The read space is that of the rows of W2; under the "
         "diagonal action of the paper's appendix, and with the kernel of W2 in its place, the "
         "dimension is invariant."),
        ("kernel_intersection", "dim(write ∩ kernel) is invariant under every change of basis",
         "rank W1 - rank(W2 W1) knows nothing of the basis."),
    ):  # fmt: skip
        estimates: list[Estimate] = [
            mean_interval(f"change of {name} under {group}", values)
            for group in ("orthogonal", "gl")
            if (values := changes(group, name))
        ]
        start = [row["before"][name][0] for row in rows_of(measured, "gl", network="ridge-linear")]
        yield Finding(
            claim,
            Prediction("no change of the dimension, whatever g", 0.0, "arXiv 2605.09861"),
            tuple(estimates),
            band_verdict(estimates, 0.0, 0.0),
            f"Linear networks trained with ridge to the end, where it is {start}. {words}",
            beyond=name == "kernel_intersection",
        )


def balance_findings(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Whether balancing makes raw alignment perfect."""
    rows = _accurate(measured, "balanced")

    def commutator(row: dict[str, Any]) -> float:
        return max(row["after"]["commutator_ratio"])

    def missing(row: dict[str, Any]) -> float:
        return 1 - min(row["after"]["gram_correlation"])

    estimates = (
        mean_interval("largest C after balancing", _by_seed(rows, commutator)),
        mean_interval("largest 1 - ρ after balancing", _by_seed(rows, missing)),
    )
    largest = [max(commutator(row) for row in rows), max(missing(row) for row in rows)]
    raw = [value for row in rows for value in row["before"]["commutator_ratio"]]
    yield Finding(
        "Any raw alignment can be made perfect for nothing",
        Prediction(
            "after balancing C < 1e-9 and 1 - ρ < 1e-9 for every pair, outputs unchanged",
            0.0,
            "spec, section 2.4",
        ),
        estimates,
        _at_most(estimates, [1e-9, 1e-9], largest),
        f"As trained, C of these pairs lies between {min(raw):.2g} and {max(raw):.2g}: between "
        "linear maps it is the optimiser's choice of basis.",
    )
