"""The figures of the obstruction-scale experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import Measured
from flagscope.lab.experiments.obstruction_scale.findings import ALIVE, OBSTRUCTED, ScaleRuns
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = ("linear", "relu", "tanh", "gelu")
_LABELS = {
    "C": "commutator ratio C",
    "nu": "commutation defect ν",
    "rho": "Gram correlation ρ",
    "explained": "share of the targets explained",
}


def figures(measured: Sequence[Measured]) -> dict[str, Figure]:
    """Observables over λ / scale, and C over training."""
    runs = ScaleRuns(measured)
    return {"over-ratio": _over_ratio(runs), "over-time": _over_time(runs)}


def _over_ratio(runs: ScaleRuns) -> Figure:
    figure, axes = new_figure(2, 2)
    ratios = runs.ratios()
    for ax, (quantity, label) in zip(axes.flat, _LABELS.items(), strict=True):
        for activation, colour in zip(_SHOWN, COLOURS, strict=False):
            values = np.array([runs.values(activation, r, quantity) for r in ratios])
            ax.plot(ratios, values, color=colour, lw=0.6, alpha=0.6)
            ax.plot(ratios, values.mean(axis=1), "o-", color=colour, ms=3, label=activation)
        ax.set_xscale("log")
        ax.set_xlabel("λ / scale of the loss")
        ax.set_ylabel(label)
    for ax in axes[0]:
        ax.set_yscale("log")
    axes[0, 0].axhline(OBSTRUCTED, color=COLOURS[6], ls="--", lw=1)
    axes[1, 1].axhline(ALIVE, color=COLOURS[6], ls="--", lw=1)
    axes[1, 1].legend()
    return figure


def _over_time(runs: ScaleRuns) -> Figure:
    figure, axes = new_figure(1, 2, sharey=True)
    for ax, activation in zip(axes[0], ("tanh", "relu"), strict=True):
        for ratio, colour in zip(runs.ratios(), COLOURS, strict=False):
            series = runs.series(activation, ratio)
            if series is not None:
                time = [moment["time"] for moment in series]
                values = np.array([moment["C"] for moment in series]).T
                draw_band(ax, time, values.tolist(), colour=colour, label=f"{ratio:g}")
        ax.set_yscale("log")
        ax.set_xlabel("2λt")
        ax.set_title(activation)
    axes[0, 0].set_ylabel("commutator ratio C")
    axes[0, 1].legend(title="λ / scale", fontsize=7)
    return figure
