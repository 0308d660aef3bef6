"""Verdicts of ridge-rate on alignment, with weight decay without a loss as the control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import Estimate, Finding, Measured, Prediction, Verdict
from flagscope.lab.figures import COLOURS, draw_band, new_figure
from flagscope.lab.intervals import SHARE, band_verdict, mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Round-off of some thousand products in float64, with a margin.
SAME = (1 - 1e-9, 1 + 1e-9)
# Fixed before the full run: settled rates within 1 %, sines of spaces that have met or not.
SETTLED = (0.99, 1.01)
MET, APART = 0.01, 0.9
# Final over initial relative imbalance, at most, if it has fallen.
FALLEN = 1e-3
_DERIVED = "derived in the module"
LABELS = {"signal": "digits", "zero": "targets zero", "none": "no loss"}


def control_findings(cells: Sequence[Measured]) -> tuple[Finding, ...]:
    """Findings on the law without a loss, and on the quantities that fall only with one."""
    return (_lawful(cells), _relative(cells), _spaces(cells), _nothing_to_learn(cells))


def _lawful(cells: Sequence[Measured]) -> Finding:
    idle = _with_loss(cells, "none")
    estimates = (
        *_by_decay(idle, "law_ratio", "rate ratio of ‖A - B‖, no loss"),
        *_by_decay(idle, "relative", "relative imbalance, end over start, no loss", over=True),
        *_by_decay(idle, "sine", "sine, end over start, no loss", over=True),
    )
    imbalance, sine = (_mean(idle, f"{name}_end") for name in ("relative", "sine"))
    return Finding(
        "The law of ‖A - B‖ holds with no loss at all: by itself it tests no alignment.",
        Prediction(
            "with gradient zero every weight shrinks by 1 - ηλ: rate ratio 1, relative imbalance "
            "and angles as they were, to round-off",
            1.0,
            _DERIVED,
        ),
        estimates,
        band_verdict(estimates, *SAME),
        f"At the end ‖A - B‖ is e^-{idle[0].cell.settings['until']:g} of what it was, and so is "
        f"everything else: relative imbalance {imbalance:.3f}, largest sine between the dominant "
        f"spaces {sine:.4f}, both as random weights have them.",
    )


def _relative(cells: Sequence[Measured]) -> Finding:
    learning = _with_loss(cells, "signal")
    rates = _by_decay(learning, "relative_ratio", "settled rate ratio")
    left = _by_decay(learning, "relative", "end over start", over=True)
    together = len(rates) + len(left)
    verdict = _both(
        band_verdict(rates, *SETTLED, together=together),
        band_verdict(left, -math.inf, FALLEN, together=together),
    )
    return Finding(
        "With a loss the imbalance relative to the Grams falls, at the rate of the law once they "
        "have settled.",
        Prediction(
            "‖A - B‖ / (‖A‖ + ‖B‖) falls at 2λ within 1 % over the last two units of 2λt, and to "
            f"less than {FALLEN:g} of its start",
            1.0,
            _DERIVED,
        ),
        rates + left,
        verdict,
        "The loss does not enter the numerator, which falls the same without it. It keeps up the "
        "denominator: that, and nothing in ‖A - B‖, is the alignment.",
    )


def _spaces(cells: Sequence[Measured]) -> Finding:
    met, zero, idle = (
        _by_decay(_with_loss(cells, loss), "sine_end", f"sine, {label}", bounds=SHARE)
        for loss, label in LABELS.items()
    )
    apart = zero + idle
    together = len(met) + len(apart)
    return Finding(
        "The dominant spaces of A and B meet with the digits, and neither with targets zero nor "
        "with no loss.",
        Prediction(
            f"largest sine of the nine directions at the end below {MET:g} with the digits, above "
            f"{APART:g} with targets zero and with no loss",
            None,
            "Davis-Kahan sin Θ theorem with the law",
        ),
        met + apart,
        _both(
            band_verdict(met, -math.inf, MET, together=together),
            band_verdict(apart, APART, math.inf, together=together),
        ),
        "A gap in the spectrum is what turns a falling ‖A - B‖ into a small angle, and it is the "
        "loss that opens the gap.",
    )


def _nothing_to_learn(cells: Sequence[Measured]) -> Finding:
    empty = _with_loss(cells, "zero")
    law = _by_decay(empty, "law_ratio", "rate ratio of ‖A - B‖")
    alone = _by_decay(
        empty, "trace_relative", "‖A - B‖₁ / (tr A + tr B), end over start", over=True
    )
    together = len(law) + len(alone)
    return Finding(
        "A loss alone does not align either: with targets zero the law holds and the relative "
        "imbalance does not fall.",
        Prediction(
            "rate ratio 1 within 1 %; ‖A - B‖ in trace norm over tr A + tr B at least what it was, "
            "less 1 % for finite steps, since such a loss only lowers the traces",
            1.0,
            _DERIVED,
        ),
        law + alone,
        _both(
            band_verdict(law, *SETTLED, together=together),
            band_verdict(alone, 0.99, math.inf, together=together),
        ),
        f"In Frobenius norms the relative imbalance ends at {_mean(empty, 'relative_end'):.3f}, "
        f"from {_mean(empty, 'relative_start'):.3f}: what such a loss takes from A and B is what "
        "they share.",
    )


def draw_controls(cells: Sequence[Measured]) -> Figure:
    """‖A - B‖, relative imbalance and sine over 2λt, with a loss and without."""
    figure, axes = new_figure(1, 3, width=3.6)
    names = {"size": "‖A - B‖", "relative": "‖A - B‖ / (‖A‖ + ‖B‖)", "sine": "sin θ"}
    depth = max(m.cell.settings["depth"] for m in cells)
    decay = max(m.cell.settings["decay"] for m in cells)
    for ax, (name, label) in zip(axes[0], names.items(), strict=True):
        # The lines coincide where the law alone decides, so each has its own dashes.
        for (loss, word), colour, style in zip(
            LABELS.items(), COLOURS, ("-", "--", ":"), strict=False
        ):
            for m in _with_loss(cells, loss):
                if (m.cell.settings["depth"], m.cell.settings["decay"]) == (depth, decay):
                    draw_band(ax, m.values["time"], m.values[name], colour=colour, label=word)
                    ax.lines[-1].set(linestyle=style, linewidth=2)
        ax.set_yscale("log")
        ax.set_xlabel("2λt")
        ax.set_ylabel(f"{label}, first pair")
    axes[0, 0].set_title(f"depth {depth}, λ = {decay:g}")
    axes[0, 1].legend()
    return figure


def _with_loss(cells: Sequence[Measured], loss: str) -> list[Measured]:
    return [m for m in cells if m.cell.settings["loss"] == loss]


def _by_decay(
    cells: Sequence[Measured],
    name: str,
    label: str,
    *,
    over: bool = False,
    bounds: tuple[float, float] | None = None,
) -> tuple[Estimate, ...]:
    """One estimate over seeds for each λ, after averaging each seed over cells and pairs."""
    estimates: list[Estimate] = []
    for decay in sorted({m.cell.settings["decay"] for m in cells}):
        by_cell: list[np.ndarray] = []
        for m in cells:
            if m.cell.settings["decay"] == decay:
                values = np.array(m.values[f"{name}_end" if over else name])
                start = np.array(m.values[f"{name}_start"]) if over else 1.0
                by_cell.append((values / start).mean(axis=0))
        means = np.mean(by_cell, axis=0).tolist()
        estimates.append(mean_interval(f"{label}, λ = {decay:g}", means, bounds=bounds))
    return tuple(estimates)


def _mean(cells: Sequence[Measured], name: str) -> float:
    return float(np.mean([np.mean(m.values[name]) for m in cells]))


def _both(first: Verdict, second: Verdict) -> Verdict:
    if "refuted" in (first, second):
        return "refuted"
    return "confirmed" if first == second == "confirmed" else "open"
