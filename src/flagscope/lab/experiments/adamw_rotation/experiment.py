"""AdamW rotation: under AdamW weight decay sets how fast weights turn, not a rate of A - B?

The law of A - B needs steps that are gradients, so AdamW breaks it. What decoupled decay
w ← (1 - ηλ) w - η u sets instead is a balance: where u is noise of constant size, ‖w‖ settles, and
w turns by the same angle in every step. With β1 the memory of u, w is a stationary process of
second order with roots a = 1 - ηλ and b = β1, whose correlation over n steps is

    ρ(n) = (a^{n+1} (1 - b²) - b^{n+1} (1 - a²)) / ((a - b)(1 + ab)),

so that one step turns by √(2ηλ (1-β1)/(1+β1)), and n ≫ 1/(1-β1) steps by arccos e^{-nηλ}.

**What is measured.** After Σηλ = 3 the angles of whole matrices over 1, 10, 100 and 1/(ηλ) steps,
from three moments, under constant η: of a matrix whose gradients are noise, and of the maps of a
GPT of one layer on text and on random characters, of which nothing can be learnt. Also what is
left of a weight, ⟨w', w⟩ / ‖w‖², over what decay leaves of it: 1 if what was added is orthogonal to
it. And the rate of ‖A - B‖ of a linear pair under AdamW with minibatches, with SGD next to it.

**What was known when.** The formula for one step is that of Kosson and others; ρ(n) was derived
before anything was measured. That AdamW breaks the law of A - B was known from ridge-rate. A trial
of two seeds of a GPT of two layers at η = 0.01, λ = 0.5, a setting that the full run leaves out,
showed one that turns further in one step than predicted and less far in 1/(ηλ); predictions and
bands were not changed. Layers, seeds and settings were cut before any of the reported cells ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options, of_kind
from flagscope.lab.experiments.adamw_rotation.findings import findings
from flagscope.lab.experiments.adamw_rotation.training import measure_imbalance, measure_turns
from flagscope.lab.figures import COLOURS, draw_band, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# (η, λ, β1, task) of the GPT.
_TEXT = (
    (2e-3, 0.5, 0.9, "real"),
    (5e-3, 0.2, 0.9, "real"),
    (5e-3, 0.5, 0.9, "real"),
    (2e-2, 0.1, 0.9, "real"),
    (5e-3, 0.5, 0.0, "real"),
    (5e-3, 0.5, 0.9, "random"),
)
_NOISE = ((2e-3, 0.5, 0.9), (1e-2, 0.1, 0.9), (1e-2, 0.3, 0.9), (1e-2, 0.1, 0.0))
# (optimiser, η, λ) of linear pairs.
_LINEAR = (("adamw", 1e-3, 0.2), ("adamw", 3e-3, 0.1), ("sgd", 0.1, 0.01))


class AdamWRotation(Experiment):
    """Measures the turn of weights under AdamW against rotational equilibrium."""

    name = "adamw-rotation"
    title = "How fast AdamW turns weights"
    claim = (
        "Under AdamW weight decay does not set a rate of the imbalance, but the angle by which "
        "weights turn."
    )
    source = "arXiv 2305.17212; theory, section 4"
    budget_minutes = 6.0
    figures = (
        ("angles", "Angle over n steps against the prediction; one line a setting, mean of seeds."),
        ("imbalance", "‖A - B‖ of a linear pair over decay time; dashed: the law."),
    )

    def cells(self, options: Options) -> list[Cell]:
        """Noise, the GPT, linear pairs."""
        seeds = list(range(options.seeds or (2 if options.quick else 3)))
        return [
            Cell(name, settings | {"seeds": seeds}, cost=cost)
            for name, settings, cost in _plan(options)
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train the seeds of one cell."""
        if cell.settings["kind"] == "linear":
            return measure_imbalance(cell.settings, report)
        return measure_turns(cell.settings, report)

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge the cells by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, seed, tensor, lag), or (cell, seed, decay time)."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for m in measured:
            common = {"cell": m.cell.name, "kind": m.cell.settings["kind"]}
            rows += [common | row for row in m.values.get("turns", ())]
            rows += [
                common | {"seed": seed, "tau": tau, "imbalance": size}
                for seed, series in zip(
                    m.cell.settings["seeds"], m.values.get("size", ()), strict=False
                )
                for tau, size in zip(m.values["time"], series, strict=True)
            ]
        return pd.DataFrame(rows)

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the angles over the lag, and the imbalance over decay time."""
        return {"angles": _angles(measured), "imbalance": _imbalance(measured)}


def _plan(options: Options) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name, settings and cost of each cell."""
    common = {"beta2": 0.99, "width": 32}
    for rate, decay, beta1 in _NOISE[2:] if options.quick else _NOISE:
        own = {"kind": "noise", "width": 64, "rate": rate, "decay": decay, "beta1": beta1}
        yield f"noise-rate{rate:g}-decay{decay:g}-beta{beta1:g}", common | own, 0.03 / rate / decay
    text = ((1e-2, 0.5, 0.9, "real"),) if options.quick else _TEXT
    for rate, decay, beta1, task in text:
        own = {"kind": "gpt", "rate": rate, "decay": decay, "beta1": beta1, "task": task}
        yield (
            f"gpt-{task}-rate{rate:g}-decay{decay:g}-beta{beta1:g}",
            common | own,
            1 / rate / decay,
        )
    for name, rate, decay in _LINEAR[1:] if options.quick else _LINEAR:
        until = 1.5 if options.quick else 4.0
        yield (
            f"linear-{name}-rate{rate:g}",
            {"kind": "linear", "optimiser": name, "rate": rate, "decay": decay}
            | {"width": 16, "batch": 32, "until": until, "data": options.data or "digits"},
            0.1 * until / rate / decay,
        )


def _angles(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 2, sharey=True)
    for ax, kind in zip(axes[0], ("noise", "gpt"), strict=True):
        for m, colour in zip(of_kind(measured, kind), COLOURS, strict=False):
            s, turns = m.cell.settings, m.values["turns"]
            lags = sorted({row["lag"] for row in turns})
            by_seed = [
                [
                    _mean([r["angle_ratio"] for r in turns if (r["seed"], r["lag"]) == (seed, lag)])
                    for lag in lags
                ]
                for seed in s["seeds"]
            ]
            label = f"η {s['rate']:g}, λ {s['decay']:g}, β1 {s['beta1']:g}"
            label += f", {s['task']}" if s.get("task", "real") != "real" else ""
            draw_band(ax, lags, by_seed, colour=colour, label=label)
        ax.axhline(1.0, color=COLOURS[6], ls="--", lw=1)
        ax.set(xscale="log", xlabel="steps", title="noise" if kind == "noise" else "GPT")
        ax.legend(fontsize=6)
    axes[0, 0].set_ylabel("measured over predicted angle")
    return figure


def _imbalance(measured: Sequence[Measured]) -> Figure:
    figure, axes = new_figure(1, 1)
    ax = axes[0, 0]
    cells = [m for m in measured if m.cell.settings["kind"] == "linear"]
    for m, colour in zip(cells, COLOURS, strict=False):
        s = m.cell.settings
        relative = [[value / series[0] for value in series] for series in m.values["size"]]
        label = f"{s['optimiser']}, η {s['rate']:g}, λ {s['decay']:g}"
        draw_band(ax, m.values["time"], relative, colour=colour, label=label)
    if cells:
        import numpy as np

        time = np.array(cells[0].values["time"])
        ax.plot(time, np.exp(-time), color=COLOURS[6], ls="--", lw=1, label="law")
    ax.set(yscale="log", xlabel="decay time τ", ylabel="‖A - B‖ over its start")
    ax.legend(fontsize=7)
    return figure


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


EXPERIMENT = AdamWRotation()
