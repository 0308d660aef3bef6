"""The figures of the experiment on strata: chain, degeneration, stability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flagscope.geometry import (
    Stability,
    git_stability,
    strata,
)
from flagscope.lab.experiments.strata.pairs import TIMES, positions
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_DRAWN = (8, 3, 4)


def chain_figure(pairs: Sequence[dict[str, Any]], largest: int) -> Figure:
    """Dimensions of the strata of a few chains: formula and measured rank."""
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    shown = [_DRAWN] if largest >= _DRAWN[0] else []
    shown += [(largest, r, s) for r, s in ((1, 2), (2, 2), (2, 3), (3, 3)) if s < largest]
    for colour, (d, r1, r2) in zip(COLOURS, shown, strict=False):
        chain = strata(d, r1, r2)
        ks = [p.k for p in chain]
        ax.plot(
            ks,
            [p.orbit_dimension for p in chain],
            color=colour,
            label=f"d = {d}, r = ({r1}, {r2})",
        )
        rows = [r for r in pairs if (r["d"], r["r1"], r["r2"]) == (d, r1, r2)]
        ax.plot([r["k"] for r in rows], [r["rank_of_action"] for r in rows], "o", color=colour)
    ax.set_xlabel("k = dim(V ∩ U)")
    ax.set_ylabel("dimension of X_k")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return figure


def degeneration_figure(pairs: Sequence[dict[str, Any]], largest: int) -> Figure:
    """Largest sine along the path to a flag, with the predicted curve."""
    figure, axes = new_figure(1, 1, width=6)
    ax = axes[0, 0]
    half = largest // 2
    d, r1, r2 = _DRAWN if largest >= _DRAWN[0] else (largest, half, half)
    for colour, position in zip(COLOURS, strata(d, r1, r2), strict=False):
        if position.is_closed:
            continue
        key = d, r1, r2, position.k
        rows = [r for r in pairs if (r["d"], r["r1"], r["r2"], r["k"]) == key]
        label = f"from X_{position.k}"
        draw_band(ax, TIMES, [r["sines"] for r in rows], colour=colour, label=label)
        ax.plot(TIMES, rows[0]["sines_predicted"], color=COLOURS[6], ls="--", lw=0.8)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("t")
    ax.set_ylabel(f"largest sine, d = {d}, r = ({r1}, {r2})")
    ax.legend()
    return figure


def stability_figure(largest: int) -> Figure:
    """Positions (r1, r2) by orbit closedness and stability in GIT."""
    figure, axes = new_figure(1, 1, width=6.5, height=4.5)
    ax = axes[0, 0]
    kinds: dict[str, list[tuple[float, float]]] = {
        "flag: closed orbit, unstable in GIT": [],
        "V ⊕ U = R^d: polystable in GIT, orbit not closed": [],
        "neither": [],
    }
    names = list(kinds)
    for p in positions(largest):
        polystable = git_stability(p).stability == Stability.POLYSTABLE
        kind = names[0] if p.is_closed else names[1] if polystable else names[2]
        kinds[kind].append((p.r1 + p.k / (p.r1 + 2), p.r2))
    _scatter(ax, kinds)
    ax.set_xlabel(f"r1, and k = 0 … r1 to the right of it (d = {largest})")
    ax.set_ylabel("r2")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", fontsize=8)
    return figure


def _scatter(ax: Axes, kinds: dict[str, list[tuple[float, float]]]) -> None:
    for (label, points), colour, marker in zip(kinds.items(), COLOURS, "osx", strict=False):
        ax.plot(*zip(*points, strict=True), marker, color=colour, label=label, ms=5)
