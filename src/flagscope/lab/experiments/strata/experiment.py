"""Strata: relative positions of two subspaces, their dimensions, degenerations and stability.

**What was known when.** The test of the affine criterion replaces a first form, whose
ill-conditioned draws did not come near their limits in time; draws and test were both changed.
After the results were in, the part on geometric invariant theory was set apart from the paper's
claim, since the paper uses "polystable" in another meaning. That moved the verdict on the paper
from refuted to confirmed, and changed no verdict of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from flagscope.lab.experiment import (
    Cell,
    Experiment,
    Finding,
    Measured,
    Options,
    beyond_the_paper,
)
from flagscope.lab.experiments.strata.figures import (
    chain_figure,
    degeneration_figure,
    stability_figure,
)
from flagscope.lab.experiments.strata.findings import (
    affine_finding,
    closed_finding,
    degeneration_finding,
    dimension_finding,
    git_finding,
    invariant_finding,
)
from flagscope.lab.experiments.strata.norm_flow import norm_flow
from flagscope.lab.experiments.strata.pairs import measured_pair, positions

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Strata(Experiment):
    """Draws pairs in every relative position, and tests the statements of the theory."""

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
        """One cell for each dimension d, with every (r1, r2, k) and every seed."""
        largest, seeds = (4, 2) if options.quick else (8, 10)
        chosen = list(range(options.seeds or seeds))
        return [
            Cell(f"d-{d}", {"d": d, "seeds": chosen}, cost=float(d**4))
            for d in range(2, largest + 1)
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Measure every relative position in R^d."""
        d, seeds = cell.settings["d"], cell.settings["seeds"]
        wanted = [(position, seed) for position in positions(d) for seed in seeds]
        rows = []
        for i, (position, seed) in enumerate(wanted):
            rows.append(measured_pair(position, seed))
            report(i / len(wanted))
        return {"pairs": rows, "flows": [norm_flow(d, seed) for seed in seeds]}

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge exact statements: one counterexample refutes, none confirms."""
        pairs = [row for m in measured for row in m.values["pairs"]]
        flows = [row for m in measured for flow in m.values["flows"] for row in flow]
        return (
            dimension_finding(pairs),
            invariant_finding(pairs),
            degeneration_finding(pairs),
            closed_finding(pairs),
            *beyond_the_paper(git_finding(pairs), affine_finding(flows)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (pair, seed)."""
        frame = pd.DataFrame([row for m in measured for row in m.values["pairs"]])
        return frame.drop(columns=["sines", "sines_predicted"])

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the chain of strata, degenerations, and a map of the notions of stability."""
        pairs = [row for m in measured for row in m.values["pairs"]]
        largest = max(row["d"] for row in pairs)
        return {
            "chain": chain_figure(pairs, largest),
            "degeneration": degeneration_figure(pairs, largest),
            "stability": stability_figure(largest),
        }


EXPERIMENT = Strata()
