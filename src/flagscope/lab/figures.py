"""Common style of the laboratory's figures, with colours that are safe for the colour-blind."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flagscope.lab.experiment import Estimate
from flagscope.lab.extra import lab_package
from flagscope.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    # Identifiers in the SVG are derived from its content, not random.
    "svg.hashsalt": "flagscope",
}

# Metadata of NAME.png and NAME.svg, without anything that differs between runs.
_SAVED: tuple[dict[str, Any], ...] = (
    {"dpi": 110, "metadata": {"Software": None}},
    {"metadata": {"Date": None, "Creator": None}},
)


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 4.2, height: float = 3.1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its (rows, columns) array of axes; sizes are in inches per axis.

    Examples
    --------
    >>> figure, axes = new_figure(1, 2)
    >>> axes.shape
    (1, 2)
    """
    lab_package("matplotlib")
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # Not pyplot, which keeps figures alive and needs a display.
    with rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, **options)
        for ax in axes.flat:
            ax.set_prop_cycle(color=COLOURS)
    return figure, axes


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg, the same bytes for the same figure."""
    from matplotlib import rc_context

    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context(_STYLE):
        for path, options in zip(paths, _SAVED, strict=True):
            drawn = io.BytesIO()
            figure.savefig(drawn, format=path.suffix[1:], **options)
            write_whole(path, drawn.getvalue())
    return paths


def draw_band(
    ax: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], *, colour: str, label: str
) -> None:
    """Draw the mean of runs (one row per seed) as a line, and their range as a band."""
    values = np.asarray(runs, dtype=float)
    ax.plot(x, values.mean(axis=0), color=colour, label=label)
    ax.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.2, lw=0)


def draw_estimates(
    ax: Axes, estimates: Sequence[Estimate], *, predicted: float | None = None
) -> None:
    """Draw estimates with intervals, the first on top, and the prediction as a line.

    If all have the same bounds, the axis ends there, since nothing can be beyond.
    """
    rows = range(len(estimates))
    for row, e in zip(rows, estimates, strict=True):
        low, high = (e.value if end is None else end for end in (e.low, e.high))
        ax.plot([low, high], [row, row], color=COLOURS[0], lw=2)
        ax.plot([e.value], [row], "o", color=COLOURS[0], ms=4, clip_on=False)
    if predicted is not None:
        ax.axvline(predicted, color=COLOURS[6], ls="--", lw=1, label="predicted")
    ax.set_yticks(list(rows), [e.name for e in estimates])
    ax.set_ylim(len(estimates) - 0.5, -0.5)
    if len({e.bounds for e in estimates}) == 1 and (bounds := estimates[0].bounds) is not None:
        left, right = ax.get_xlim()
        ax.set_xlim(max(left, bounds[0]), min(right, bounds[1]))
