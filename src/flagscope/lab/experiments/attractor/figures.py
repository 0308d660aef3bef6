"""The figures of the experiment on the attractor: ranks, singular values, courses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flagscope.lab.experiment import Measured, of_kind
from flagscope.lab.experiments.attractor.limits import (
    survival_threshold,
    surviving_value,
)
from flagscope.lab.experiments.attractor.records import STRENGTHS
from flagscope.lab.experiments.attractor.training import DECAYS, FLAG
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def rank_figure(cells: Sequence[Measured]) -> Figure:
    """Final ranks against λ, by depth."""
    figure, axes = new_figure(1, 2)
    for ax, depth in zip(axes[0], DECAYS, strict=True):
        chosen = [m for m in cells if m.cell.settings["depth"] == depth]
        grid = np.linspace(0.02, max(m.cell.settings["decay"] for m in chosen) + 0.05, 400)
        expected = [sum(t > survival_threshold(x, depth) for t in STRENGTHS) for x in grid]
        ax.plot(grid, expected, color=COLOURS[6], lw=0.8, label="predicted")
        for name, marker, colour, shift in (
            ("W1", "o", COLOURS[0], -0.012), ("W2", "s", COLOURS[2], 0.0),
            ("product", "x", COLOURS[1], 0.012),
        ):  # fmt: skip
            points = [
                (m.cell.settings["decay"] + shift, _rank(run, name))
                for m in chosen
                for run in m.values["runs"]
            ]
            ax.plot(*np.transpose(points), marker, color=colour, ms=5, label=name)
        ax.set_xlabel("λ")
        ax.set_ylabel("rank at the end")
        ax.set_title(f"depth {depth}")
        ax.legend()
    return figure


def _rank(run: dict[str, Any], name: str) -> int:
    if name == "product":
        return run["rank_of_product"]
    return run["ranks"][int(name[1]) - 1]


def value_figure(cells: Sequence[Measured]) -> Figure:
    """Final singular values of the product against λ, with their closed forms."""
    figure, axes = new_figure(1, 2)
    for ax, depth in zip(axes[0], DECAYS, strict=True):
        chosen = [m for m in cells if m.cell.settings["depth"] == depth]
        grid = np.linspace(0.001, max(m.cell.settings["decay"] for m in chosen) + 0.05, 400)
        for t, colour in zip(STRENGTHS, COLOURS, strict=False):
            curve = [surviving_value(t, x, depth) for x in grid]
            ax.plot(
                grid,
                [math.nan if y is None else y for y in curve],
                color=colour,
                label=f"t = {t:g}",
            )
        points = [
            (m.cell.settings["decay"], value)
            for m in chosen
            for run in m.values["runs"]
            for value in run["values"]
        ]
        ax.plot(*np.transpose(points), "x", color=COLOURS[6], ms=5)
        ax.set_xlabel("λ")
        ax.set_ylabel("singular values of the product")
        ax.set_title(f"depth {depth}")
        ax.legend()
    return figure


def course_figure(measured: Sequence[Measured]) -> Figure:
    """Imbalance, angle and dimensions over time."""
    figure, axes = new_figure(1, 3, width=3.8)
    compared = [
        ("loss and ridge", next(m for m in of_kind(measured, "whitened") if _like_no_loss(m))),
        ("ridge, no loss", *of_kind(measured, "no loss")),
    ]
    for ax, name, label in zip(
        axes[0, :2],
        ("imbalance", "sine"),
        ("‖A - B‖ / (‖A‖ + ‖B‖)", "largest sine of leading spaces"),
        strict=True,
    ):
        for (title, m), colour in zip(compared, COLOURS, strict=False):
            course = m.values["course"]
            end = of_kind(measured, "no loss")[0].cell.settings["until"] * 4
            indices = [i for i, t in enumerate(course["time"]) if t <= end]
            times = [2 * m.cell.settings["decay"] * course["time"][i] for i in indices]
            runs = np.transpose([course[name][i] for i in indices]).tolist()
            draw_band(ax, times, runs, colour=colour, label=title)
        ax.set_yscale("log")
        ax.set_xlabel("2λt")
        ax.set_ylabel(label)
        ax.legend()
    _draw_flags(axes[0, 2], of_kind(measured, "flag"))
    return figure


def _like_no_loss(m: Measured) -> bool:
    """Whether a cell has depth 2 and the λ of the cell without a loss."""
    return m.cell.settings["depth"] == 2 and m.cell.settings["decay"] == 0.3


def _draw_flags(ax: Axes, cells: Sequence[Measured]) -> None:
    """Draw the dimensions of V and U; that of V is the same for every λ, so one line shows it."""
    for m, colour in zip(cells, COLOURS, strict=False):
        course = m.values["course"]
        label = f"dim U, λ = {m.cell.settings['decay']:g}"
        ax.plot(course["time"][1:], np.mean(course["read"], axis=1)[1:], color=colour, label=label)
    for m in cells:
        course = m.values["course"]
        label = "dim V" if m is cells[0] else None
        mean = np.mean(course["write"], axis=1)
        ax.plot(course["time"][1:], mean[1:], "--", color=COLOURS[6], label=label)
    ax.set_xscale("log")
    ax.set_ylim(0, FLAG[1] + 0.5)
    ax.set_xlabel("t")
    ax.set_ylabel("dimensions from a strict flag")
    ax.legend(loc="lower left", fontsize=7)
