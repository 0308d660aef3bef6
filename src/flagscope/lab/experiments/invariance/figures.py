"""The figure of the experiment on invariance: movement by observable and group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import (
    Measured,
)
from flagscope.lab.experiments.invariance.findings import FUNCTIONAL, MOVED, rows_of
from flagscope.lab.experiments.invariance.rewriting import OBSERVABLES
from flagscope.lab.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def movement_figure(measured: Sequence[Measured]) -> Figure:
    """Movement in powers of ten, by observable and group."""
    groups = [g for g in ("permutation", "orthogonal", "scaling", "gl", "balanced")
              if rows_of(measured, g)]  # fmt: skip
    image = np.array([[_typical(measured, g, n) for g in groups] for n in OBSERVABLES])
    figure, axes = new_figure(width=4.6, height=4.2)
    ax = axes[0, 0]
    ax.grid(visible=False)
    shown = ax.imshow(np.where(image < MOVED, np.nan, np.log10(image + 1e-300)),
                      aspect="auto", cmap="viridis")  # fmt: skip
    ax.set_xticks(range(len(groups)), groups, rotation=45, ha="right")
    ax.set_yticks(range(len(OBSERVABLES)), [n.replace("_", " ") for n in OBSERVABLES])
    for label, name in zip(ax.get_yticklabels(), OBSERVABLES, strict=True):
        label.set_color(COLOURS[0] if name in FUNCTIONAL else COLOURS[6])
    figure.colorbar(shown, label="log10 of the relative movement")
    return figure


def _typical(measured: Sequence[Measured], group: str, observable: str) -> float:
    values = [row["moved"].get(observable, 0.0) for row in rows_of(measured, group)]
    return float(np.mean(values)) if values else 0.0
