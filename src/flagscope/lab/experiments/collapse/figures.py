"""The figures of the experiment on collapse: courses over training, and times of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flagscope.lab.experiment import (
    Measured,
)
from flagscope.lab.experiments.collapse.findings import ARRIVALS, REACHED, arrivals
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def course_figure(measured: Sequence[Measured], quantities: dict[str, str], *, log: bool) -> Figure:
    """Courses over training, one panel for each configuration."""
    columns = min(4, len(measured))
    figure, axes = new_figure(-(-len(measured) // columns), columns, width=3.2, height=2.5)
    for ax, m in zip(axes.flat, measured, strict=False):
        for (label, quantity), colour in zip(quantities.items(), COLOURS, strict=False):
            runs = m.values["series"][quantity]
            if any(value is None for run in runs for value in run):
                continue
            if label.startswith("1 -"):
                # Less than one sample in all, so that zero can be shown on a log scale.
                runs = [[max(1 - value, 1e-4) for value in run] for run in runs]
            draw_band(ax, [max(1, t) for t in m.values["steps"]], runs, colour=colour, label=label)
        ax.set_xscale("log")
        if log:
            ax.set_yscale("log")
        else:
            ax.axhline(REACHED, color=COLOURS[6], ls=":", lw=1)
            ax.set_ylim(0, 1.03)
        ax.set_title(m.cell.name, fontsize=9)
        ax.set_xlabel("step")
    axes[0, 0].legend(fontsize=7)
    return figure


def arrival_figure(measured: Sequence[Measured]) -> Figure:
    """Step of arrival of each quantity, by seed."""
    figure, axes = new_figure(width=6.0, height=0.45 * len(measured) + 1.5)
    ax = axes[0, 0]
    for k, (name, *_) in enumerate(ARRIVALS):
        points = [
            (min(max(1.0, a[name]), 2.0 * m.values["steps"][-1]), row + 0.09 * (k - 3))
            for row, m in enumerate(measured)
            for a in arrivals(m)
        ]
        x, y = zip(*points, strict=True)
        ax.plot(x, y, "o", ms=4, color=COLOURS[k], label=name, alpha=0.8)
    ax.set_xscale("log")
    ax.set_xlabel("step (twice the last: never)")
    ax.set_yticks(range(len(measured)), [m.cell.name for m in measured])
    ax.set_ylim(len(measured) - 0.5, -0.5)
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
