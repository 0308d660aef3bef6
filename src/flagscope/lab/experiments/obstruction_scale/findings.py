"""Predictions of the obstruction-scale experiment, and the rules of its verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from flagscope.lab.experiment import (
    Estimate,
    Finding,
    Measured,
    Prediction,
    Verdict,
    beyond_the_paper,
)
from flagscope.lab.intervals import band_verdict, mean_interval

# The bound of the obstruction experiment.
OBSTRUCTED = 0.05
# A linear pair that commutes: A - B is e^-10 of its start, and A at least a tenth of its start.
COMMUTES = 1e-4
# A network is alive if every seed explains this share of the targets' size at 2λt = 10.
ALIVE = 0.05
# λ / scale at which scales are compared; the largest weak one; one at which all are dead.
EQUAL, WEAK, DEAD = 2.5e-2, 5e-3, 2.5e-1
_CURVED = ("relu", "tanh", "gelu")
_DERIVED = "derived in the module"
_THEORY = "theory, section 7"


@dataclass(frozen=True)
class ScaleRuns:
    """The measured cells, by activation, kind and λ / scale."""

    measured: Sequence[Measured]

    def ratios(self, kind: str = "grid") -> list[float]:
        """Measured ratios, ascending."""
        settings = (m.cell.settings for m in self.measured)
        return sorted({s["ratio"] for s in settings if s["kind"] == kind})

    def series(
        self, activation: str, ratio: float, kind: str = "grid"
    ) -> list[dict[str, Any]] | None:
        """The moments of a cell, or None if it was not measured."""
        wanted = (activation, ratio, kind)
        for m in self.measured:
            s = m.cell.settings
            if (s["activation"], s["ratio"], s["kind"]) == wanted:
                return m.values["series"]
        return None

    def values(
        self, activation: str, ratio: float, quantity: str, kind: str = "grid", *, moment: int = -1
    ) -> list[float]:
        """One number for each seed at a moment, by default the last; empty if not measured."""
        series = self.series(activation, ratio, kind)
        return [] if series is None else series[moment][quantity]

    def alive(self, activation: str) -> list[float]:
        """Ratios at which every seed is alive."""
        return [
            ratio
            for ratio in self.ratios()
            if min(self.values(activation, ratio, "explained"), default=0.0) >= ALIVE
        ]

    def commutators(
        self, activation: str, ratios: Sequence[float], kind: str = "grid"
    ) -> tuple[Estimate, ...]:
        """Final C, one estimate for each measured ratio."""
        by_ratio = ((r, self.values(activation, r, "C", kind)) for r in ratios)
        return tuple(
            mean_interval(f"C, {activation}, λ/c = {r:g}", values)
            for r, values in by_ratio
            if values
        )


def findings(measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """One finding for each prediction that the measured cells can test.

    The paper claims that activations obstruct generically and that linear pairs do not; as far as
    known, it does not treat the scale of the loss.
    """
    runs = ScaleRuns(measured)
    scaling, papers = (_same, _flow), (_linear, _weak, _generic)
    further = (_tanh, _homogeneous, _lasts, _dead)
    return (
        *beyond_the_paper(*(finding for rule in scaling for finding in rule(runs))),
        *(finding for rule in papers for finding in rule(runs)),
        *beyond_the_paper(*(finding for rule in further for finding in rule(runs))),
    )


def _over_equal(runs: ScaleRuns, kind: str) -> tuple[Estimate, ...]:
    """C at a different scale of the loss over C at scale 1, at equal λ / scale."""
    estimates: list[Estimate] = []
    for activation in ("linear", *_CURVED):
        here = runs.values(activation, EQUAL, "C")
        there = runs.values(activation, EQUAL, "C", kind)
        if here and there:
            ratios = [a / b for a, b in zip(there, here, strict=True)]
            estimates.append(mean_interval(f"C, {kind} over whole loss, {activation}", ratios))
    return tuple(estimates)


def _same(runs: ScaleRuns) -> Iterator[Finding]:
    estimates = (*_over_equal(runs, "quarter"), *_over_equal(runs, "fifth"))
    if estimates:
        equal = [
            runs.values(a, EQUAL, "C", "quarter") == runs.values(a, EQUAL, "C")
            for a in ("linear", *_CURVED)
        ]
        yield Finding(
            "The obstruction depends on the ridge and the scale of the loss through their ratio "
            "alone.",
            Prediction(
                "loss c·L, ridge c·λ and step η/c give the same weights: C equal within 1e-6 for "
                f"c = 1/4 and 1/5, at λ/c = {EQUAL:g}",
                1.0,
                _DERIVED,
            ),
            estimates,
            band_verdict(estimates, 1 - 1e-6, 1 + 1e-6),
            "With a quarter of the loss, whose factors are exact in binary, C is the same number "
            f"in every bit for {sum(equal)} of {len(equal)} activations, all seeds.",
        )


def _flow(runs: ScaleRuns) -> Iterator[Finding]:
    estimates = _over_equal(runs, "same-step")
    if estimates:
        yield Finding(
            "At equal ratio and equal 2λt C is the same whatever the step, as under gradient flow.",
            Prediction(
                "a fifth of the loss and of the ridge at the same step, five times as many steps: "
                "C equal within 5 %",
                1.0,
                _DERIVED,
            ),
            estimates,
            band_verdict(estimates, 0.95, 1.05),
            "This is how the theory compares: the loss five times smaller, the rest as it was. "
            f"{_decay_alone(runs)}",
        )


def _decay_alone(runs: ScaleRuns) -> str:
    """Text on the effect of finite steps on C, where C is only the decayed start."""
    left: dict[str, float] = {}
    for m in runs.measured:
        s = m.cell.settings
        if s["activation"] == "linear" and s["ratio"] == EQUAL and s["kind"] != "long":
            rate = s["step"] * s["decay"]
            left[s["kind"]] = 4 * s["until"] / (2 * rate) * math.log1p(-rate)
    if not {"grid", "same-step"} <= set(left):
        return ""
    return (
        "C of the linear pair is what decay has left of the start: (1 - ηλ)^{4n} alone differs by "
        f"a factor of {math.exp(left['same-step'] - left['grid']):.3f} between the two steps, and "
        "the η² of finite steps adds to it."
    )


def _linear(runs: ScaleRuns) -> Iterator[Finding]:
    estimates = runs.commutators("linear", runs.alive("linear"))
    yield Finding(
        "Linear pairs commute at every ratio at which the network learns.",
        Prediction(f"C < {COMMUTES:g} at 2λt = 10", COMMUTES, "theory, section 4"),
        estimates,
        band_verdict(estimates, -math.inf, COMMUTES),
        f"Linear networks live up to λ/c = {max(runs.alive('linear'), default=0):g}. C rises with "
        "λ/c because the Grams shrink and what is left of A - B does not.",
    )


def _weak(runs: ScaleRuns) -> Iterator[Finding]:
    weak = [r for r in runs.ratios() if r <= WEAK]
    estimates = tuple(e for a in _CURVED for e in runs.commutators(a, weak))
    if estimates:
        yield Finding(
            "Under a weak ridge ReLU, tanh and GELU obstruct.",
            Prediction(f"C > {OBSTRUCTED:g} where λ/c is at most {WEAK:g}", OBSTRUCTED, _THEORY),
            estimates,
            band_verdict(estimates, OBSTRUCTED, math.inf),
            "As in the experiment on the obstruction itself, whose ridge is 0.005 at c = 1.",
        )


def _generic(runs: ScaleRuns) -> Iterator[Finding]:
    estimates = tuple(e for a in _CURVED for e in runs.commutators(a, runs.alive(a)))
    free = [e.name.removeprefix("C, ") for e in estimates if e.value < OBSTRUCTED]
    yield Finding(
        "The obstruction is generic: these activations obstruct at every ratio at which the "
        "network learns.",
        Prediction(
            f"no: at λ/c = {EQUAL:g} tanh has C below {OBSTRUCTED:g}",
            OBSTRUCTED,
            _THEORY,
        ),
        estimates,
        band_verdict(estimates, OBSTRUCTED, math.inf),
        f"Judged as the claim has it, C > {OBSTRUCTED:g} everywhere. Not obstructed: "
        f"{'; '.join(free) or 'none'}.",
    )


def _tanh(runs: ScaleRuns) -> Iterator[Finding]:
    estimates = runs.commutators("tanh", [EQUAL])
    if estimates:
        yield Finding(
            "A ridge five times as strong relative to the loss takes the obstruction away from "
            "tanh.",
            Prediction(
                f"C < {OBSTRUCTED:g} at λ/c = {EQUAL:g}, near 0.002",
                0.002,
                f"{_THEORY}; small weights",
            ),
            estimates,
            band_verdict(estimates, -math.inf, OBSTRUCTED),
            f"{_jump(runs)}It still learns: at λ/c = {EQUAL:g} the share of the targets that it "
            f"explains is {_mean(runs, 'tanh', EQUAL, 'explained'):.2f}, that of the linear "
            f"network {_mean(runs, 'linear', EQUAL, 'explained'):.2f}.",
        )


def _jump(runs: ScaleRuns) -> str:
    """Text on the ratios between which the obstruction of tanh ends."""
    values = {r: _mean(runs, "tanh", r, "C") for r in runs.alive("tanh")}
    below = [r for r, c in values.items() if c < OBSTRUCTED]
    above = [r for r, c in values.items() if c >= OBSTRUCTED]
    if not below or not above:
        return ""
    last, first = max(above), min(below)
    return (
        f"The obstruction ends between λ/c = {last:g}, C = {values[last]:.2g}, and {first:g}, C = "
        f"{values[first]:.2g}. "
    )


def _homogeneous(runs: ScaleRuns) -> Iterator[Finding]:
    estimates = tuple(e for a in ("relu", "gelu") for e in runs.commutators(a, runs.alive(a)))
    yield Finding(
        "ReLU, which knows no scale, and GELU, whose first correction is quadratic, obstruct as "
        "long as they learn.",
        Prediction(f"C > {OBSTRUCTED:g} at every λ/c at which they live", OBSTRUCTED, _DERIVED),
        estimates,
        band_verdict(estimates, OBSTRUCTED, math.inf),
        f"{_lives(runs, 'relu')} {_lives(runs, 'gelu')}",
    )


def _lives(runs: ScaleRuns, activation: str) -> str:
    """Text on the ratios up to which an activation learns, and the range of its C."""
    values = [_mean(runs, activation, r, "C") for r in runs.alive(activation)]
    if not values:
        return f"{activation} does not learn."
    return (
        f"{activation} learns up to λ/c = {max(runs.alive(activation)):g}, with C from "
        f"{min(values):.2g} to {max(values):.2g}."
    )


def _lasts(runs: ScaleRuns) -> Iterator[Finding]:
    estimates: list[Estimate] = []
    courses: list[str] = []
    for ratio in runs.ratios("long"):
        end = runs.series("tanh", ratio, "long") or []
        until = end[-1]["time"]
        values = runs.values("tanh", ratio, "C", "long")
        estimates.append(mean_interval(f"C, λ/c = {ratio:g}, 2λt = {until:.0f}", values))
        before = _mean(runs, "tanh", ratio, "C")
        courses.append(
            f"at λ/c = {ratio:g} C goes from {before:.2g} at 2λt = 10 to {fmean(values):.2g} at "
            f"{until:.0f}"
        )
    if estimates:
        yield Finding(
            "The small C of tanh lasts: the obstruction does not come later.",
            Prediction(f"C < {OBSTRUCTED:g} still then", OBSTRUCTED, _THEORY),
            tuple(estimates),
            band_verdict(estimates, -math.inf, OBSTRUCTED),
            f"In the mean of the seeds {', '.join(courses)}. What C is at 2λt = 10 need not be "
            "where it ends.",
        )


def _dead(runs: ScaleRuns) -> Iterator[Finding]:
    ratios: list[Estimate] = []
    explained = 0.0
    for activation in ("linear", *_CURVED):
        start = runs.values(activation, DEAD, "C", moment=0)
        end = runs.values(activation, DEAD, "C")
        if start:
            over = [b / a for a, b in zip(start, end, strict=True)]
            ratios.append(mean_interval(f"C at the end over C at the start, {activation}", over))
            explained = max(explained, *runs.values(activation, DEAD, "explained"))
    if ratios:
        verdict: Verdict = band_verdict(ratios, 0.5, 2.0)
        yield Finding(
            "Where the ridge kills the signal C stays what it was at the start, linear pairs "
            "included: it says nothing of an obstruction there.",
            Prediction(
                f"C between half and twice its start at λ/c = {DEAD:g}", 1.0, "decay without a loss"
            ),
            tuple(ratios),
            verdict,
            f"No seed explains more than {explained:.1g} of the targets. A large C is an "
            "obstruction only where something has been learnt.",
        )


def _mean(runs: ScaleRuns, activation: str, ratio: float, quantity: str) -> float:
    values = runs.values(activation, ratio, quantity)
    return sum(values) / len(values) if values else math.nan
