"""The figures of the obstruction experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flagscope.lab.experiment import Measured
from flagscope.lab.experiments.obstruction.findings import ActivationRuns, place
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = (
    ("linear", "1-2"), ("relu", "1-2"), ("tanh", "1-2"), ("gelu", "1-2"),
    ("gated:silu", "up-down"), ("gated:silu", "gate-down"),
)  # fmt: skip


def figures(measured: Sequence[Measured]) -> dict[str, Figure]:
    """Observables over training, C against the slope, and the parts of A - B."""
    runs = ActivationRuns(measured)
    return {"over-training": _over_training(runs), "slope": _slope(runs), "parts": _parts(runs)}


def _over_training(runs: ActivationRuns) -> Figure:
    figure, axes = new_figure(1, 3)
    for ax, quantity, haar, label in zip(
        axes[0], ("C", "nu", "rho"), (1, 1, 0),
        ("commutator ratio C", "commutation defect ν", "Gram correlation ρ"), strict=True,
    ):  # fmt: skip
        for (activation, pair), colour in zip(_SHOWN, COLOURS, strict=False):
            if (cell := runs.cell(activation)) is not None:
                x, y = _series(cell, pair, quantity)
                draw_band(ax, x, y, colour=colour, label=place(activation, pair))
        ax.axhline(haar, color=COLOURS[6], ls="--", lw=1)
        ax.set_xlabel("2λt")
        ax.set_ylabel(label)
    axes[0, 0].set_yscale("log")
    axes[0, 1].set_yscale("log")
    axes[0, 0].legend(loc="lower right", fontsize=7)
    return figure


def _slope(runs: ActivationRuns) -> Figure:
    figure, axes = new_figure()
    ax = axes[0, 0]
    names = [m.cell.settings["activation"] for m in runs.measured]
    slopes = sorted({float(n.partition(":")[2]) for n in names if n.startswith("leaky:")})
    distances = np.array([1 - slope for slope in slopes])
    values = np.array([runs.values(f"leaky:{slope}", "1-2", "C") for slope in slopes])
    relu = np.array([runs.values("relu", "1-2", "C")])
    ax.plot([1.0, *distances], np.vstack([relu, values]), "o-", color=COLOURS[0], ms=3, lw=0.8)
    ax.plot(
        distances,
        values[-1].mean() * (distances / distances[-1]) ** 2,
        ls="--",
        color=COLOURS[6],
        lw=1,
    )
    ax.axhline(np.mean(runs.values("linear", "1-2", "C")), color=COLOURS[1], label="linear net")
    ax.set(xscale="log", yscale="log", xlabel="1 - slope below zero",
           ylabel="commutator ratio C at 2λt = 10")  # fmt: skip
    ax.set_ylim(bottom=float(min(values.min(), np.min(runs.values("linear", "1-2", "C")))) / 3)
    ax.legend()
    return figure


def _parts(runs: ActivationRuns) -> Figure:
    figure, axes = new_figure(1, 3, sharey=True)
    panels = (("linear", "1-2"), ("relu", "1-2"), ("gelu", "1-2"))
    for ax, (activation, pair) in zip(axes[0], panels, strict=True):
        if (cell := runs.cell(activation)) is None:
            continue
        for quantity, colour in zip(("imbalance", "decayed", "driven", "finite"), COLOURS,
                                    strict=False):  # fmt: skip
            x, y = _series(cell, pair, quantity)
            label = {"imbalance": "A - B", "finite": "finite steps"}.get(quantity, quantity)
            # Not drawn for a linear network, whose drive is round-off alone.
            draw_band(ax, x, np.clip(y, 1e-8, None), colour=colour, label=label)
        ax.set(yscale="log", xlabel="2λt", title=activation)
    axes[0, 0].set_ylabel("Frobenius norm")
    axes[0, 0].set_ylim(bottom=1e-6)
    axes[0, 0].legend()
    return figure


def _series(cell: Measured, pair: str, quantity: str) -> tuple[list[float], Any]:
    s, series = cell.cell.settings, cell.values["series"]
    time = [2 * s["decay"] * s["step"] * moment["step"] for moment in series]
    return time, np.array([moment[pair][quantity] for moment in series]).T
