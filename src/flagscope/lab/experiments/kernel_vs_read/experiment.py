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

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from flagscope.lab.data import load_images, split_indices
from flagscope.lab.experiment import (
    Cell,
    Estimate,
    Experiment,
    Finding,
    Measured,
    Options,
    Prediction,
    beyond_the_paper,
)
from flagscope.lab.experiments.kernel_vs_read.intersections import intersections
from flagscope.lab.figures import COLOURS, draw_band, draw_estimates, new_figure
from flagscope.lab.intervals import CORRELATION, band_verdict, mean_interval, share_interval
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

# Observable -> sign with which it should move as the loss falls: what is written comes to be read,
# and no longer lost. Fixed before anything is measured.
SIGNS = {
    "read_exact": 1, "kernel_exact": -1,
    "read_count": 1, "kernel_count": -1,
    "read_soft": 1, "kernel_soft": -1,
}  # fmt: skip
TASKS = ("digits", "half-noise", "shuffled", "parity")
_NOISE = {"half-noise": 0.5, "shuffled": 1.0}
_FORMS = {"soft": "soft", "count": "counted"}


class KernelVsRead(Experiment):
    """Trains ReLU perceptrons of several depths, widths and tasks, and correlates."""

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
        """One cell a task, depth and width, all seeds in one tensor program."""
        # From 10 on: the rules of the verdicts were tried out on the seeds before.
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
        # Far from the seeds of the initial weights.
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
        """Scores and their differences; the rules stand in the predictions' words."""
        return (
            *_tracking(measured),
            *beyond_the_paper(*_comparisons(measured), *_exact(measured)),
        )

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row a (cell, seed, step, quantity)."""
        import pandas as pd

        return pd.DataFrame(
            [
                (m.cell.name, seed, at["step"], quantity, values[i])
                for m in measured
                for at in m.values["series"]
                for quantity, values in at.items()
                if quantity != "step"
                for i, seed in enumerate(m.cell.settings["seeds"])
            ],
            columns=["cell", "seed", "step", "quantity", "value"],
        )

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Scores with intervals, and the soft forms over training."""
        scores, axes = new_figure(width=5.2)
        estimates = [*_scores(measured, "loss"), *_scores(measured, "held-out loss")]
        shown = [
            replace(e, name=e.name.removesuffix(", over settings"))
            for e in estimates
            if e.name.endswith(", over settings")
        ]
        draw_estimates(axes[0, 0], shown)
        axes[0, 0].axvline(0, color=COLOURS[6], lw=1)
        axes[0, 0].set_xlabel("signed rank correlation")
        return {"scores": scores, "over-training": _over_training(measured)}


def _task(source: str, task: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Training pictures and labels, held-out ones with true labels, and the number of classes."""
    data = load_images(source, dtype=torch.float32, limit=1797)
    labels, classes = (data.labels % 2, 2) if task == "parity" else (data.labels, data.classes)
    kept, held = split_indices(len(labels), 1 / 3, seed=1)
    generator = torch.Generator().manual_seed(2)
    given = labels[kept]
    wrong = torch.rand(len(kept), generator=generator) < _NOISE.get(task, 0.0)
    drawn = torch.randint(classes, (len(kept),), generator=generator)
    given = torch.where(wrong, drawn, given)
    return (data.inputs[kept], given), (data.inputs[held], labels[held]), classes


def _losses(network: Network, x: Tensor, y: Tensor) -> list[float]:
    with torch.no_grad():
        output = network(x)
    return [float(cross_entropy(one[None], y)) for one in output]


def _observables(network: Network) -> dict[str, list[float]]:
    """Each observable averaged over the adjacent pairs, one number a seed."""
    found: dict[str, list[float]] = {name: [] for name in SIGNS}
    for seed in range(len(network.weights[0])):
        maps = [weight[seed] for weight in network.weights]
        pairs = [asdict(intersections(*pair)) for pair in pairwise(maps)]
        for name in SIGNS:
            found[name].append(float(np.mean([pair[name] for pair in pairs])))
    return found


def _correlation(m: Measured, seed: int, observable: str, target: str) -> float:
    """Signed Spearman correlation of an observable with the fall of a loss, over one training.

    0 for an observable that never moves: it tracks nothing.
    """
    x = [at[observable][seed] for at in m.values["series"]]
    y = [-at[target][seed] for at in m.values["series"]]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return SIGNS[observable] * float(np.asarray(stats.spearmanr(x, y))[0])


def _correlations(
    measured: Sequence[Measured], observable: str, target: str
) -> Float[np.ndarray, "settings seeds"]:
    """The correlation of every setting and seed."""
    return np.array(
        [
            [_correlation(m, i, observable, target) for i in range(len(m.cell.settings["seeds"]))]
            for m in measured
        ]
    )


def _twice(
    name: str,
    values: Float[np.ndarray, "settings seeds"],
    bounds: tuple[float, float] = CORRELATION,
) -> list[Estimate]:
    """The mean with its interval over seeds, and with that over settings.

    The first says what other seeds would give in these settings, the second how much it is a
    matter of the setting. Neither holds the other: settings share seeds and pictures.
    """
    return [
        mean_interval(f"{name}, over settings", values.mean(axis=1), bounds=bounds),
        mean_interval(f"{name}, over seeds", values.mean(axis=0), bounds=bounds),
    ]


def _scores(measured: Sequence[Measured], target: str) -> list[Estimate]:
    return [
        estimate
        for name in SIGNS
        if not name.endswith("exact")
        for estimate in _twice(
            f"{name.replace('_', ', ')}: {target}", _correlations(measured, name, target)
        )
    ]


def _tracking(measured: Sequence[Measured]) -> Iterator[Finding]:
    for side, words in (("read", "read space"), ("kernel", "kernel")):
        estimates = tuple(e for e in _scores(measured, "loss") if e.name.startswith(side))
        yield Finding(
            f"The intersection with the {words} tracks training",
            Prediction(
                "mean signed rank correlation with the fall of the loss above 0.5, soft and "
                "counted",
                0.5,
                "fixed beforehand",
            ),
            estimates,
            band_verdict(estimates, 0.5, math.inf),
            "Correlated over the moments of each training; mean over depths, widths and tasks, "
            f"which are the settings. By task {_by_task(measured, side)}.",
            beyond=side == "kernel",
        )


def _by_task(measured: Sequence[Measured], side: str) -> str:
    """Means of the soft and the counted form on each task."""
    found = []
    for task in dict.fromkeys(m.cell.settings["task"] for m in measured):
        chosen = [m for m in measured if m.cell.settings["task"] == task]
        means = [_correlations(chosen, f"{side}_{form}", "loss").mean() for form in _FORMS]
        found.append(f"{task} {means[0]:.2f} and {means[1]:.2f}")
    return "; ".join(found)


def _comparisons(measured: Sequence[Measured]) -> Iterator[Finding]:
    for target in ("loss", "held-out loss"):
        estimates: list[Estimate] = []
        for form, words in _FORMS.items():
            kernel, read = (
                _correlations(measured, f"{side}_{form}", target) for side in ("kernel", "read")
            )
            estimates += _twice(f"kernel - read, {words}", kernel - read, (-2.0, 2.0))
        yield Finding(
            f"The kernel tracks the {target} better than the read space does",
            Prediction(
                "difference of the signed rank correlations above 0",
                0.0,
                "the kernel is invariant under GL(d), the read space is not",
            ),
            tuple(estimates),
            band_verdict(estimates, 0.0, math.inf),
            "Difference taken training by training. " + _no_larger_than(estimates),
        )
    yield from _control(measured)
    yield from _across_runs(measured)


def _no_larger_than(estimates: Sequence[Estimate]) -> str:
    bounds = [
        f"{max(abs(e.low), abs(e.high)):.2f} ({e.name.partition(', ')[2]})"
        for e in estimates
        if e.low is not None and e.high is not None
    ]
    return f"Largest difference that each interval allows: {', '.join(bounds)}." if bounds else ""


def _control(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Trainings on labels that are random, where nothing can be learnt about other pictures."""
    chosen = [m for m in measured if m.cell.settings["task"] == "shuffled"]
    estimates = tuple(_scores(chosen, "held-out loss"))
    yield Finding(
        "Either intersection tells learning from memorising",
        Prediction(
            "on random labels, where the held-out loss rises, the signed rank correlation with its "
            "fall is not below 0",
            0.0,
            "control on a destroyed task; spec, section 6",
        ),
        estimates,
        band_verdict(estimates, 0.0, math.inf),
        "Below 0 the intersections grow as they do on true labels: they follow how far training "
        "has carried the weights, not what was learnt.",
    )


def _across_runs(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Among trained networks of one shape, whose labels were more or less destroyed."""
    shapes: dict[str, list[Measured]] = {}
    for m in measured:
        if m.cell.settings["task"] != "parity":
            shapes.setdefault(m.cell.name.rpartition("-")[2], []).append(m)
    estimates: list[Estimate] = []
    ranges: list[str] = []
    for observable in ("read_soft", "kernel_soft", "read_count", "kernel_count"):
        values: list[float] = []
        for group in shapes.values():
            ends = [(m.values["series"][-1], i) for m in group
                    for i in range(len(m.cell.settings["seeds"]))]  # fmt: skip
            x = [at[observable][i] for at, i in ends]
            y = [-at["held-out loss"][i] for at, i in ends]
            still = np.ptp(x) == 0 or np.ptp(y) == 0
            rho = 0.0 if still else float(np.asarray(stats.spearmanr(x, y))[0])
            values.append(SIGNS[observable] * rho)
        name = observable.replace("_", ", ")
        estimates.append(mean_interval(name, values, bounds=CORRELATION))
        ranges.append(f"{name}: {min(values):.2f} … {max(values):.2f}")
    yield Finding(
        "Among trained networks of one shape, better intersections mean a lower held-out loss",
        Prediction(
            "signed rank correlation with the held-out loss above 0 for each of the four",
            0.0,
            "fixed beforehand",
        ),
        tuple(estimates),
        band_verdict(estimates, 0.0, math.inf),
        "Runs differ in seed and in the share of their labels that is random: 0, ½, 1. Intervals "
        f"are over shapes, too few to decide anything. From shape to shape {'; '.join(ranges)}.",
    )


def _exact(measured: Sequence[Measured]) -> Iterator[Finding]:
    for name in ("read_exact", "kernel_exact"):
        still = [
            bool(np.ptp([at[name][i] for at in m.values["series"]]) == 0)
            for m in measured
            for i in range(len(m.cell.settings["seeds"]))
        ]
        yield Finding(
            f"Without a notion of noise {name.replace('_exact', '')} intersections see nothing",
            Prediction(
                "the exact dimension never moves in training: stored maps have full rank",
                1.0,
                "spec, section 2",
            ),
            (share_interval(f"share of trainings in which {name} stayed", still),),
            "confirmed" if all(still) else "refuted",
            "Exact dimensions are set by the widths alone. One training in which they moved would "
            "refute it.",
        )


def _over_training(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 2)
    chosen = [m for m in measured if m.cell.settings["hidden"] == 2
              and m.cell.settings["width"] == 32]  # fmt: skip
    for m, colour in zip(chosen, COLOURS, strict=False):
        series = m.values["series"]
        steps = [max(1, at["step"]) for at in series]
        for ax, name in zip(axes[0], ("read_soft", "kernel_soft"), strict=True):
            runs = np.array([at[name] for at in series]).T.tolist()
            draw_band(ax, steps, runs, colour=colour, label=m.cell.settings["task"])
    axes[0, 0].set_ylabel("read space, soft")
    axes[0, 1].set_ylabel("kernel, soft")
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="step")
    axes[0, 0].legend()
    return figure


EXPERIMENT = KernelVsRead()
