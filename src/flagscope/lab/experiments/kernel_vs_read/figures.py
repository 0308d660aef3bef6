"""The figures of the experiment kernel-vs-read: scores, and soft forms over training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import (
    Measured,
)
from flagscope.lab.experiments.kernel_vs_read.findings import scores
from flagscope.lab.figures import COLOURS, draw_band, draw_estimates, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score_figure(measured: Sequence[Measured]) -> Figure:
    """Mean rank correlation of each observable with both losses, over settings."""
    figure, axes = new_figure(width=5.2)
    estimates = [*scores(measured, "loss"), *scores(measured, "held-out loss")]
    shown = [
        replace(e, name=e.name.removesuffix(", over settings"))
        for e in estimates
        if e.name.endswith(", over settings")
    ]
    draw_estimates(axes[0, 0], shown)
    axes[0, 0].axvline(0, color=COLOURS[6], lw=1)
    axes[0, 0].set_xlabel("signed rank correlation")
    return figure


def over_training_figure(measured: Sequence[Measured]) -> Figure:
    """Soft forms over training in the network of two hidden layers, by task."""
    figure, axes = new_figure(1, 2)
    chosen = [m for m in measured if m.cell.settings["hidden"] == 2
              and m.cell.settings["width"] == 32]  # fmt: skip
    for m, colour in zip(chosen, COLOURS, strict=False):
        series = m.values["series"]
        steps = [max(1, moment["step"]) for moment in series]
        for ax, name in zip(axes[0], ("read_soft", "kernel_soft"), strict=True):
            runs = np.array([moment[name] for moment in series]).T.tolist()
            draw_band(ax, steps, runs, colour=colour, label=m.cell.settings["task"])
    axes[0, 0].set_ylabel("read space, soft")
    axes[0, 1].set_ylabel("kernel, soft")
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="step")
    axes[0, 0].legend()
    return figure
