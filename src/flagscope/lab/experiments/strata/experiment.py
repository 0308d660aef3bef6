"""Strata: relative positions of two subspaces, their dimensions, degenerations and stability.

**What was known when.** The test of the affine criterion replaces a first form, whose
ill-conditioned draws did not come near their limits in time; draws and test were both changed.
After the results were in, the part on geometric invariant theory was set apart from the paper's
claim, since the paper uses "polystable" in another meaning. That moved the verdict on the paper
from refuted to confirmed, and changed no verdict of a part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from flagscope.geometry import (
    RelativePosition,
    Stability,
    degeneration,
    git_stability,
    has_closed_affine_orbit,
    has_closed_orbit,
    orthonormal_basis,
    principal_sines,
    relative_position,
    strata,
)
from flagscope.lab.experiment import (
    Cell,
    Experiment,
    Finding,
    Measured,
    Options,
    Prediction,
    beyond_the_paper,
)
from flagscope.lab.figures import COLOURS, draw_band, new_figure
from flagscope.lab.intervals import share_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Sines of intersections that survive two well-conditioned changes of basis in float64.
_TOLERANCE = 1e-9
_TIMES = tuple(10.0**-i for i in range(7))
_DRAWN = (8, 3, 4)
# Of the norm flow: imbalance falls like exp(-n) where the orbit is closed, like 1/n where not.
_FLOW_STEPS = 1500


class Strata(Experiment):
    """Draws pairs in every relative position and measures what the theory says of them."""

    name = "strata"
    title = "Relative positions, their dimensions, degenerations and two notions of stability"
    claim = (
        "Pairs of subspaces fall into orbits told apart by the dimension of the intersection; "
        "the one closed orbit is the variety of flags, and flags are the polystable points, by "
        "which the paper means closed orbits in the product of Grassmannians. In the standard "
        "meaning, that of geometric invariant theory, no flag is polystable (beyond the paper)."
    )
    source = "arXiv 2605.09861; theory, section 2"
    budget_minutes = 2.0
    data_kind = "none"
    figures = (
        ("chain", "Dimension of every stratum X_k: formula (line) and rank measured (points)."),
        (
            "degeneration",
            "Largest sine between V and U along the one-parameter subgroup to a flag; dashed: the "
            "predicted curve.",
        ),
        (
            "stability",
            "Which positions have closed orbits (flags), which are polystable in linearised "
            "geometric invariant theory with equal weights, and which are unstable there.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell a dimension d; every (r1, r2, k) in it, every seed."""
        largest, seeds = (4, 2) if options.quick else (8, 10)
        chosen = list(range(options.seeds or seeds))
        return [
            Cell(f"d-{d}", {"d": d, "seeds": chosen}, cost=float(d**4))
            for d in range(2, largest + 1)
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Every relative position in R^d."""
        d, seeds = cell.settings["d"], cell.settings["seeds"]
        wanted = [(position, seed) for position in _positions(d) for seed in seeds]
        rows = []
        for i, (position, seed) in enumerate(wanted):
            rows.append(_measure_pair(position, seed))
            report(i / len(wanted))
        return {"pairs": rows, "flows": [_norm_flow(d, seed) for seed in seeds]}

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Exact statements: one counterexample refutes, none confirms."""
        pairs = [row for m in measured for row in m.values["pairs"]]
        flows = [row for m in measured for flow in m.values["flows"] for row in flow]
        return (
            _dimension_finding(pairs),
            _invariant_finding(pairs),
            _degeneration_finding(pairs),
            _closed_finding(pairs),
            *beyond_the_paper(_git_finding(pairs), _affine_finding(flows)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row a (pair, seed)."""
        frame = pd.DataFrame([row for m in measured for row in m.values["pairs"]])
        return frame.drop(columns=["sines", "sines_predicted"])

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Chain of strata, degenerations, map of the notions of stability."""
        pairs = [row for m in measured for row in m.values["pairs"]]
        largest = max(row["d"] for row in pairs)
        return {
            "chain": _draw_chains(pairs, largest),
            "degeneration": _draw_degenerations(pairs, largest),
            "stability": _draw_stability(largest),
        }


def _positions(d: int) -> Iterator[RelativePosition]:
    for r1 in range(1, d):
        for r2 in range(r1, d):
            yield from strata(d, r1, r2)


def _measure_pair(position: RelativePosition, seed: int) -> dict[str, Any]:
    """A random pair in one position: rank of the action, invariance, path to a flag."""
    d, r1, r2, k = position.d, position.r1, position.r2, position.k
    generator = torch.Generator().manual_seed(((seed * 16 + d) * 16 + r1) * 256 + r2 * 16 + k)
    axes = position.representative()
    first, second = (_well_conditioned(d, generator) for _ in range(2))
    pair, other = (
        [orthonormal_basis(g @ x, rank=x.shape[1]) for x in axes] for g in (first, second)
    )
    rank, gap = _rank_of_action(*pair)
    path = degeneration(*pair, tolerance=_TOLERANCE)
    sines = [_sine(*path.subspaces(t)) for t in _TIMES]
    on_path = [relative_position(*path.subspaces(t), tolerance=_TOLERANCE).k for t in (1.0, 0.1)]
    noise = [x + 1e-3 * torch.randn(x.shape, dtype=x.dtype, generator=generator) for x in pair]
    near = [orthonormal_basis(x, rank=x.shape[1]) for x in noise]
    # What carries one pair to the other: the same orbit.
    carried = [second @ torch.linalg.solve(first, x) for x in pair]
    missed = max(
        _sine(orthonormal_basis(x, rank=x.shape[1]), y) for x, y in zip(carried, other, strict=True)
    )
    verdict = git_stability(position)
    return {
        **asdict(position),
        "seed": seed,
        "dimension": position.orbit_dimension,
        "rank_of_action": rank,
        "rank_gap": gap,
        "k_found": relative_position(*pair, tolerance=_TOLERANCE).k,
        "k_after_change": relative_position(*other, tolerance=_TOLERANCE).k,
        "carried_sine": missed,
        "sine_moved_by_change": abs(_sine(*pair) - _sine(*other)),
        "k_near": relative_position(*near, tolerance=_TOLERANCE).k,
        "k_on_path": min(on_path) if len(set(on_path)) == 1 else -1,
        "k_limit": relative_position(*path.subspaces(0.0), tolerance=_TOLERANCE).k,
        "sines": sines,
        "sines_predicted": [_predicted_sine(sines[0], t) for t in _TIMES],
        "closed_orbit": has_closed_orbit(position),
        "git": verdict.stability.value,
        "slope_excess": _slope_excess(pair, generator),
    }


def _well_conditioned(d: int, generator: torch.Generator) -> Float[Tensor, "d d"]:
    """A random element of GL(d) of condition number at most 9."""
    u, _, v = torch.linalg.svd(
        torch.randn(d, d, dtype=torch.float64, generator=generator), full_matrices=False
    )
    scale = torch.rand(d, dtype=torch.float64, generator=generator)
    return u @ torch.diag(3 ** (2 * scale - 1)) @ v


def _rank_of_action(v: Tensor, u: Tensor) -> tuple[int, float]:
    """Rank of gl(d) → T_V Gr × T_U Gr, X ↦ ((I-P)XV, (I-P)XU), and how clear the cut is.

    The second number is the largest singular value that counts as zero over the least that
    counts, 0 where none is zero.
    """
    rows = []
    for basis in (v, u):
        outside = torch.linalg.qr(basis, mode="complete").Q[:, basis.shape[1] :]
        rows.append(torch.kron(outside.mT.contiguous(), basis.mT.contiguous()))
    sigma = torch.linalg.svdvals(torch.cat(rows))
    rank = int((sigma > 1e-8 * sigma[0]).sum())
    rest = sigma[rank:]
    return rank, float(rest[0] / sigma[rank - 1]) if len(rest) else 0.0


def _sine(v: Tensor, u: Tensor) -> float:
    """Sine of the largest principal angle of the smaller space with the larger."""
    return float(principal_sines(v, u).max())


def _predicted_sine(sine: float, t: float) -> float:
    """b + t (a - b) for unit vectors at an angle φ: tan = t sin φ / (1 - t (1 - cos φ))."""
    cosine = math.sqrt(max(0.0, 1 - sine**2))
    return math.sin(math.atan2(t * sine, 1 - t * (1 - cosine)))


def _slope_excess(pair: Sequence[Tensor], generator: torch.Generator) -> float:
    """Largest slope of a subspace less that of the whole, equal weights.

    Tried on V, U, V ∩ U, V + U and on random subspaces; positive means that the pair is not
    semistable. For a pair of subspaces the four suffice, since the lattice they generate holds
    the Harder-Narasimhan filtration.
    """
    v, u = pair
    d = v.shape[0]
    left, sigma, _ = torch.linalg.svd(torch.cat([v, u], dim=1), full_matrices=True)
    total = int((sigma > 1e-8).sum())
    k = v.shape[1] + u.shape[1] - total
    inner = torch.linalg.svd(v @ (v.mT @ u)).U[:, :k] if k else v[:, :0]
    tried = [v, u, inner, left[:, :total]]
    for size in range(1, d):
        drawn = torch.randn(d, size, dtype=v.dtype, generator=generator)
        tried.append(torch.linalg.qr(drawn).Q)
    whole = (v.shape[1] + u.shape[1]) / d
    slopes = [(_meeting(v, s) + _meeting(u, s)) / s.shape[1] for s in tried if 0 < s.shape[1] < d]
    return max(slopes) - whole


def _meeting(v: Tensor, s: Tensor) -> int:
    return relative_position(v, s, tolerance=_TOLERANCE).k


def _norm_flow(d: int, seed: int) -> list[dict[str, Any]]:
    """Descend ‖gW1‖² + ‖W2g⁻¹‖² over g from pairs of maps with closed and non-closed orbits.

    The gradient in g at the identity is the moment map A - B. By Kempf and Ness the minimum is
    attained, at A = B, if and only if the orbit is closed.
    """
    generator = torch.Generator().manual_seed(1000 * d + seed)
    rank = max(1, d // 2)
    found = []
    for kind in ("balanced", "write into the kernel", "unequal ranks"):
        # Balanced maps of singular values 1 … 2, one of them redirected or cut off, all moved by g.
        base = torch.diag(torch.linspace(1, 2, d, dtype=torch.float64))
        w1, w2 = base[:, :rank].clone(), base[:rank].clone()
        if kind == "write into the kernel":
            w2[rank - 1] = w2[rank - 1].roll(1)
        elif kind == "unequal ranks":
            w2[rank - 1] = 0
        moved = _well_conditioned(d, generator)
        w1, w2 = moved @ w1, torch.linalg.solve(moved, w2, left=False)
        ranks = [int(torch.linalg.matrix_rank(w, atol=1e-9)) for w in (w1, w2)]
        product_rank = int(torch.linalg.matrix_rank(w2 @ w1, atol=1e-9))
        g = torch.eye(d, dtype=torch.float64)
        size = torch.linalg.matrix_norm(w1) ** 2 + torch.linalg.matrix_norm(w2) ** 2
        imbalances, conditions = [], []
        for n in range(1, _FLOW_STEPS + 1):
            moment = w1 @ w1.mT - w2.mT @ w2
            step = torch.linalg.matrix_exp(-0.5 * moment / size)
            w1, w2, g = step @ w1, torch.linalg.solve(step, w2, left=False), step @ g
            if n in (_FLOW_STEPS // 2, _FLOW_STEPS):
                total = torch.linalg.matrix_norm(w1 @ w1.mT) + torch.linalg.matrix_norm(w2.mT @ w2)
                imbalances.append(float(torch.linalg.matrix_norm(moment) / total))
                conditions.append(float(torch.linalg.cond(g)))
        found.append(
            {
                "d": d,
                "seed": seed,
                "kind": kind,
                "closed": has_closed_affine_orbit(
                    rank_write=ranks[0], rank_read=ranks[1], rank_product=product_rank
                ),
                "imbalance": imbalances[1],
                "imbalance_before": imbalances[0],
                "condition_growth": conditions[1] / conditions[0],
            }
        )
    return found


def _exact(
    claim: str, predicted: str, source: str, tests: dict[str, list[bool]], words: str
) -> Finding:
    """An exact statement: confirmed if it held each time, refuted if it failed once."""
    estimates = tuple(share_interval(name, agree) for name, agree in tests.items())
    held = all(e.value == 1 for e in estimates)
    return Finding(
        claim,
        Prediction(predicted, 1.0, source),
        estimates,
        "confirmed" if held else "refuted",
        words if held else f"Not so: {words[0].lower()}{words[1:]}",
    )


def _dimension_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    clear = max(row["rank_gap"] for row in pairs)
    return _exact(
        "The orbit X_k has dimension k(d-k) + (r1-k)(d-r1) + (r2-k)(d-r2).",
        "the rank of the infinitesimal action equals it at every pair",
        "theory, section 2",
        {"pairs that agree": [row["dimension"] == row["rank_of_action"] for row in pairs]},
        f"The rank equals the formula at every pair drawn; singular values that count as zero lie "
        f"below {clear:.0e} of the least that count.",
    )


def _invariant_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
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


def _degeneration_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
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
                row["k_near"] == max(0, row["r1"] + row["r2"] - row["d"]) for row in pairs
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


def _closed_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
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


def _git_finding(pairs: Sequence[dict[str, Any]]) -> Finding:
    """The claim is that flags are polystable in GIT: flags are looked for that are not."""
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


def _affine_finding(flows: Sequence[dict[str, Any]]) -> Finding:
    closed = [f for f in flows if f["closed"]]
    other = [f for f in flows if not f["closed"]]
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
                not _converges(f) and f["condition_growth"] > 1.05 for f in other
            ],
        },
        f"Imbalance at the end: at most {max(f['imbalance'] for f in closed):.0e} for closed "
        f"orbits, at least {min(f['imbalance'] for f in other):.0e} for the others, whose g grows "
        f"by a factor of {min(f['condition_growth'] for f in other):.2f} or more while the steps "
        "double.",
    )


def _converges(flow: dict[str, Any]) -> bool:
    """Whether the imbalance falls exponentially: tenfold, while 1/n would only halve it."""
    return flow["imbalance"] < max(0.1 * flow["imbalance_before"], 1e-13)


def _draw_chains(pairs: Sequence[dict[str, Any]], largest: int) -> Figure:
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    shown = [_DRAWN] if largest >= _DRAWN[0] else []
    shown += [(largest, r, s) for r, s in ((1, 2), (2, 2), (2, 3), (3, 3)) if s < largest]
    for colour, (d, r1, r2) in zip(COLOURS, shown, strict=False):
        chain = strata(d, r1, r2)
        ks = [p.k for p in chain]
        ax.plot(
            ks,
            [p.orbit_dimension for p in chain],
            color=colour,
            label=f"d = {d}, r = ({r1}, {r2})",
        )
        rows = [r for r in pairs if (r["d"], r["r1"], r["r2"]) == (d, r1, r2)]
        ax.plot([r["k"] for r in rows], [r["rank_of_action"] for r in rows], "o", color=colour)
    ax.set_xlabel("k = dim(V ∩ U)")
    ax.set_ylabel("dimension of X_k")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return figure


def _draw_degenerations(pairs: Sequence[dict[str, Any]], largest: int) -> Figure:
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    half = largest // 2
    d, r1, r2 = _DRAWN if largest >= _DRAWN[0] else (largest, half, half)
    for colour, position in zip(COLOURS, strata(d, r1, r2), strict=False):
        if position.is_closed:
            continue
        key = d, r1, r2, position.k
        rows = [r for r in pairs if (r["d"], r["r1"], r["r2"], r["k"]) == key]
        label = f"from X_{position.k}"
        draw_band(ax, _TIMES, [r["sines"] for r in rows], colour=colour, label=label)
        ax.plot(_TIMES, rows[0]["sines_predicted"], color=COLOURS[6], ls="--", lw=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("t")
    ax.set_ylabel(f"largest sine, d = {d}, r = ({r1}, {r2})")
    ax.legend()
    return figure


def _draw_stability(largest: int) -> Figure:
    figure, axes = new_figure(1, 1, width=6.5, height=4.5)
    ax = axes[0, 0]
    kinds: dict[str, list[tuple[float, float]]] = {
        "flag: closed orbit, unstable in GIT": [],
        "V ⊕ U = R^d: polystable in GIT, orbit not closed": [],
        "neither": [],
    }
    names = list(kinds)
    for p in _positions(largest):
        polystable = git_stability(p).stability == Stability.POLYSTABLE
        kind = names[0] if p.is_closed else names[1] if polystable else names[2]
        kinds[kind].append((p.r1 + p.k / (p.r1 + 2), p.r2))
    _scatter(ax, kinds)
    ax.set_xlabel(f"r1, and k = 0 … r1 to the right of it (d = {largest})")
    ax.set_ylabel("r2")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", fontsize=8)
    return figure


def _scatter(ax: Axes, kinds: dict[str, list[tuple[float, float]]]) -> None:
    for (label, points), colour, marker in zip(kinds.items(), COLOURS, "osx", strict=False):
        ax.plot(*zip(*points, strict=True), marker, color=colour, label=label, ms=5)


EXPERIMENT = Strata()
