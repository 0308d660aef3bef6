"""Figures of the experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import Measured
from flagscope.lab.experiments.merge_prediction.claims import correlations, drops, measure
from flagscope.lab.experiments.merge_prediction.merges import MERGES
from flagscope.lab.experiments.merge_prediction.predictors import BY_NAME, PREDICTORS, TUNINGS
from flagscope.lab.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLES = {"full": "full fine-tuning", "lora": "LoRA"}
_SHOWN = ("energy_cosine", "gradient_cosine")


def correlations_figure(measured: Sequence[Measured]) -> Figure:
    """Intervals of every predictor, one panel for each kind of fine-tuning."""
    figure, axes = new_figure(1, len(TUNINGS), width=5.2, height=5.4, sharey=True, sharex=True)
    for row, predictor in enumerate(PREDICTORS):
        estimates = {e.name: e for e in correlations(predictor)(measured)}
        for ax, tuning in zip(axes[0], TUNINGS, strict=True):
            for k, (method, colour) in enumerate(zip(MERGES, COLOURS, strict=False)):
                e = estimates.get(f"ρ, {method}, {tuning}")
                if e is None:
                    continue
                height = row + 0.15 * (k - (len(MERGES) - 1) / 2)
                ax.plot([e.low, e.high], [height, height], color=colour, lw=1.2)
                ax.plot([e.value], [height], "o", color=colour, ms=3)
    for ax, tuning in zip(axes[0], TUNINGS, strict=True):
        ax.axvline(0, color="0.4", lw=0.8)
        ax.set(title=_TITLES[tuning], xlabel="Spearman's ρ with what the pair loses", xlim=(-1, 1))
        for method, colour in zip(MERGES, COLOURS, strict=False):
            ax.plot([], [], "o-", color=colour, ms=3, label=method)
    labels = [f"{p.label} ({'+' if p.sign > 0 else '-'})" for p in PREDICTORS]
    axes[0, 0].set_yticks(range(len(PREDICTORS)), labels)
    axes[0, 0].set_ylim(len(PREDICTORS) - 0.5, -0.5)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(MERGES)
    )
    return figure


def losses_figure(measured: Sequence[Measured]) -> Figure:
    """What pairs lose against two predictors."""
    figure, axes = new_figure(len(_SHOWN), len(TUNINGS), width=4.2, height=2.8)
    for column, tuning in enumerate(TUNINGS):
        for row, name in enumerate(_SHOWN):
            ax = axes[row, column]
            x = np.array(measure(measured, tuning, name), dtype=float).mean(0)
            for method, colour in zip(MERGES, COLOURS, strict=False):
                y = np.array(drops(measured, tuning, method), dtype=float).mean(0)
                ax.plot(x, y, ".", ms=4, color=colour, label=method)
            ax.set(xlabel=BY_NAME[name].label, ylabel="share lost", title=_TITLES[tuning])
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(MERGES)
    )
    return figure
