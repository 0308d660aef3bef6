"""Figures of the experiment on lead and lag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flagscope.lab.experiment import Estimate, Finding
from flagscope.lab.experiments.lead_lag.alarms import Alarms, Run
from flagscope.lab.experiments.lead_lag.findings import EVERY, Trainings
from flagscope.lab.experiments.lead_lag.signals import BASELINES, DIAGNOSTICS
from flagscope.lab.figures import COLOURS, draw_estimates, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE = 12  # measurements before the divergence that are drawn
_DRAWN = (
    "gradient_norm", "training_loss", "held_out_loss", "pairs/mlp/gram_correlation",
    "pairs/qk/product_norm_max", "weights/spectral_norm_max", "heads/overlap_ratio_max",
)  # fmt: skip


def draw_leads(findings: Sequence[Finding]) -> Figure:
    """Median leads of losses and gradient norm, then of the diagnostics."""
    estimates = [e for finding in findings[:2] for e in finding.estimates]
    return _estimates(estimates, "lead over the divergence, steps")


def draw_settling(findings: Sequence[Finding]) -> Figure:
    """How much later than held-out loss alignment settles."""
    (chosen,) = [finding for finding in findings if finding.claim.startswith("Alignment settles")]
    return _estimates(chosen.estimates, "settles later than held-out loss, share of the training")


def _estimates(estimates: Sequence[Estimate], label: str) -> Figure:
    figure, axes = new_figure(width=6.5, height=max(2.0, 0.24 * len(estimates)))
    ax = axes[0, 0]
    if estimates:
        # The axis ends with the numbers, not with what is possible.
        short = [replace(e, name=_short(e.name), bounds=None) for e in estimates]
        draw_estimates(ax, short, predicted=None)
    ax.axvline(0, color=COLOURS[6], ls="--", lw=1)
    ax.set_xlabel(label)
    return figure


def _short(name: str) -> str:
    for start in ("lead, steps: ", "settles later by, "):
        name = name.removeprefix(start)
    return name


def draw_runs(data: Trainings) -> Figure:
    """Losses of all runs at the high rate, and deviations before the divergence."""
    figure, axes = new_figure(1, 2, width=4.6)
    left, right = axes[0]
    for runs, colour in ((data.survived, COLOURS[0]), (data.diverged, COLOURS[1])):
        for run in runs:
            pairs = zip(run.steps, run.series["held_out_loss"], strict=True)
            shown = [(step, loss) for step, loss in pairs if loss is not None]
            left.plot(*zip(*shown, strict=True), color=colour, lw=0.7, alpha=0.6)
    left.set(xlabel="step", ylabel="held-out loss, nats", ylim=(2.6, 5.0))
    if len(data.survived) >= 2 and data.diverged:
        signals = [x for x in (*BASELINES, *DIAGNOSTICS) if x.name in _DRAWN]
        before = range(-_BEFORE, 2)
        for signal, colour in zip(signals, COLOURS, strict=False):
            alarms = Alarms(signal, data.survived)
            rows = [_aligned(alarms, run, before) for run in data.diverged]
            known = np.ma.masked_invalid(np.array(rows))
            middle = np.ma.median(known, axis=0).filled(np.nan)
            right.plot([EVERY * b for b in before], middle, color=colour, label=signal.label)
        right.axhline(1, color=COLOURS[6], ls="--", lw=1)
        right.legend(fontsize=6)
    right.set(xlabel="steps from the divergence", ylabel="deviation / threshold", ylim=(0, 3))
    return figure


def _aligned(alarms: Alarms, run: Run, before: range) -> list[float]:
    """Persistent deviation over the threshold, by measurements from the divergence on."""
    deviation = alarms.persistent(run) / alarms.threshold if alarms.threshold else None
    assert run.diverged is not None
    centre = run.steps.index(run.diverged)
    return [
        float(deviation[centre + b])
        if deviation is not None and 0 <= centre + b < len(run.steps)
        else np.nan
        for b in before
    ]
