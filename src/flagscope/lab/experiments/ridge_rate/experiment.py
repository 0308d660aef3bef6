"""Ridge rate: weight decay makes write and read Gram equal, exponentially, at a rate set by λ.

In a linear pair W2ᵀ G2 = G1 W1ᵀ for the gradients G1, G2 of any loss, so that one step of gradient
descent w ← (1 - ηλ) w - η G takes D = A - B to

    (1 - ηλ)² D + η² (G1 G1ᵀ - G2ᵀ G2):

the terms of first order in G cancel exactly. Hence D_n = (1 - ηλ)^{2n} D_0 + S_n, where S_n sums
the terms of second order with the same weights. Full batch or minibatch, for any step size.

**Decay alone.** With no loss at all every weight shrinks by 1 - ηλ, and D by its square: the law
holds, and nothing is aligned. Its relative size ‖D‖ / (‖A‖ + ‖B‖) and all angles stay. So they are
measured next to it: with the loss of the digits, with the same inputs and targets zero, and with no
loss. With targets zero ⟨G_l, W_l⟩ = E‖W_L … W_1 x‖² ≥ 0 for every layer: under gradient flow tr A
and tr B fall at least as fast as e^{-2λt}, and D falls as e^{-2λt}, so that the trace norm of D
over tr A + tr B cannot fall. It falls where the loss holds the traces up.

**What was known when.** Trial runs chose the sizes. The correction for momentum was derived after a
trial at β = 0.9, η = 0.1 had shown 1.16; the other settings were new. The part on settled gaps was
written after a first full run, whose angles and bounds are its inputs. The cells without a loss
were added after the others; a trial of four seeds had shown how each of their numbers moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from flagscope.lab.data import load_images
from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.ridge_rate.control import QUANTITIES, measure_control
from flagscope.lab.experiments.ridge_rate.figures import figures
from flagscope.lab.experiments.ridge_rate.findings import findings
from flagscope.lab.experiments.ridge_rate.training import RidgeRun, step_count
from flagscope.lab.linear import class_regression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# 2λt at the end, by λ. The spectrum has time to settle if λ is large.
DECAYS = {1e-3: 4.0, 2e-3: 4.0, 5e-3: 8.0, 1e-2: 10.0}
_STEP = 0.2
# Columns of the table for every adjacent pair and seed.
_COLUMNS = ("ratio", "ratio_less_driven", "angle_ratio")
_CONTROL_COLUMNS = (
    "law_ratio",
    "relative_ratio",
    *(f"{name}_{end}" for name in QUANTITIES for end in ("start", "end")),
)


class RidgeRate(Experiment):
    """Trains deep linear networks with weight decay and fits the decay of ‖A - B‖."""

    name = "ridge-rate"
    title = "How fast weight decay aligns adjacent layers of linear networks"
    claim = (
        "Ridge regularisation aligns the subspaces of adjacent layers exponentially, at a rate "
        "set by λ alone."
    )
    source = "arXiv 2605.09861; theory, section 4"
    budget_minutes = 8.0
    figures = (
        ("decay", "‖A - B‖ of the first pair over 2λt; mean and range over seeds; dashed: law."),
        ("rates", "Measured over predicted rate by λ, with 95 % intervals over seeds."),
        ("angles", "Largest sine between the dominant spaces of A and B; dashed: Davis-Kahan."),
        ("steps", "Measured over predicted rate by step size, raw and less the driven part."),
        ("optimisers", "‖A - B‖ under minibatch noise, momentum and AdamW; dashed: the law."),
        (
            "controls",
            "With the digits, with targets zero and with no loss: ‖A - B‖, the same relative to "
            "the Grams, and the largest sine between their dominant spaces.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """Cells over depth, width and λ; then step sizes, minibatches and optimisers."""
        seeds = list(range(options.seeds or (4 if options.quick else 10)))
        common = {"seeds": seeds, "data": options.data}
        return [
            Cell(name, settings | common, cost=_cost(settings))
            for name, settings in _settings(quick=options.quick)
        ]

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train the networks of one cell, all seeds at once."""
        task = class_regression(load_images(cell.settings["data"]))
        if cell.settings["kind"] == "control":
            return measure_control(cell.settings, task, report)
        return RidgeRun(cell.settings, task).carry_out(report)

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge the cells by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each (cell, adjacent pair, seed)."""
        rows = []
        for m in measured:
            s = m.cell.settings
            control = s["kind"] == "control"
            for name in _CONTROL_COLUMNS if control else _COLUMNS:
                for pair, by_seed in enumerate(m.values[name]):
                    rows += [
                        {
                            "cell": m.cell.name,
                            "decay": s["decay"],
                            "step": s["step"],
                            "depth": s["depth"],
                            "width": s["width"],
                            "pair": pair + 1,
                            "seed": seed,
                            "quantity": name,
                            "value": value,
                        }
                        for seed, value in zip(s["seeds"], by_seed, strict=True)
                        if value is not None
                    ]
        return pd.DataFrame(rows)

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the figures of `figures`."""
        return figures(measured, findings)


def _settings(*, quick: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    base = {"depth": 3, "width": 32, "decay": 1e-2, "step": _STEP, "kind": "rate", "until": 4.0}
    decays = DECAYS if not quick else {5e-3: 4.0, 1e-2: 8.0}
    for decay, until in decays.items():
        for depth in (2, 3) if quick else (2, 3, 4, 5, 6):
            for width in (16,) if quick else (16, 48):
                yield (
                    f"rate-decay{decay:g}-depth{depth}-width{width}",
                    base | {"decay": decay, "depth": depth, "width": width, "until": until},
                )
    # Driven terms are of order η / λ.
    for decay in (1e-2,) if quick else (1e-3, 1e-2):
        for step in (0.5, 1.0) if quick else (0.2, 0.5, 1.0):
            yield (
                f"step{step:g}-decay{decay:g}",
                base | {"kind": "step", "decay": decay, "step": step},
            )
    noises = [(0.2, 16), (0.2, 64)] if quick else [(0.2, 16), (0.2, 64), (0.2, 256), (0.05, 64)]
    for step, batch in noises:
        yield (
            f"noise-step{step:g}-batch{batch}",
            base | {"kind": "noise", "step": step, "batch": batch, "until": 8.0},
        )
    # β and η / (1 - β).
    paces = [(0.9, 0.1), (0.9, 1.0)]
    for beta, pace in paces if quick else [*paces, (0.9, 0.02), (0.5, 0.1)]:
        step = round(pace * (1 - beta), 12)
        yield (
            f"momentum{beta:g}-step{step:g}",
            base | {"kind": "momentum", "beta": beta, "step": step},
        )
    # AdamW has its own time scale: its steps have size η for any gradient.
    for loss in ("signal", "zero", "none"):
        for decay in (1e-2,) if quick else (5e-3, 1e-2):
            for depth in (2,) if quick else (2, 3, 5):
                yield (
                    f"control-{loss}-decay{decay:g}-depth{depth}",
                    base
                    | {"kind": "control", "loss": loss, "decay": decay, "depth": depth}
                    | {"until": 10.0},
                )
    yield "adamw", base | {"kind": "adamw", "step": 1e-3, "until": 0.04 if quick else 0.1}


def _cost(s: dict[str, Any]) -> float:
    per_layer = 1 + (s["width"] / 32) ** 2
    return step_count(s) * s["depth"] * per_layer * (2.0 if s["kind"] == "noise" else 1.0)


EXPERIMENT = RidgeRate()
