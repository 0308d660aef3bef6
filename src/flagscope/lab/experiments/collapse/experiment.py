"""Neural collapse and the levels of alignment: the second comes, does the third?

Networks are trained far beyond zero error, and NC1 to NC4 of the features are measured beside the
grades of the three levels of every adjacent pair. The claim is judged on the *last* pair, which
ends in the classifier: it is the one that neural collapse speaks of.

- Level 1 (rank) is read at the participation ratios of the two maps.
- Levels 2 and 3 are read at the K - 1 leading directions, the dimension to which collapse confines
  the features. A participation ratio that rounds to 8 in one map and to 9 in the other would
  otherwise keep level 2 from being reached, whatever the spaces.
- Level 3 asks for two things: Grams that commute, and matched blocks of singular directions that
  agree. Grams on one common space nearly commute whatever their bases, so the first says little
  once level 2 is there. Beside it stands the commutation *within* the dominant space, with the
  common part centred away; and beside the agreement of the blocks what it would be if bases were
  turned at random in the common space.
- At exact collapse the classifier's singular values are all equal. Its bases then mean nothing, and
  level 3 would hold with level 2: blocks of values that agree within some 2 % count as wholes.
- Raw grades depend on the scales of neurons, which ReLU leaves free. *Balanced* grades are read
  after they are fixed by diag A = diag B. The last pair of a residual network has no such freedom.
- Weight decay acts on all parameters alike, biases and normalisations included.

**What was known when.** Thresholds stood before the full run. Trial runs with λ = 2e-3 chose sizes,
and one moved the resolution of blocks from 0.01 to 0.003, since nearly all values fell into one.
The commutation within the dominant space was added then; no verdict rests on it. The interval of
the order became Clopper and Pearson's after the results were in, which changed no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from flagscope.lab.data import load_images
from flagscope.lab.experiment import (
    Cell,
    Experiment,
    Finding,
    Measured,
    Options,
    beyond_the_paper,
)
from flagscope.lab.experiments.collapse.figures import arrival_figure, course_figure
from flagscope.lab.experiments.collapse.findings import (
    configuration_finding,
    order_finding,
)
from flagscope.lab.experiments.collapse.terminal_phase import (
    Perceptrons,
    SmallResNets,
    balanced_part,
    terminal_phase,
)
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.lab.training import Optimiser

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DECAY = 2e-3


class Collapse(Experiment):
    """Measures NC1 to NC4 and levels 1 to 3 of the pair that ends in the classifier."""

    name = "collapse"
    title = "Neural collapse and the levels of alignment"
    claim = (
        "Where neural collapse comes, the last pair of maps reaches level 2 (its dominant spaces "
        "coincide) and does not reach level 3 (a common basis)."
    )
    source = "arXiv 2605.09861; NC1 to NC4 after Papyan, Han and Donoho, PNAS 2020"
    budget_minutes = 10.0
    rank_rule = LAB_RULE
    figures = (
        (
            "collapse",
            "NC1 to NC4 over training: mean of the seeds, band from least to greatest; 1 - NC4 of "
            "less than 1e-4, no sample at all, is drawn there.",
        ),
        (
            "levels",
            "Grades of the three levels of the last pair over training, in the same runs; dotted: "
            "the grade from which a level counts as reached.",
        ),
        ("arrivals", "When each quantity arrived for good, seed by seed; at the right, never."),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each network, loss and decay."""
        cells = []
        for network in ("mlp", "resnet"):
            for loss in ("mse", "ce"):
                for decay in (DECAY, 0.0):
                    settings = _settings(network, options) | {
                        "loss": loss, "decay": decay, "data": options.data or "digits",
                    }  # fmt: skip
                    name = f"{network}-{loss}-{'decay' if decay else 'free'}"
                    cells.append(Cell(name, settings, cost=2.0 if network == "resnet" else 1.0))
        return cells

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train all seeds of one configuration, and measure on the way."""
        s = cell.settings
        images = balanced_part(load_images(s["data"], dtype=torch.float32), s["per_class"])
        if s["network"] == "mlp":
            widths = [images.inputs.shape[1], *s["hidden"], images.classes]
            networks = Perceptrons(widths, s["seeds"])
        else:
            networks = SmallResNets(s["channels"], images.classes, s["seeds"])
        return terminal_phase(
            networks, images, seeds=s["seeds"], loss=s["loss"],
            optimiser=Optimiser(step=s["step"], decay=s["decay"], momentum=s["momentum"]),
            steps=s["steps"], batch=s["batch"], records=s["records"], report=report,
        )  # fmt: skip

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge every configuration, and the order in which levels are reached."""
        return (
            *(configuration_finding(m) for m in measured),
            *beyond_the_paper(order_finding(measured)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each cell, seed, step and quantity."""
        import pandas as pd

        rows = [
            (m.cell.name, seed, step, quantity, value)
            for m in measured
            for quantity, runs in m.values["series"].items()
            for seed, run in zip(m.cell.settings["seeds"], runs, strict=True)
            for step, value in zip(m.values["steps"], run, strict=True)
        ]
        return pd.DataFrame(rows, columns=["cell", "seed", "step", "quantity", "value"])

    def draw(
        self,
        measured: Sequence[Measured],
        findings: Sequence[Finding],
    ) -> dict[str, Figure]:
        """Draw the courses of both kinds, and the times of arrival."""
        collapse = {"NC1": "nc1", "NC2": "nc2", "NC3": "nc3", "1 - NC4": "nc4"}
        levels = {"level 1": "last/rank", "level 2": "last/subspace", "level 3": "last/basis"}
        return {
            "collapse": course_figure(measured, collapse, log=True),
            "levels": course_figure(measured, levels, log=False),
            "arrivals": arrival_figure(measured),
        }


def _settings(network: str, options: Options) -> dict[str, Any]:
    """Sizes that fit the budget."""
    quick = options.quick
    common = {
        "network": network, "momentum": 0.9, "step": 0.05, "batch": 64,
        "records": 8 if quick else 30, "per_class": 20 if quick else 60,
    }  # fmt: skip
    if network == "mlp":
        seeds = options.seeds or (2 if quick else 6)
        own = {"hidden": [64, 64], "steps": 150 if quick else 10_000}
    else:
        seeds = options.seeds or (2 if quick else 4)
        own = {"channels": [8, 16, 32], "steps": 40 if quick else 5000}
    return common | own | {"seeds": list(range(seeds))}


EXPERIMENT = Collapse()
