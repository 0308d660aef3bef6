"""Lead and lag: does anything read from weights precede a divergence, or the settling of the loss?

A small GPT on text under SGD with momentum, at a constant rate that is too high for it after a
warm-up of 50 steps: of trainings that differ in their seed alone some diverge and some do not.
Those that do not are the healthy runs next to which each signal is judged, so that an alarm is of
what is to come, and not of the rate. All signals have the same rule and the same steps, every
third: losses, the gradient norm, and numbers of the weights, of which `flagscope.AlignmentMonitor`
logs some. The training loss and the gradient norm are means over the three steps since the
measurement before.

**Divergence.** The first of two measurements in a row at which held-out loss is 0.3 nats above its
least value so far; a loss that is not finite at once. Spikes that last so long count, whether or
not the training recovers. **Alarm.** The second of two measurements in a row at which a signal is
further from the mean of the healthy runs at that step, in their standard deviations, than all but
one healthy run in twenty ever are from the others; for losses and the gradient norm, further
above. **Lead.** Steps from alarm to divergence; one measurement too late where no alarm fires, so
that two signals of which neither warns differ by 0. As held-out loss defines the divergence, its
own alarm is late by at most one measurement wherever its threshold lies below the rise.

**What is favourable to the signals.** A training in practice has no twenty healthy twins.
Thresholds from a sound rate are what it can have; a part says how they fare.

**The second question.** Where a signal has come within a tenth of its range of its final value,
next to where held-out loss has, at a sound rate under SGD (constant after warm-up) and under AdamW
(cosine). Noise delays the settling of a signal as real change does, and the final value is that of
the end of a short training.

**What was not looked at.** Larger models, divergence under AdamW (under it this model did not
diverge in trials at rates up to 0.1; it stopped learning), gradient clipping, numbers of
activations such as attention entropy, links across the residual stream, tests against chance (a
scan takes fifty times as long as these numbers), changes of a signal against its own recent past,
and combinations of signals. In 19 of the 20 runs that diverged held-out loss rises by 0.3 nats or
more within three steps, from one measurement to the next; slower divergences may be announced.

**What was known when.** Trials of held-out loss alone, with seeds from 1000 on, which are not
among those reported, chose rate and warm-up for a share of diverging runs near one half. Signals,
rules and verdicts were fixed before any signal of the weights was computed in a reported run. A
trial of the quick form showed that the code runs. That divergences are sudden was seen in the
results. After them, alarms at a single measurement were tried for the losses, the gradient norm
and sixteen of the diagnostics: no median lead was positive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flagscope.lab.experiment import Cell, Experiment, Finding, Measured, Options
from flagscope.lab.experiments.lead_lag.figures import draw_leads, draw_runs, draw_settling
from flagscope.lab.experiments.lead_lag.findings import EVERY, Trainings, findings
from flagscope.lab.experiments.lead_lag.signals import BASELINES, DIAGNOSTICS
from flagscope.lab.text import corpus

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SHAPE = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 32}
_ARMS: dict[str, dict[str, Any]] = {
    "edge": {"optimizer": "sgd", "rate": 0.5, "warmup": 50, "steps": 300, "every": EVERY},
    "sound": {"optimizer": "sgd", "rate": 0.15, "warmup": 50, "steps": 300, "every": EVERY},
    "adamw": {"optimizer": "adamw", "rate": 3e-3, "decay": 1.0, "steps": 900, "every": 5 * EVERY},
}
_SEEDS = {"edge": 48, "sound": 20, "adamw": 12}
_QUICK_SEEDS = {"edge": 4, "sound": 2, "adamw": 2}
_QUICK_STEPS = 60


class LeadLag(Experiment):
    """Sets the alarms of many signals against the divergence, and against each other."""

    name = "lead-lag"
    title = "Does anything precede a divergence, or the settling of the loss"
    claim = (
        "Numbers read from the weights alone precede the divergence of a training, before the "
        "losses and the gradient norm do; alignment settles before held-out loss does."
    )
    source = "a question of practice; arXiv 2605.09861 saw terminal states only"
    budget_minutes = 8
    data_kind = "text"
    figures = (
        (
            "leads",
            "Median lead of each signal's alarm over the divergence, with 95 % intervals of the "
            "bootstrap over seeds.",
        ),
        (
            "runs",
            "Left: held-out loss at the high rate; a line ends where the run has diverged. Right: "
            "deviation from the surviving runs in units of the signal's threshold, median of the "
            "runs that diverged; an alarm lies above 1.",
        ),
        (
            "settling",
            "Where alignment settles less where held-out loss does, as a share of the training, "
            "with 95 % intervals of the mean over seeds.",
        ),
    )

    def cells(self, options: Options) -> list[Cell]:
        """One cell for each training."""
        text = corpus(options.data)
        common = {
            "data": options.data,
            "text": text.sha256,
            "shape": _SHAPE | {"vocab_size": len(text.vocabulary)},
            "batch": 8,
            "held_out_tokens": 2049,
        }
        if options.quick:
            common["shape"]["n_layer"] = 1
        made = []
        for arm, own in _ARMS.items():
            settings = own | ({"steps": _QUICK_STEPS, "every": EVERY} if options.quick else {})
            seeds = options.seeds or (_QUICK_SEEDS if options.quick else _SEEDS)[arm]
            made += [
                Cell(f"{arm}-{seed}", common | settings | {"arm": arm, "seed": seed})
                for seed in range(seeds)
            ]
        return made

    def measure(self, cell: Cell, report: Callable[[float], None]) -> dict[str, Any]:
        """Train, and measure all signals at each of the steps."""
        from flagscope.lab.experiments.lead_lag.training import measure_training

        return measure_training(cell.settings, report)

    def conclude(self, measured: Sequence[Measured]) -> tuple[Finding, ...]:
        """Judge by the predictions and rules in `findings`."""
        return findings(measured)

    def table(self, measured: Sequence[Measured]) -> pd.DataFrame:
        """One row for each run and step, one column per signal, to three digits."""
        import pandas as pd

        frames = []
        for m in measured:
            s, v = m.cell.settings, m.values
            columns = {x.name: v["series"][x.name] for x in (*BASELINES, *DIAGNOSTICS)}
            common = {"arm": s["arm"], "seed": s["seed"], "diverged": v["diverged"]}
            rows = pd.DataFrame({"step": v["steps"], **columns}).astype(float)
            rows = rows.map(lambda x: float(f"{x:.3g}"))
            frames.append(rows.assign(**common, step=v["steps"]))
        first = ["arm", "seed", "diverged", "step"]
        whole = pd.concat(frames, ignore_index=True)
        return whole.reindex(columns=first + [name for name in whole if name not in first])

    def draw(self, measured: Sequence[Measured], findings: Sequence[Finding]) -> dict[str, Figure]:
        """Draw the three figures."""
        data = Trainings.of(measured)
        return {
            "leads": draw_leads(findings),
            "runs": draw_runs(data),
            "settling": draw_settling(findings),
        }


EXPERIMENT = LeadLag()
