"""The figures of the experiment on the ring of invariants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flagscope.lab.figures import COLOURS, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def dimension_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Dimensions of invariants over the degree, for the largest d."""
    figure, axes = new_figure(1, 2, width=5, height=3.6)
    largest = max(row["d"] for row in rows)
    chosen = [row for row in rows if row["d"] == largest]
    ranks = sorted({(row["r1"], row["r2"]) for row in chosen})
    degrees = sorted({(row["m"], row["n"]) for row in chosen})
    for ax, name, title in zip(
        axes[0], ("kernel", "torus"), (f"SL({largest})", "diagonal torus"), strict=True
    ):
        for row in chosen:
            if row[name]:
                x, y = degrees.index((row["m"], row["n"])), ranks.index((row["r1"], row["r2"]))
                ax.text(x, y, str(row[name]), ha="center", va="center", fontsize=7)
        ax.set_title(f"invariants of {title}")
        ax.set_xticks(range(len(degrees)), [f"{m},{n}" for m, n in degrees], rotation=90)
        ax.set_yticks(range(len(ranks)), [f"{r1},{r2}" for r1, r2 in ranks])
        ax.set_xlim(-0.5, len(degrees) - 0.5)
        ax.set_ylim(len(ranks) - 0.5, -0.5)
        ax.set_xlabel("m, n")
        ax.set_ylabel("r1, r2")
        for label, (r1, r2) in zip(ax.get_yticklabels(), ranks, strict=True):
            label.set_color(COLOURS[0] if r1 + r2 == largest else COLOURS[6])
    return figure


def value_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Values of the invariant section at pairs that split the space."""
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    split = sorted({(row["d"], row["r1"], row["r2"]) for row in rows if row["zero"] is not None})
    split = split[-len(COLOURS) :]
    for i, key in enumerate(split):
        chosen = [row for row in rows if (row["d"], row["r1"], row["r2"]) == key]
        shift = 0.7 * ((i + 0.5) / len(split) - 0.5)
        colour = COLOURS[i]
        values = [(row["k"] + shift, 10 ** row["log10"]) for row in chosen if not row["zero"]]
        zeros = sorted({row["k"] + shift for row in chosen if row["zero"]})
        ax.plot(*np.transpose(values), "o", color=colour, ms=3, alpha=0.5, label=f"{key[1:]}")
        ax.plot(zeros, [0.3] * len(zeros), "v", color=colour, ms=5)
    ax.set_yscale("log")
    ax.axhline(0.5, color=COLOURS[6], lw=0.6)
    ax.set_xticks(range(max(row["k"] for row in rows if row["zero"] is not None) + 1))
    ax.set_xlabel("k = dim(V ∩ U)")
    ax.set_ylabel("|det[V|U]|")
    ax.legend(title="(r1, r2)", fontsize=7, ncols=2, loc="upper right")
    return figure


def stabiliser_figure(points: Sequence[dict[str, Any]], maps: Sequence[dict[str, Any]]) -> Figure:
    """Dimensions of stabilisers of pairs and of maps."""
    figure, axes = new_figure(1, 2)
    largest = max(row["d"] for row in points)
    _draw_pair_stabilisers(axes[0, 0], [row for row in points if row["d"] == largest])
    ax = axes[0, 1]
    for stable, colour, label in ((False, COLOURS[1], "not stable"), (True, COLOURS[2], "stable")):
        chosen = [row for row in maps if row["stable"] == stable]
        x = [(row["d"] - row["r1"]) * (row["d"] - row["r2"]) for row in chosen]
        ax.plot(x, [row["stabiliser"] for row in chosen], "x", color=colour, label=label)
    top = max(row["stabiliser"] for row in maps)
    ax.plot([0, top], [0, top], color=COLOURS[6], lw=0.8)
    ax.set_xlabel("(d - rank W1)(d - rank W2)")
    ax.set_ylabel("dim of the stabiliser of (W1, W2)")
    ax.legend()
    return figure


def _draw_pair_stabilisers(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    d = rows[0]["d"]
    half = d // 2
    shown = [(1, 1), (1, half), (half, half), (half, d - 1), (d - 1, d - 1)]
    for colour, (r1, r2) in zip(COLOURS, dict.fromkeys(shown), strict=False):
        chosen = [row for row in rows if (row["r1"], row["r2"]) == (r1, r2)]
        line = sorted({(row["k"], row["stabiliser_formula"]) for row in chosen})
        ax.plot(*np.transpose(line), color=colour, label=f"({r1}, {r2})")
        ax.plot([row["k"] for row in chosen], [row["stabiliser"] for row in chosen], "x",
                color=colour)  # fmt: skip
    ax.set_ylim(bottom=0)
    ax.set_xticks(range(d))
    ax.set_xlabel(f"k = dim(V ∩ U), d = {d}")
    ax.set_ylabel("dim of the stabiliser of (V, U)")
    ax.legend(title="(r1, r2)", fontsize=7)
