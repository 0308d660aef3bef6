"""The figures of the ridge-rate experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import Finding, Measured, of_kind
from flagscope.lab.experiments.ridge_rate.control_findings import draw_controls
from flagscope.lab.experiments.ridge_rate.findings import RATE_BAND, seed_means
from flagscope.lab.figures import COLOURS, draw_band, draw_estimates, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
    """Decay, rates, angles, step sizes and optimisers."""
    return {
        "decay": _draw_decay(of_kind(measured, "rate")),
        "rates": _draw_rates(findings),
        "angles": _draw_angles(of_kind(measured, "rate")),
        "steps": draw_steps(of_kind(measured, "step")),
        "optimisers": _draw_optimisers(measured),
        "controls": draw_controls(of_kind(measured, "control")),
    }


def _draw_decay(cells: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 2)
    depths = sorted({m.cell.settings["depth"] for m in cells})
    for ax, depth in zip(axes[0], (depths[0], depths[-1]), strict=True):
        chosen = [m for m in cells if m.cell.settings["depth"] == depth]
        widest = max(m.cell.settings["width"] for m in chosen)
        for m, colour in zip(
            (m for m in chosen if m.cell.settings["width"] == widest), COLOURS, strict=False
        ):
            label = f"λ = {m.cell.settings['decay']:g}"
            draw_band(ax, m.values["time"], m.values["size"], colour=colour, label=label)
        time = np.linspace(0, max(m.cell.settings["until"] for m in chosen), 50)
        start = np.mean([s[0] for s in chosen[-1].values["size"]])
        ax.plot(time, start * np.exp(-time), color=COLOURS[6], ls="--", lw=1, label="law")
        ax.set_yscale("log")
        ax.set_xlabel("2λt")
        ax.set_ylabel("‖A - B‖, first pair")
        ax.set_title(f"depth {depth}, width {widest}")
    axes[0, 0].legend()
    return figure


def _draw_rates(findings: Sequence[Finding]) -> Figure:
    figure, axes = new_figure(1, 1, width=6, height=3)
    draw_estimates(axes[0, 0], findings[0].estimates + findings[1].estimates, predicted=1.0)
    axes[0, 0].set_xlabel("measured over predicted rate")
    axes[0, 0].ticklabel_format(axis="x", useOffset=False)
    return figure


def _draw_angles(cells: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    widest = max(m.cell.settings["width"] for m in cells)
    chosen = [m for m in cells if m.cell.settings["width"] == widest]
    depths = sorted({m.cell.settings["depth"] for m in chosen})
    middle = depths[len(depths) // 2]
    chosen = [m for m in chosen if m.cell.settings["depth"] == middle]
    for m, colour in zip(chosen, COLOURS, strict=False):
        label = f"λ = {m.cell.settings['decay']:g}"
        draw_band(ax, m.values["time"], m.values["sine"], colour=colour, label=label)
        bound = np.exp(np.log(m.values["bound"]).mean(axis=0))
        ax.plot(m.values["time"], bound, color=colour, ls="--", lw=1)
    ax.set_yscale("log")
    ax.set_xlabel("2λt")
    ax.set_ylabel("sin θ, first pair")
    ax.set_title(f"depth {middle}, width {widest}")
    ax.legend()
    return figure


def draw_steps(cells: Sequence[Measured]) -> Figure:
    """Rate ratios by step size, one line for each λ, with and without the driven part."""
    figure, axes = new_figure(1, 1, width=5)
    ax = axes[0, 0]
    raw, exact = COLOURS[1:], COLOURS[0]
    for decay, colour in zip(sorted({m.cell.settings["decay"] for m in cells}), raw, strict=False):
        chosen = [m for m in cells if m.cell.settings["decay"] == decay]
        for name, label, drawn in (
            ("ratio", f"‖A - B‖, λ = {decay:g}", colour),
            ("ratio_less_driven", f"less the driven part, λ = {decay:g}", exact),
        ):
            steps = [m.cell.settings["step"] for m in chosen]
            runs = np.transpose([seed_means([m], name) for m in chosen]).tolist()
            draw_band(ax, steps, runs, colour=drawn, label=label)
    ax.axhspan(*RATE_BAND, color=COLOURS[6], alpha=0.1, lw=0, label="within 1 %")
    ax.set_xscale("log")
    ax.set_xlabel("step size η")
    ax.set_ylabel("measured over predicted rate")
    ax.legend(fontsize=7)
    return figure


def _draw_optimisers(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 3, width=3.6)
    for ax, kind in zip(axes[0], ("noise", "momentum", "adamw"), strict=True):
        for m, colour in zip(of_kind(measured, kind), COLOURS, strict=False):
            label = m.cell.name.removeprefix(f"{kind}-")
            draw_band(ax, m.values["time"], m.values["size"], colour=colour, label=label)
            start = np.mean([s[0] for s in m.values["size"]])
            time = np.array(m.values["time"])
            ax.plot(time, start * np.exp(-time), color=COLOURS[6], ls="--", lw=1)
        ax.set_yscale("log")
        ax.set_xlabel("2λt")
        ax.set_title(kind)
        ax.legend()
    axes[0, 0].set_ylabel("‖A - B‖, first pair")
    return figure
