"""Verdicts on strata, their closures and stability, from the drawn pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from flagscope.geometry import (
    Stability,
    forced_dimension,
)
from flagscope.lab.experiment import (
    Finding,
    Prediction,
)
from flagscope.lab.intervals import share_interval
from flagscope.lab.shares import exact_finding


def _exact(
    claim: str, predicted: str, source: str, tests: dict[str, list[bool]], words: str
) -> Finding:
    """Finding on an exact statement: confirmed if it always held, refuted if it failed once."""
    held = all(all(agree) for agree in tests.values())
    return exact_finding(
        claim,
        Prediction(predicted, 1.0, source),
        tests,
        words if held else f"Not so: {words[0].lower()}{words[1:]}",
    )


def dimension_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    """Compare the dimension of an orbit with the rank of the infinitesimal action."""
    clear = max(row["rank_gap"] for row in pairs)
    return _exact(
        "The orbit X_k has dimension k(d-k) + (r1-k)(d-r1) + (r2-k)(d-r2).",
        "the rank of the infinitesimal action equals it at every pair",
        "theory, section 2",
        {"pairs that agree": [row["dimension"] == row["rank_of_action"] for row in pairs]},
        f"The rank equals the formula at every pair drawn; singular values that count as zero lie "
        f"below {clear:.0e} of the least that count.",
    )


def invariant_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    """Whether k alone distinguishes orbits under the diagonal action."""
    moved = sum(row["sine_moved_by_change"] > 1e-3 for row in pairs) / len(pairs)
    return _exact(
        "k = dim(V ∩ U) is the complete invariant of a pair under GL(d) acting on both alike.",
        "k survives every change of basis, and pairs of equal k are carried to each other",
        "theory, section 2",
        {
            "k unchanged": [row["k_found"] == row["k"] == row["k_after_change"] for row in pairs],
            "pairs of equal k carried to each other": [row["carried_sine"] < 1e-9 for row in pairs],
        },
        f"k is all that survives: the largest angle moved in {moved:.0%} of the pairs. This is the "
        "diagonal action; under a reparameterisation of a network the read space moves by the "
        "inverse transpose, and k of write and read space is then not invariant (see the "
        "experiment invariance).",
    )


def degeneration_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    """Whether every pair degenerates to a flag within the closure of its orbit."""
    worst = max(
        abs(a / b - 1)
        for row in pairs
        for a, b in zip(row["sines"], row["sines_predicted"], strict=True)
        if b > 1e-12 and row["k"] < row["r1"]
    )
    return _exact(
        "Every pair degenerates to a flag within the closure of its orbit, and closures form a "
        "chain.",
        "k is constant along the path for t ≠ 0 and r1 at t = 0; the angle follows tan θ = "
        "t sin φ / (1 - t (1 - cos φ)); small perturbations never raise k",
        "theory, section 2",
        {
            "k constant on the path": [row["k_on_path"] == row["k"] for row in pairs],
            "limit is a flag": [row["k_limit"] == row["r1"] for row in pairs],
            "nearby pairs are generic": [
                row["k_near"] == forced_dimension(row["r1"], row["r2"], row["d"]) for row in pairs
            ],
            "sine as predicted": [
                math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12)
                for row in pairs
                if row["k"] < row["r1"]
                for a, b in zip(row["sines"], row["sines_predicted"], strict=True)
            ],
        },
        f"Each path reaches a flag and stays in its orbit before; sines match the predicted curve "
        f"to {worst:.0e}.",
    )


def closed_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    """Whether flags are exactly the pairs with closed orbits."""
    lowest: dict[tuple[int, int, int], int] = {}
    for row in pairs:
        key = row["d"], row["r1"], row["r2"]
        lowest[key] = min(lowest.get(key, row["rank_of_action"]), row["rank_of_action"])
    return _exact(
        "Flags are the polystable points in the paper's meaning: those of closed orbits in the "
        "product of Grassmannians.",
        "exactly the pairs with V ⊆ U lie in the orbit of least dimension, and they alone do not "
        "move under the degeneration",
        "theory, section 2",
        {
            "closed iff of least dimension": [
                row["closed_orbit"]
                == (row["rank_of_action"] == lowest[row["d"], row["r1"], row["r2"]])
                for row in pairs
            ],
            "closed iff unmoved": [
                row["closed_orbit"] == (row["sines"][0] < 1e-9) for row in pairs
            ],
        },
        "In this meaning, in which no linearisation is involved, the paper's statement holds. In "
        "the standard one it does not, which is measured beyond the paper.",
    )


def git_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    """Finding on the claim that flags are polystable in GIT, by a search for counterexamples."""
    flags = [row for row in pairs if row["closed_orbit"]]
    polystable = [row["git"] == Stability.POLYSTABLE for row in flags]
    consistent = [
        (row["git"] == Stability.UNSTABLE) == (row["slope_excess"] > 1e-9) for row in pairs
    ]
    estimates = (
        share_interval("flags that are polystable", polystable),
        share_interval("verdicts that a destabilising subspace proves", consistent),
    )
    refuted = not all(polystable) and all(consistent)
    kinds = {(r["d"], r["r1"], r["r2"], r["k"]) for r in pairs if r["git"] != Stability.UNSTABLE}
    split = all(r1 + r2 == d and k == 0 for d, r1, r2, k in kinds)
    return Finding(
        "Flags are the polystable points in the standard meaning, that of geometric invariant "
        "theory.",
        Prediction(
            "no: with weights (1, 1) a pair is semistable iff V ⊕ U = R^d, and every pair that "
            "meets is unstable, flags included",
            0.0,
            "theory, section 2, point 1",
        ),
        estimates,
        "refuted" if refuted else ("confirmed" if all(polystable) else "open"),
        f"Every flag is unstable: V ∩ U itself destabilises it. The {len(kinds)} polystable "
        f"positions found {'all' if split else 'do not all'} split the space, V ⊕ U = R^d. "
        "'Polystable' and 'closed orbit in the product of Grassmannians' are different notions.",
    )


def affine_finding(flows: Sequence[dict[str, Any]]) -> Finding:
    """Finding on closed orbits of maps, by the norm flow."""
    closed = [f for f in flows if f["closed"]]
    unclosed = [f for f in flows if not f["closed"]]
    return _exact(
        "The orbit of the maps (W1, W2) is closed iff rank W1 = rank W2 = rank(W2 W1), and then "
        "holds a balanced point A = B.",
        "descending ‖gW1‖² + ‖W2g⁻¹‖² reaches A = B at a bounded g exactly in that case; "
        "otherwise g leaves every bounded set",
        "Kempf-Ness; theory, section 2, point 2",
        {
            "closed: balanced at a bounded g": [
                _converges(f) and f["condition_growth"] < 1.05 for f in closed
            ],
            "not closed: g still growing": [
                not _converges(f) and f["condition_growth"] > 1.05 for f in unclosed
            ],
        },
        f"Imbalance at the end: at most {max(f['imbalance'] for f in closed):.0e} for closed "
        f"orbits, at least {min(f['imbalance'] for f in unclosed):.0e} for the others, whose g "
        f"grows by a factor of {min(f['condition_growth'] for f in unclosed):.2f} or more while "
        "the steps double.",
    )


def _converges(flow: dict[str, Any]) -> bool:
    """Whether the imbalance falls exponentially: by ten, where 1/n would only halve it."""
    return flow["imbalance"] < max(0.1 * flow["imbalance_before"], 1e-13)
