"""Attractor: where ridge takes adjacent layers of a linear network, and that it is V = U.

**Closed form.** For whitened inputs, E x xᵀ = 1 and E y xᵀ = T, descent of

    ½ ‖W_L … W_1 - T‖² + (λ/2) Σ ‖W_l‖²

comes to rest where every direction of strength t of T is carried by one singular value σ of all
layers with σ = 0 or σ^{2L-2} - t σ^{L-2} + λ = 0. At depth 2 the network's singular value is
s = max(0, t - λ): a direction survives exactly if t > λ. At depth 3 it is a quartic, with a root if
t > 4 (λ/3)^{3/4}; surviving pays from t > 2 λ^{3/4} on; but σ = 0 attracts at every λ > 0, so that
it depends on the start too. (If all spectral norms w of the layers obey w (t + w³) < λ at the start
they shrink for ever.)

**Ridge is the function of Kempf and Ness**, tr A + tr B = ‖W1‖² + ‖W2‖²: along (g W1, W2 g⁻¹),
g = exp(sX), X symmetric, its derivative at s = 0 is 2 tr X(A - B). So A - B is the moment map, and
ridge is what A - B is the gradient of; it is not "the squared norm of the moment map" ‖A - B‖². Its
minimum over the orbit is 2 ‖W2 W1‖_*, attained where A = B. Without whitening, ridge at depth 2
therefore comes to λ times the nuclear norm of M = W2 W1, a convex problem whose minimum is
certified by R = E y xᵀ - M E x xᵀ: ‖R‖ ≤ λ and ⟨R, M⟩ = λ ‖M‖_*. Everything dies exactly if
λ ≥ ‖E y xᵀ‖.

**Flags.** Since the ranks that are left are equal and A = B, write and read space are one and the
same. A strict flag, V in U and not all of it, is where descent without ridge can stay, and ridge
leaves it.

**The law needs no loss.** ‖A - B‖ falls by (1-ηλ)^{2n} if there is no loss at all, when nothing
aligns: all weights shrink by one factor. Angles and ‖A - B‖ / (‖A‖ + ‖B‖) do test alignment.

**What was known when.** Ranks that fall and V = U had been seen in another program. A trial with 20
seeds of the sizes below chose times, steps and values of λ away from the thresholds, and showed
that usual starts keep all directions beyond the threshold at depth 3 too; the closed forms were
derived before it. A quick run showed that a first form of the certificate, relative to ‖M‖_*, has
no digits where everything died; it became the gap of the objective. Which parts are the paper's was
settled after the results were in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options, of_kind
from flagscope.lab.experiments.attractor.figures import (
    course_figure,
    rank_figure,
    value_figure,
)
from flagscope.lab.experiments.attractor.findings import findings
from flagscope.lab.experiments.attractor.kempf_ness import orbit_of_random_maps
from flagscope.lab.experiments.attractor.training import cell_settings, train_with_ridge

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Attractor(Experiment):
    """Trains linear networks with ridge to convergence, and measures ranks, spaces and Grams."""

    name = "attractor"
    title = "Where ridge ends: ranks fall, A = B, and V = U, not a strict flag"
    claim = (
        "Ridge, the squared norm of the moment map, takes adjacent layers to flags, V contained in "
        "U."
    )
    source = "arXiv 2605.09861, as far as its content is known; theory, section 7"
    budget_minutes = 4.0
    data_kind = "images"
    figures = (
        (
            "ranks",
            "Ranks of W1, W2 and the product at the end against λ, all seeds; line: number of "
            "directions of the target beyond the threshold.",
        ),
        (
            "values",
            "Singular values of the product at the end against λ, all seeds; lines: closed form.",
        ),
        (
            "course",
            "Left: ‖A - B‖ / (‖A‖ + ‖B‖), with a loss and without. Middle: largest sine between "
            "leading write and read spaces. Right: dim V and dim U from a planted strict flag, "
            "V in U, with ridge and without. Means and ranges over seeds.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each start, depth and λ; every cell has its own seeds."""
        count = options.seeds or (6 if options.quick else 40)
        cells = []
        for i, (name, settings) in enumerate(cell_settings(quick=options.quick)):
            # Images cost most, and their seeds differ only in the start.
            few = count if settings["kind"] != "images" else max(2, count // 4)
            seeds = [1000 * i + seed for seed in range(few)]
            data = {"data": options.data} if settings["kind"] == "images" else {}
            steps = settings["until"] / settings["step"] if "step" in settings else 100
            cells.append(Cell(name, settings | data | {"seeds": seeds}, cost=steps))
        return cells

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train and measure all seeds of one cell at once."""
        s = cell.settings
        if s["kind"] == "orbits":
            return {"runs": [orbit_of_random_maps(seed) for seed in s["seeds"]]}
        return train_with_ridge(s, report)

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge exact statements: one counterexample refutes."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, seed)."""
        rows = []
        for m in measured:
            s = m.cell.settings
            shared = {"cell": m.cell.name} | {
                name: s[name] for name in ("kind", "depth", "decay") if name in s
            }
            rows += [shared | _flat(run) for run in m.values["runs"]]
        return pd.DataFrame(rows)

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw ranks, singular values, and the course of a few cells."""
        return {
            "ranks": rank_figure(of_kind(measured, "whitened")),
            "values": value_figure(of_kind(measured, "whitened")),
            "course": course_figure(measured),
        }


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    """Flatten lists into numbered columns."""
    columns: dict[str, Any] = {}
    for name, value in run.items():
        listed = enumerate(value, 1) if isinstance(value, list) else ()
        columns |= {f"{name}_{i}": x for i, x in listed} or {name: value}
    return columns


EXPERIMENT = Attractor()
