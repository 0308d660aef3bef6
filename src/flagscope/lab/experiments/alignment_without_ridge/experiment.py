"""Alignment without ridge: adjacent layers align where norms grow, though nothing decays.

For a linear pair without weight decay W2ᵀ G2 = G1 W1ᵀ makes A - B = W1 W1ᵀ - W2ᵀ W2 a constant of
gradient flow, for any loss [1, 2]. Two cases follow.

**Norms grow without bound.** The logistic loss of separable classes is never at rest: the risk goes
to 0 and every norm to infinity. Then ‖A - B‖ / (‖A‖ + ‖B‖) falls as 1 / (‖A‖ + ‖B‖), every layer
tends to rank one, and the leading singular vectors of neighbours to each other: theorem of Ji and
Telgarsky [3], for gradient flow of any strictly decreasing loss, and for gradient descent with
certain decreasing steps. `flagscope.lab.experiments.alignment_without_ridge.records` derives the
two bounds that are tested here, constants over squared norms; first-order perturbation theory makes
the sine itself, and not its square alone, fall as 1 / σ_1². Homogeneous networks do alike [4, 5].

**Norms stay bounded.** A squared loss comes to rest at a finite product, so that ‖A - B‖ stays a
fixed share of ‖A‖ + ‖B‖. It is small only where it was small from the start: weights drawn at scale
s have A - B of size s², and the product that is learnt does not depend on s.

**What ‖A - B‖ says.** Here it does not move, and layers align. Under decay without a loss (the
experiment ridge-rate) it vanishes, and nothing aligns. It is neither needed nor enough: what aligns
is what makes it small relative to ‖A‖ + ‖B‖.

**Two paces.** Gradient flow of a loss and of its logarithm follow one curve. Along it plain steps
let norms grow as (log t)^{1/depth} only; steps of one length in weight space let them grow as t.
Both are measured, and compared at equal norm. Gradient descent adds η² (G1 G1ᵀ - G2ᵀ G2) to A - B
in each step, which is booked.

**What was known when.** The theorem is of 2019. Trial runs with three seeds chose step sizes and
lengths, and had shown all of this to hold; the bounds of the verdicts were set after them, before
the run reported here. That run left one part open as a whole, the one on ten classes; it was then
split in two, its bounds as they were, and the count of directions that have grown was added.
That no part is held against the paper, and that intervals of sines stay below 1, was settled last.

1. S. Arora, N. Cohen, E. Hazan, On the optimization of deep networks: implicit acceleration by
   overparameterization, ICML 2018, arXiv 1802.06509.
2. S. Du, W. Hu, J. Lee, Algorithmic regularization in learning deep homogeneous models: layers are
   automatically balanced, NeurIPS 2018, arXiv 1806.00900.
3. Z. Ji, M. Telgarsky, Gradient descent aligns the layers of deep linear networks, ICLR 2019, arXiv
   1810.02032.
4. K. Lyu, J. Li, Gradient descent maximizes the margin of homogeneous neural networks, ICLR 2020,
   arXiv 1906.05890.
5. Z. Ji, M. Telgarsky, Directional convergence and alignment in deep learning, NeurIPS 2020, arXiv
   2006.06657.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flagscope.lab.data import load_images
from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.alignment_without_ridge.figures import figures
from flagscope.lab.experiments.alignment_without_ridge.findings import findings
from flagscope.lab.experiments.alignment_without_ridge.training import (
    train_separable,
    whitened_classes,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

WIDTH = 16
# The table has the first moment and every third, counted from the last.
_STRIDE = 3


class AlignmentWithoutRidge(Experiment):
    """Trains deep linear networks on separable classes with no weight decay."""

    name = "alignment-without-ridge"
    title = "Alignment of adjacent layers without ridge"
    claim = (
        "It is ridge regularisation that aligns adjacent layers: without it they do not align. "
        "(The claim that ridge aligns, read as exclusive, which the paper is not known to say.)"
    )
    source = "a reading of arXiv 2605.09861; against arXiv 1810.02032"
    budget_minutes = 6
    figures = (
        (
            "over-norm",
            "Relative imbalance, and sine between the leading singular vectors of neighbours, over "
            "the squared norm; mean and range of the seeds. Dashed: the inverse.",
        ),
        (
            "over-steps",
            "Relative imbalance of the first pair over steps: where norms grow, and where the loss "
            "comes to rest, from weights of three scales.",
        ),
        ("ranks", "‖W‖² / σ_1² of each layer of the deepest network, and with ten classes."),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each loss, pace, depth and scale of the initial weights."""
        seeds = list(range(options.seeds or (3 if options.quick else 10)))
        common = {"data": options.data or "digits", "seeds": seeds, "width": WIDTH}
        return [
            Cell(name, common | own, own["steps"] * own["depth"] * own["classes"])
            for name, own in _settings(quick=options.quick)
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train the networks of one cell, all seeds at once."""
        s = cell.settings
        images = load_images(s["data"], limit=s["limit"])
        task = whitened_classes(images, s["classes"], s["features"])
        return train_separable(s, task, report)

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge the cells by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, pair, seed, step)."""
        import pandas as pd

        names = ("relative", "sine", "conserved", "leading", "stable_rank")
        rows = []
        for m in measured:
            s, moments = m.cell.settings, m.values["moments"]
            for i in sorted({0, *range((len(moments) - 1) % _STRIDE, len(moments), _STRIDE)}):
                for pair in range(s["depth"] - 1):
                    rows += [
                        {"cell": m.cell.name, "pair": pair + 1, "seed": seed, "step": moments[i]}
                        | {name: m.values[name][i][pair][k] for name in names}
                        for k, seed in enumerate(s["seeds"])
                    ]
        return pd.DataFrame(rows)

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the figures of `figures`."""
        return figures(measured)


def _settings(*, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    base = {"classes": 2, "features": 10, "limit": 1800, "scale": 1.0}
    logistic = base | {"loss": "logistic"}
    for depth in (2, 3) if quick else (2, 3, 4):
        margin = {"kind": "margin", "pace": "normalised", "depth": depth}
        # Half as many steps of twice the length in a quick run.
        margin |= {"step": 0.02, "steps": 1500} if quick else {"step": 0.01, "steps": 6000}
        yield f"logistic-depth{depth}", logistic | margin
    for depth in (2,) if quick else (2, 3):
        plain = {"kind": "plain", "pace": "plain", "depth": depth, "step": 0.1}
        yield f"plain-depth{depth}", logistic | plain | {"steps": 1000 if quick else 8000}
    squared = base | {"loss": "squared", "pace": "plain", "step": 0.05}
    for depth in (2, 3) if quick else (2, 3, 4):
        bounded = {"kind": "bounded", "depth": depth, "steps": 2000}
        yield f"squared-depth{depth}", squared | bounded
    for scale in (0.1, 0.05):
        for depth in (2,) if quick else (2, 3):
            small = {"kind": "small", "depth": depth, "scale": scale, "steps": 4000}
            yield f"squared-scale{scale:g}-depth{depth}", squared | small
    for depth in (2,) if quick else (2, 3):
        classes = {"kind": "classes", "loss": "cross-entropy", "pace": "normalised"}
        classes |= {"classes": 10, "features": 32, "limit": 256, "depth": depth}
        classes |= {"step": 0.04, "steps": 1000} if quick else {"step": 0.02, "steps": 4000}
        yield f"ten-classes-depth{depth}", base | classes


EXPERIMENT = AlignmentWithoutRidge()
