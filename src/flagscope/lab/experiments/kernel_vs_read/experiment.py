"""Kernel against read space: which of two intersections tracks training better.

The paper counts dim(write ∩ read). It is invariant under orthogonal changes of the shared basis
alone, and blind without a notion of noise: generic maps have full rank, and the widths set the
dimension. The kernel intersection dim(write ∩ ker W2) = rank W1 - rank(W2 W1) is invariant under
every change, and as blind. So each is also counted with a threshold and taken softly:

- read, counted: principal cosines of the dominant spaces beyond chance, over the smaller rank;
- read, soft: Σ cos² over its Haar mean, minus 1;
- kernel, counted: 1 - rank(W2 V)/r1, gains below a tenth of W2's largest singular value being none;
- kernel, soft: share of ‖W1‖² in W2's directions of such small gain, minus its Haar mean.

Scores, fixed before measuring: Spearman's correlation over the moments of one training with the
fall of the loss, signed so that + means "written comes to be read, and is lost no longer"; 0 for a
number that never moves; averaged over seeds and over settings, which are depths, widths and tasks.
The four tasks hold one control, on random labels.

Settings share seeds and pictures, and seeds share settings; so each mean stands there twice, with
its interval over seeds and with that over settings, and a verdict needs both.

**What was known when.** A first run had other seeds than the one reported. After it the control on
random labels got a part of its own, and the kernel count, first of cosines beyond chance and always
0, became a rank with a threshold. Intervals over seeds were added when the results were in, beside
those over settings, and changed no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flagscope.lab.data import load_images, split_indices
from flagscope.lab.experiment import (
    Cell,
    Experiment,
    Finding,
    Measured,
    Options,
    beyond_the_paper,
)
from flagscope.lab.experiments.kernel_vs_read.figures import over_training_figure, score_figure
from flagscope.lab.experiments.kernel_vs_read.findings import (
    SIGNS,
    comparison_findings,
    exact_findings,
    tracking_findings,
)
from flagscope.lab.experiments.kernel_vs_read.intersections import intersections
from flagscope.lab.networks import Network, initial_network
from flagscope.lab.rank_rule import LAB_RULE
from flagscope.lab.training import (
    Optimiser,
    batch_indices,
    cross_entropy,
    recording_times,
    train,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TASKS = ("digits", "half-noise", "shuffled", "parity")
_NOISE = {"half-noise": 0.5, "shuffled": 1.0}


class KernelVsRead(Experiment):
    """Trains ReLU perceptrons of several depths, widths and tasks, and computes correlations."""

    name = "kernel-vs-read"
    title = "Which of two intersections tracks training"
    claim = (
        "The intersection of the write space with the read space, the paper's invariant, follows "
        "training; flagscope's GL(d)-invariant alternative is the intersection with the kernel."
    )
    source = "arXiv 2605.09861 against spec, section 2"
    budget_minutes = 10
    rank_rule = LAB_RULE
    figures = (
        (
            "scores",
            "Rank correlation with the fall of the training loss, signed as predicted: mean "
            "over depths, widths and tasks with its 95 % interval over these settings.",
        ),
        (
            "over-training",
            "Soft forms over training in one network (two hidden layers), by task; "
            "mean and range of the seeds.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each task, depth and width, with all seeds in one tensor program."""
        # From 10 on: the verdict rules were tried out on smaller seeds.
        seeds = list(range(10, 10 + (options.seeds or (3 if options.quick else 6))))
        shared = {"data": options.data or "digits", "seeds": seeds, "batch": 128, "step": 2e-3}
        shared |= {"decay": 1e-2, "steps": 600 if options.quick else 1000}
        shared |= {"moments": 12 if options.quick else 16}
        depths, widths = ((2,), (32,)) if options.quick else ((2, 4), (32, 96))
        return [
            Cell(
                f"{task}-{depth}x{width}",
                shared | {"task": task, "hidden": depth, "width": width},
                cost=depth * width,
            )
            for task in TASKS
            for depth in depths
            for width in widths
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train, and record losses and both intersections, averaged over adjacent pairs."""
        s = cell.settings
        (x, y), (x_held, y_held), classes = _task(s["data"], s["task"])
        widths = [x.shape[1], *[s["width"]] * s["hidden"], classes]
        network = initial_network(
            widths, s["seeds"], activation="relu", scale="he", dtype=torch.float32
        )
        optimiser = Optimiser("adamw", step=s["step"], decay=s["decay"])
        # Different from the seeds of the initial weights.
        generators = [torch.Generator().manual_seed(seed + 10**6) for seed in s["seeds"]]
        series: list[dict[str, Any]] = []

        def loss(_: int) -> Tensor:
            rows = batch_indices(len(x), s["batch"], generators)
            return cross_entropy(network(x[rows]), y[rows])

        def record(n: int) -> None:
            losses = {"loss": _losses(network, x, y), "held-out loss": _losses(network, x_held,
                                                                               y_held)}  # fmt: skip
            series.append({"step": n, **losses, **_observables(network)})

        train(
            optimiser.build(network.parameters),
            loss,
            steps=s["steps"],
            record=record,
            at=recording_times(s["steps"], s["moments"], first=2),
            report=report,
        )
        return {"series": series}

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge scores and their differences, by the rules stated in the predictions."""
        return (
            *tracking_findings(measured),
            *beyond_the_paper(*comparison_findings(measured), *exact_findings(measured)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, seed, step, quantity)."""
        import pandas as pd

        return pd.DataFrame(
            [
                (m.cell.name, seed, moment["step"], quantity, values[i])
                for m in measured
                for moment in m.values["series"]
                for quantity, values in moment.items()
                if quantity != "step"
                for i, seed in enumerate(m.cell.settings["seeds"])
            ],
            columns=["cell", "seed", "step", "quantity", "value"],
        )

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw scores with intervals, and the soft forms over training."""
        return {"scores": score_figure(measured), "over-training": over_training_figure(measured)}


def _task(source: str, task: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Training images and labels, held-out ones with true labels, and the number of classes."""
    data = load_images(source, dtype=torch.float32, limit=1797)
    labels, classes = (data.labels % 2, 2) if task == "parity" else (data.labels, data.classes)
    trained, held = split_indices(len(labels), 1 / 3, seed=1)
    generator = torch.Generator().manual_seed(2)
    noisy = labels[trained]
    wrong = torch.rand(len(trained), generator=generator) < _NOISE.get(task, 0.0)
    drawn = torch.randint(classes, (len(trained),), generator=generator)
    noisy = torch.where(wrong, drawn, noisy)
    return (data.inputs[trained], noisy), (data.inputs[held], labels[held]), classes


def _losses(network: Network, x: Tensor, y: Tensor) -> list[float]:
    with torch.no_grad():
        output = network(x)
    return [float(cross_entropy(logits[None], y)) for logits in output]


def _observables(network: Network) -> dict[str, list[float]]:
    """Each observable, averaged over adjacent pairs, one number for each seed."""
    means: dict[str, list[float]] = {name: [] for name in SIGNS}
    for seed in range(len(network.weights[0])):
        maps = [weight[seed] for weight in network.weights]
        pairs = [asdict(intersections(*pair)) for pair in pairwise(maps)]
        for name in SIGNS:
            means[name].append(float(np.mean([pair[name] for pair in pairs])))
    return means


EXPERIMENT = KernelVsRead()
