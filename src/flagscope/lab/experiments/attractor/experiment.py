"""Attractor: where ridge takes adjacent layers of a linear network, and that it is V = U.

**Closed form.** For whitened inputs, E x xᵀ = 1 and E y xᵀ = T, descent of

    ½ ‖W_L … W_1 - T‖² + (λ/2) Σ ‖W_l‖²

comes to rest where every direction of strength t of T is carried by one singular value σ of all
layers with σ = 0 or σ^{2L-2} - t σ^{L-2} + λ = 0. At depth 2 the network's singular value is
s = max(0, t - λ): a direction survives exactly if t > λ. At depth 3 it is a quartic, with a root if
t > 4 (λ/3)^{3/4}; surviving pays from t > 2 λ^{3/4} on; but σ = 0 attracts at every λ > 0, so that
it depends on the start too. (If all spectral norms w of the layers obey w (t + w³) < λ at the start
they shrink for ever.)

**Ridge is the function of Kempf and Ness**, tr A + tr B = ‖W1‖² + ‖W2‖²: along (g W1, W2 g⁻¹),
g = exp(sX), X symmetric, its derivative at s = 0 is 2 tr X(A - B). So A - B is the moment map, and
ridge is what A - B is the gradient of; it is not "the squared norm of the moment map" ‖A - B‖². Its
minimum over the orbit is 2 ‖W2 W1‖_*, attained where A = B. Without whitening, ridge at depth 2
therefore comes to λ times the nuclear norm of M = W2 W1, a convex problem whose minimum is
certified by R = E y xᵀ - M E x xᵀ: ‖R‖ ≤ λ and ⟨R, M⟩ = λ ‖M‖_*. Everything dies exactly if
λ ≥ ‖E y xᵀ‖.

**Flags.** Since the ranks that are left are equal and A = B, write and read space are one and the
same. A strict flag, V in U and not all of it, is where descent without ridge can stay, and ridge
leaves it.

**The law needs no loss.** ‖A - B‖ falls by (1-ηλ)^{2n} if there is no loss at all, when nothing
aligns: all weights shrink by one factor. Angles and ‖A - B‖ / (‖A‖ + ‖B‖) do test alignment.

**What was known when.** Ranks that fall and V = U had been seen in another program. A trial with 20
seeds of the sizes below chose times, steps and values of λ away from the thresholds, and showed
that usual starts keep all directions beyond the threshold at depth 3 too; the closed forms were
derived before it. A quick run showed that a first form of the certificate, relative to ‖M‖_*, has
no digits where everything died; it became the gap of the objective. Which parts are the paper's was
settled after the results were in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flagscope.lab.data import load_images
from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.attractor.findings import STRENGTHS, findings
from flagscope.lab.experiments.attractor.kempf_ness import orbit_of_random_maps
from flagscope.lab.experiments.attractor.limits import (
    nuclear_certificate,
    survival_threshold,
    surviving_value,
)
from flagscope.lab.experiments.attractor.runs import (
    Weights,
    departures,
    descend,
    ends,
    leading_sine,
    planted_flag,
    product,
    ranks,
    relative_imbalance,
    whitened_targets,
)
from flagscope.lab.figures import COLOURS, draw_band, new_figure
from flagscope.lab.linear import class_regression
from flagscope.lab.networks import initial_network
from flagscope.lab.training import recording_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INPUTS, WIDTH, OUTPUTS = 10, 12, 8
# λ between the thresholds of the strengths, by depth.
DECAYS = {2: (0.1, 0.3, 0.5, 0.7, 0.9, 1.1), 3: (0.03, 0.1, 0.2, 0.3, 0.4, 0.5)}
SMALL = 0.03
# Dimensions of V and U at a planted strict flag.
FLAG = (2, 4)
_MOMENTS = 50
# What is kept of the start.
_AT_START = ("ranks", "imbalance", "strict_flags", "norm")


class Attractor(Experiment):
    """Descends linear networks with ridge to their end and measures ranks, spaces and Grams."""

    name = "attractor"
    title = "Where ridge ends: ranks fall, A = B, and V = U, not a strict flag"
    claim = (
        "Ridge, the squared norm of the moment map, takes adjacent layers to flags, V contained in "
        "U."
    )
    source = "arXiv 2605.09861, as far as its content is known; theory, section 7"
    budget_minutes = 4.0
    data_kind = "images"
    figures = (
        (
            "ranks",
            "Ranks of W1, W2 and the product at the end against λ, all seeds; line: number of "
            "directions of the target beyond the threshold.",
        ),
        (
            "values",
            "Singular values of the product at the end against λ, all seeds; lines: closed form.",
        ),
        (
            "course",
            "Left: ‖A - B‖ / (‖A‖ + ‖B‖), with a loss and without. Middle: largest sine between "
            "leading write and read spaces. Right: dim V and dim U from a planted strict flag, "
            "V in U, with ridge and without. Means and ranges over seeds.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell a start, depth and λ; every cell has seeds of its own."""
        count = options.seeds or (6 if options.quick else 40)
        found = []
        for i, (name, settings) in enumerate(_settings(quick=options.quick)):
            # Images cost most, and their seeds differ by the start alone.
            few = count if settings["kind"] != "images" else max(2, count // 4)
            seeds = [1000 * i + seed for seed in range(few)]
            data = {"data": options.data} if settings["kind"] == "images" else {}
            steps = settings["until"] / settings["step"] if "step" in settings else 100
            found.append(Cell(name, settings | data | {"seeds": seeds}, cost=steps))
        return found

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """All seeds of one cell at once."""
        s = cell.settings
        if s["kind"] == "orbits":
            return {"runs": [orbit_of_random_maps(seed) for seed in s["seeds"]]}
        return _training(s, report)

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Exact statements: one counterexample refutes."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row a (cell, seed)."""
        rows = []
        for m in measured:
            s = m.cell.settings
            shared = {"cell": m.cell.name} | {
                name: s[name] for name in ("kind", "depth", "decay") if name in s
            }
            rows += [shared | _flat(run) for run in m.values["runs"]]
        return pd.DataFrame(rows)

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Ranks, singular values, and the course of a few cells."""
        return {
            "ranks": _draw_ranks(_of(measured, "whitened")),
            "values": _draw_values(_of(measured, "whitened")),
            "course": _draw_course(measured),
        }


def _settings(*, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    for depth, decays in DECAYS.items():
        step = {2: 0.1, 3: 0.05}[depth]
        for decay in decays[1::2] if quick else decays:
            # Dead directions fall like e^{-λt}, the gaps to the thresholds are 0.1 or so.
            until = 40 / min(decay, 0.1)
            base = {"depth": depth, "decay": decay, "step": step, "until": until}
            yield f"depth{depth}-decay{decay:g}", base | {"kind": "whitened"}
            if depth == 3 and decay >= 0.1 and survival_threshold(decay, 3) < STRENGTHS[0]:
                yield f"small-decay{decay:g}", base | {"kind": "small"}
    for depth in DECAYS:
        # Short steps: what they add to A - B is of the order of the step.
        yield (
            f"no-ridge-depth{depth}",
            {"kind": "no ridge", "depth": depth, "decay": 0.0, "step": 0.01, "until": 40.0},
        )
    yield (
        "no-loss",
        {"kind": "no loss", "depth": 2, "decay": 0.3, "step": 0.1, "until": 20.0},
    )
    for decay in (0.0, 0.3) if quick else (0.0, 0.1, 0.3, 0.5):
        yield (
            f"flag-decay{decay:g}",
            {"kind": "flag", "depth": 2, "decay": decay, "step": 0.1, "until": 400.0},
        )
    # Long, since λ = 0.3 lies close to the strongest direction of the digits.
    until = 1000.0 if quick else 4000.0
    for decay in (0.05, 0.35) if quick else (0.02, 0.05, 0.12, 0.2, 0.3):
        yield (
            f"images-decay{decay:g}",
            {"kind": "images", "depth": 2, "decay": decay, "step": 0.2, "until": until},
        )
    yield "orbits", {"kind": "orbits"}


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    """Lists as numbered columns."""
    found: dict[str, Any] = {}
    for name, value in run.items():
        listed = enumerate(value, 1) if isinstance(value, list) else ()
        found |= {f"{name}_{i}": x for i, x in listed} or {name: value}
    return found


def _of(measured: Sequence[Measured], kind: str) -> list[Measured]:
    return [m for m in measured if m.cell.settings["kind"] == kind]


def _task(s: dict[str, Any]) -> tuple[Weights, Tensor, Tensor]:
    """Weights at the start, E x xᵀ and E y xᵀ."""
    seeds, kind = s["seeds"], s["kind"]
    if kind == "images":
        task = class_regression(load_images(s["data"]))
        xx, yx = task.input_covariance, task.cross_covariance
        inputs, width, outputs = xx.shape[-1], 16, yx.shape[-2]
    else:
        inputs, width, outputs = INPUTS, WIDTH, OUTPUTS
        strengths = STRENGTHS[: FLAG[0]] if kind == "flag" else STRENGTHS
        targets = [7919 + seed for seed in seeds]
        xx = torch.eye(inputs, dtype=torch.float64)
        yx = whitened_targets(strengths, inputs=inputs, outputs=outputs, seeds=targets)
    if kind == "flag":
        return planted_flag(yx, width=width, write=FLAG[0], read=FLAG[1], seed=seeds[0]), xx, yx
    widths = [inputs, *[width] * (s["depth"] - 1), outputs]
    scale = SMALL if kind == "small" else "lecun"
    weights = [w.detach() for w in initial_network(widths, seeds, scale=scale).weights]
    if kind == "no loss":
        xx, yx = torch.zeros_like(xx), torch.zeros_like(yx)
    return weights, xx, yx


def _leading(s: dict[str, Any]) -> int:
    """Dimension of the leading spaces whose angle is followed: of those that survive, or 1."""
    if s["kind"] in ("flag", "images"):
        return FLAG[0] if s["kind"] == "flag" else 1
    return max(1, sum(surviving_value(t, s["decay"], s["depth"]) is not None for t in STRENGTHS))


def _training(s: dict[str, Any], report: Callable[[float], None]) -> dict[str, Any]:
    """Start and end of every seed, and the course of a few numbers between them."""
    start, xx, yx = _task(s)
    steps, leading = round(s["until"] / s["step"]), _leading(s)
    course: dict[str, list[Any]] = {
        name: [] for name in ("time", "imbalance", "sine", "write", "read")
    }

    def record(n: int, now: Weights) -> None:
        course["time"].append(n * s["step"])
        course["imbalance"].append(relative_imbalance(now[0], now[1]))
        course["sine"].append(leading_sine(now[0], now[1], leading))
        course["write"].append(ranks(now[0]))
        course["read"].append(ranks(now[1]))

    end, driven = descend(
        start, xx, yx,
        step=s["step"], decay=s["decay"], steps=steps,
        record=record, moments=recording_times(steps, _MOMENTS), report=report,
    )  # fmt: skip
    law = (1 - s["step"] * s["decay"]) ** (2 * steps)
    rows = zip(
        s["seeds"], ends(start), ends(end), departures(start, end, driven, law),
        course["sine"][0], course["sine"][-1], strict=True,
    )  # fmt: skip
    runs = [
        {"seed": seed, "leading_sine_start": first, "leading_sine": last}
        | after
        | {f"{name}_start": before[name] for name in _AT_START}
        | departure
        for seed, before, after, departure, first, last in rows
    ]
    if s["kind"] == "images":
        excess, gap = nuclear_certificate(product(end), xx, yx, s["decay"])
        for run, a, b in zip(runs, excess.tolist(), gap.tolist(), strict=True):
            run |= {"residual_excess": a, "gap": b}
    return {
        "runs": runs,
        "course": course,
        "largest_strength": float(torch.linalg.matrix_norm(yx, 2).max()),
    }


def _draw_ranks(cells: Sequence[Measured]) -> Figure:
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


def _draw_values(cells: Sequence[Measured]) -> Figure:
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


def _draw_course(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 3, width=3.8)
    compared = [
        ("loss and ridge", next(m for m in _of(measured, "whitened") if _like_no_loss(m))),
        ("ridge, no loss", *_of(measured, "no loss")),
    ]
    for ax, name, label in zip(
        axes[0, :2],
        ("imbalance", "sine"),
        ("‖A - B‖ / (‖A‖ + ‖B‖)", "largest sine of leading spaces"),
        strict=True,
    ):
        for (title, m), colour in zip(compared, COLOURS, strict=False):
            course = m.values["course"]
            end = _of(measured, "no loss")[0].cell.settings["until"] * 4
            kept = [i for i, t in enumerate(course["time"]) if t <= end]
            times = [2 * m.cell.settings["decay"] * course["time"][i] for i in kept]
            runs = np.transpose([course[name][i] for i in kept]).tolist()
            draw_band(ax, times, runs, colour=colour, label=title)
        ax.set_yscale("log")
        ax.set_xlabel("2λt")
        ax.set_ylabel(label)
        ax.legend()
    _draw_flags(axes[0, 2], _of(measured, "flag"))
    return figure


def _like_no_loss(m: Measured) -> bool:
    """Depth 2, at the λ of the cell without a loss."""
    return m.cell.settings["depth"] == 2 and m.cell.settings["decay"] == 0.3


def _draw_flags(ax: Axes, cells: Sequence[Measured]) -> None:
    """Dimensions of V and U; V keeps its own at every λ, so that one line shows it."""
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


EXPERIMENT = Attractor()
