"""The figures of the experiment on alignment without ridge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import Measured
from flagscope.lab.experiments.alignment_without_ridge.quantities import sorted_by_depth
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(measured: Sequence[Measured]) -> dict[str, Figure]:
    """Alignment over the norm and over steps, and the ranks of the layers."""
    return {
        "over-norm": _over_norm(measured),
        "over-steps": _over_steps(measured),
        "ranks": _ranks(measured),
    }


def _over_norm(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 2)
    labels = {"relative": "‖A - B‖ / (‖A‖ + ‖B‖)", "sine": "sine of leading vectors"}
    for ax, (name, label) in zip(axes[0], labels.items(), strict=True):
        for m, colour in zip(sorted_by_depth(measured, "margin"), COLOURS, strict=False):
            # The norm is the mean over seeds; bands are ranges of the values.
            x = np.array(m.values["leading"])[:, 0].mean(axis=-1)
            y = np.array(m.values[name])[:, 0].T
            depth = m.cell.settings["depth"]
            draw_band(ax, x.tolist(), y.tolist(), colour=colour, label=f"depth {depth}")
            ax.plot(x, y[:, -1].mean() * x[-1] / x, color=colour, ls="--", lw=0.8)
        ax.set(xscale="log", yscale="log", xlabel="σ_1² of the first layer", ylabel=label)
        ax.set_ylim(top=2)
    axes[0, 0].legend()
    return figure


def _over_steps(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    depth = 2
    shown = {
        "margin": "logistic, steps of one length",
        "plain": "logistic, plain steps",
        "bounded": "squared",
        "small": "squared, scale",
        "classes": "ten classes",
    }
    cells = [
        (m, label)
        for kind, label in shown.items()
        for m in sorted_by_depth(measured, kind)
        if m.cell.settings["depth"] == depth
    ]
    for (m, label), colour in zip(cells, COLOURS, strict=False):
        s = m.cell.settings
        word = f"{label} {s['scale']:g}" if s["kind"] == "small" else label
        steps = np.array(m.values["moments"]) + 1
        runs = np.array(m.values["relative"])[:, 0].T
        draw_band(ax, steps.tolist(), runs.tolist(), colour=colour, label=word)
    ax.set(xscale="log", yscale="log", xlabel="steps + 1", title=f"depth {depth}")
    ax.set_ylabel("‖A - B‖ / (‖A‖ + ‖B‖)")
    ax.legend(fontsize=7)
    return figure


def _ranks(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 2, sharey=True)
    for ax, kind, title in zip(
        axes[0], ("margin", "classes"), ("two classes", "ten classes"), strict=True
    ):
        m = sorted_by_depth(measured, kind)[-1]
        x = np.array(m.values["moments"]) + 1
        layers = np.array(m.values["stable_rank"])
        for layer, colour in zip(range(layers.shape[1]), COLOURS, strict=False):
            runs = layers[:, layer].T.tolist()
            draw_band(ax, x.tolist(), runs, colour=colour, label=f"layer {layer + 1}")
        ax.set(xscale="log", xlabel="steps + 1")
        ax.set_title(f"{title}, depth {m.cell.settings['depth']}")
        ax.legend(fontsize=7)
    axes[0, 0].set_ylabel("‖W‖² / σ_1²")
    axes[0, 0].set_ylim(bottom=0)
    return figure
