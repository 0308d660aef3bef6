"""Predictions of the experiment on lead and lag, and the rules of its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from flagscope.lab.experiment import Estimate, Finding, Measured, Prediction, beyond_the_paper
from flagscope.lab.experiments.lead_lag.alarms import ENOUGH, Alarms, Run
from flagscope.lab.experiments.lead_lag.medians import holm, median_interval, sign_test
from flagscope.lab.experiments.lead_lag.settling import settled_at
from flagscope.lab.experiments.lead_lag.signals import ALIGNMENT, BASELINES, DIAGNOSTICS, Signal
from flagscope.lab.intervals import (
    CORRELATION,
    LEVEL,
    band_verdict,
    mean_interval,
    share_interval,
    spearman_interval,
)

#: Steps between two measurements where leads are measured.
EVERY = 3
#: Runs that have to diverge, so that an exact test can reach 5 % after Holm's correction.
_DIVERGED = 12
#: Seeds from which on settling is judged.
_SEEDS = 10
#: Largest share of surviving runs with an alarm that is still called few.
FEW = 0.2
_SOURCE = "no theory; a question of practice"
_ARMS = {"sound": "SGD", "adamw": "AdamW"}


@dataclass(frozen=True)
class Trainings:
    """The runs by their arm: "edge" (rate too high), "sound" (SGD), "adamw"."""

    runs: Mapping[str, Sequence[Run]]

    @classmethod
    def of(cls, measured: Sequence[Measured]) -> Trainings:
        """Sort measured cells."""
        runs: dict[str, list[Run]] = {"edge": [], "sound": [], "adamw": []}
        for cell in measured:
            runs[cell.cell.settings["arm"]].append(Run.of(cell))
        return cls(runs)

    @cached_property
    def diverged(self) -> list[Run]:
        """Runs at the high rate that diverged."""
        return [run for run in self.runs["edge"] if run.diverged is not None]

    @cached_property
    def survived(self) -> list[Run]:
        """Runs at the high rate that did not."""
        return [run for run in self.runs["edge"] if run.diverged is None]

    @cached_property
    def sound(self) -> list[Run]:
        """Runs at a sound rate with warm-up; those that diverged, if any, are left out."""
        return [run for run in self.runs["sound"] if run.diverged is None]

    def leads(self, signal: Signal) -> list[int]:
        """Lead of the alarm over the divergence in each run that diverged, in steps."""
        alarms = Alarms(signal, self.survived)
        return [alarms.lead(run, EVERY) for run in self.diverged]

    @cached_property
    def all_leads(self) -> dict[Signal, list[int]]:
        """`leads` of each signal; empty if there are too few runs to learn a threshold from."""
        if len(self.survived) < 2 or not self.diverged:
            return {}
        return {signal: self.leads(signal) for signal in (*BASELINES, *DIAGNOSTICS)}

    @property
    def enough(self) -> bool:
        """Whether the runs suffice for thresholds at 5 %, and for the tests."""
        return len(self.survived) >= ENOUGH and len(self.diverged) >= _DIVERGED


def findings(measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """One finding for each question."""
    data = Trainings.of(measured)
    made = [_announced(data, BASELINES, "The losses or the gradient norm announce a divergence.")]
    made.append(
        _announced(
            data,
            DIAGNOSTICS,
            "Some number read from the weights alone announces a divergence.",
        )
    )
    made += [_earlier(data, baseline) for baseline in BASELINES]
    made.append(_carried_over(data))
    made += _settling(data)
    return beyond_the_paper(*made)


def _announced(data: Trainings, signals: Sequence[Signal], claim: str) -> Finding:
    leads = {signal.label: data.all_leads.get(signal, []) for signal in signals}
    return _exists(
        data,
        claim,
        "for one of them at least the median lead of the alarm over the divergence is positive "
        f"(exact sign test, Holm over {len(signals)})",
        {f"lead, steps: {label}": values for label, values in leads.items()},
    )


def _earlier(data: Trainings, baseline: Signal) -> Finding:
    against = data.all_leads.get(baseline, [])
    differences = {
        f"earlier by, steps: {signal.label}": [
            own - other for own, other in zip(data.all_leads.get(signal, []), against, strict=True)
        ]
        for signal in DIAGNOSTICS
    }
    return _exists(
        data,
        "Some number read from the weights alone raises its alarm before the "
        f"{baseline.label} does.",
        "for one of them at least the median over seeds of the lead less that of the "
        f"{baseline.label} is positive (exact sign test, Holm over {len(DIAGNOSTICS)})",
        differences,
    )


def _exists(
    data: Trainings, claim: str, prediction: str, values: Mapping[str, Sequence[float]]
) -> Finding:
    """Confirmed if one median is above 0 after Holm; refuted if all intervals end below `EVERY`.

    A lead shorter than one measurement is none: medians are multiples of half of `EVERY`.
    """
    known = {name: numbers for name, numbers in values.items() if numbers}
    estimates = tuple(median_interval(name, numbers) for name, numbers in known.items())
    alone = {name: sign_test(x) for name, x in known.items()}
    adjusted = dict(zip(known, holm([*alone.values()]), strict=True))
    beyond = [name for name, p in adjusted.items() if p <= 1 - LEVEL]
    if not data.enough:
        verdict = "open"
    elif beyond:
        verdict = "confirmed"
    elif all(e.high is not None and e.high < EVERY for e in estimates):
        verdict = "refuted"
    else:
        verdict = "open"
    counts = (
        f"{len(data.diverged)} of {len(data.runs['edge'])} runs diverged; thresholds are from the "
        f"{len(data.survived)} others."
    )
    if not data.enough:
        return Finding(
            claim,
            Prediction(prediction, None, _SOURCE),
            estimates,
            verdict,
            f"{counts} That is too few: {_DIVERGED} and {ENOUGH} are needed.",
        )
    best = min(alone, key=lambda name: alone[name])
    return Finding(
        claim,
        Prediction(prediction, None, _SOURCE),
        estimates,
        verdict,
        f"{counts} {len(beyond)} of {len(known)} have a positive median after Holm's correction; "
        f"the least adjusted p is {adjusted[best]:.2g} ({best.partition(': ')[2]}, above 0 in "
        f"{sum(x > 0 for x in known[best])} of {len(known[best])} runs).",
    )


def _carried_over(data: Trainings) -> Finding:
    """Thresholds from sound runs on runs at the high rate that survived."""
    estimates: list[Estimate] = []
    if len(data.sound) >= 2 and data.survived:
        for signal in (*BASELINES, *DIAGNOSTICS):
            alarms = Alarms(signal, data.sound)
            raised = [alarms.step(run) is not None for run in data.survived]
            estimates.append(share_interval(f"share with an alarm, {signal.label}", raised))
    enough = len(data.sound) >= ENOUGH and len(data.survived) >= ENOUGH
    always = sum(estimate.value == 1 for estimate in estimates)
    few = sum(estimate.value <= FEW for estimate in estimates)
    return Finding(
        "Thresholds from trainings at a sound rate are quiet at the high rate where nothing "
        "diverges.",
        Prediction(
            f"at most {FEW:.0%} of the surviving runs raise an alarm, for each signal; thresholds "
            "are those that one sound run in twenty exceeds",
            None,
            _SOURCE,
        ),
        tuple(estimates),
        band_verdict(estimates, 0.0, FEW) if enough else "open",
        f"Of {len(estimates)} signals {always} raise an alarm in all of {len(data.survived)} "
        f"surviving runs, and {few} in at most {FEW:.0%} of them: the others show the rate, not "
        "what comes of it.",
    )


def _settling(data: Trainings) -> list[Finding]:
    pairs = {
        f"{signal.label}, {name}": _settled(data.runs[arm], signal)
        for arm, name in _ARMS.items()
        for signal in ALIGNMENT
    }
    known = {name: both for name, both in pairs.items() if both}
    differences = tuple(
        mean_interval(f"settles later by, {name}", [a - b for a, b in both], bounds=CORRELATION)
        for name, both in known.items()
    )
    together = tuple(
        spearman_interval(f"ρ over seeds, {name}", *zip(*both, strict=True))
        for name, both in known.items()
        if len(both) > 3 and all(len(set(side)) > 1 for side in zip(*both, strict=True))
    )
    held = {
        arm: [settled_at(run.steps, run.series["held_out_loss"]) for run in data.runs[arm]]
        for arm in _ARMS
    }
    words = "; ".join(
        f"{name}: held-out loss settles at {_mean([x for x in held[arm] if x is not None])} of the "
        "training on average"
        for arm, name in _ARMS.items()
        if any(x is not None for x in held[arm])
    )
    unit = "the step of settling less that of held-out loss, as a share of the training, is"
    rule = "settled: from there on within a tenth of its range of the mean of the last three"
    return [
        _judged(
            "Alignment settles before held-out loss does.",
            f"{unit} negative ({rule})",
            differences,
            (-1.0, 0.0),
            f"Negative: before. {words}.",
        ),
        _judged(
            "Held-out loss settles before alignment does.",
            f"{unit} positive ({rule})",
            differences,
            (0.0, 1.0),
            "The same numbers.",
        ),
        _judged(
            "In trainings whose held-out loss settles early, alignment settles early.",
            "the rank correlation over seeds of the two steps of settling is positive",
            together,
            (0.0, 1.0),
            f"Over {len(data.runs['sound'])} seeds with SGD and {len(data.runs['adamw'])} with "
            "AdamW.",
        ),
    ]


def _settled(runs: Sequence[Run], signal: Signal) -> list[tuple[float, float]]:
    """Where a signal and held-out loss have settled, of the runs in which both do."""
    made = []
    for run in runs:
        own = settled_at(run.steps, run.series[signal.name])
        loss = settled_at(run.steps, run.series["held_out_loss"])
        if run.diverged is None and own is not None and loss is not None:
            made.append((own, loss))
    return made


def _judged(
    claim: str,
    prediction: str,
    estimates: tuple[Estimate, ...],
    band: tuple[float, float],
    words: str,
) -> Finding:
    few = any(estimate.n < _SEEDS for estimate in estimates)
    verdict = "open" if few else band_verdict(estimates, *band)
    return Finding(claim, Prediction(prediction, None, _SOURCE), estimates, verdict, words)


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2f}"
