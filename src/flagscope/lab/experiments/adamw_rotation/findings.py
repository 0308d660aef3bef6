"""Predictions of the experiment on AdamW's rotation, and the rules of its verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean
from typing import Any

from flagscope.lab.experiment import (
    Estimate,
    Finding,
    Measured,
    Prediction,
    beyond_the_paper,
    of_kind,
)
from flagscope.lab.intervals import band_verdict, mean_interval

# Fixed before the full run. Noise alone is what the formula assumes; a network has a signal too.
NOISE_BAND, NETWORK_BAND, LAW_BAND = (0.98, 1.02), (0.9, 1.1), (0.98, 1.02)
_KOSSON = "Kosson, Messmer, Jaggi, arXiv 2305.17212"
_DERIVED = "derived in flagscope.series.rates.rotation"


def findings(measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """One finding for each prediction that the measured cells can test."""
    noise, text = of_kind(measured, "noise"), of_kind(measured, "gpt")
    made: list[Finding] = []
    if noise:
        made.append(_noise(noise))
    if text:
        made += [_one_step(text), _without_momentum(text), _long(text), _kept(text)]
    if of_kind(measured, "linear"):
        made.append(_law(of_kind(measured, "linear")))
    return beyond_the_paper(*made)


def _noise(cells: Sequence[Measured]) -> Finding:
    estimates = tuple(
        e for whole in (False, True) for e in _ratios(cells, "angle_ratio", _lag(whole), whole)
    )
    return Finding(
        "Under gradients that are noise alone AdamW turns a matrix by the angle of rotational "
        "equilibrium, over one step and over 1/(ηλ) steps.",
        Prediction(
            "measured over predicted angle 1 within 2 %; predicted is arccos ρ(n), which for one "
            "step is √(2ηλ(1-β1)/(1+β1))",
            1.0,
            f"{_KOSSON}; {_DERIVED}",
        ),
        estimates,
        band_verdict(estimates, *NOISE_BAND),
        _range(estimates),
    )


def _one_step(cells: Sequence[Measured]) -> Finding:
    estimates = tuple(_ratios(cells, "angle_ratio", "one step", whole=False))
    return Finding(
        "In a small GPT the angle of one step of AdamW is √(2ηλ(1-β1)/(1+β1)), after Σηλ = 3.",
        Prediction("measured over predicted angle 1 within 10 %", 1.0, _KOSSON),
        estimates,
        band_verdict(estimates, *NETWORK_BAND),
        _range(estimates),
    )


def _without_momentum(cells: Sequence[Measured]) -> Finding:
    estimates = tuple(
        mean_interval(
            f"angle over √(2ηλ), {_label(m)}",
            _by_seed(m, lambda row: row["angle"], whole=False, scale=_plain_angle(m)),
        )
        for m in cells
    )
    return Finding(
        "In a small GPT the angle of one step of AdamW is √(2ηλ), whatever β1.",
        Prediction(
            "measured over √(2ηλ) 1 within 10 %: true of the equilibrium without momentum alone; "
            "at β1 = 0.9 it should be √(0.1/1.9) = 0.23",
            1.0,
            f"as it is often quoted; against {_KOSSON}",
        ),
        estimates,
        band_verdict(estimates, *NETWORK_BAND),
        _range(estimates),
    )


def _long(cells: Sequence[Measured]) -> Finding:
    estimates = tuple(_ratios(cells, "angle_ratio", "1/(ηλ) steps", whole=True))
    return Finding(
        "In a small GPT the angle over 1/(ηλ) steps is that of equilibrium, arccos e^-1 up to "
        "momentum: between checkpoints β1 does not matter.",
        Prediction("measured over predicted angle 1 within 10 %", 1.0, _DERIVED),
        estimates,
        band_verdict(estimates, *NETWORK_BAND),
        f"{_range(estimates)} Below 1 where the gradient keeps pulling back to the same place.",
    )


def _kept(cells: Sequence[Measured]) -> Finding:
    estimates = tuple(_ratios(cells, "kept_ratio", "1/(ηλ) steps", whole=True))
    return Finding(
        "In a small GPT what is left of a weight after 1/(ηλ) steps of AdamW is what decay leaves "
        "of it, e^-1: what gradients add is orthogonal to it.",
        Prediction(
            "⟨w', w⟩ / ‖w‖² over Π(1 - ηλ) is 1 within 10 %: no equilibrium is assumed",
            1.0,
            _DERIVED,
        ),
        estimates,
        band_verdict(estimates, *NETWORK_BAND),
        f"{_range(estimates)} Above 1, gradients restore what decay takes.",
    )


def _law(cells: Sequence[Measured]) -> Finding:
    estimates, words = [], []
    for m in cells:
        s = m.cell.settings
        estimates.append(
            mean_interval(
                f"rate of ‖A - B‖ in τ, {s['optimiser']}, η = {s['rate']:g}, λ = {s['decay']:g}",
                m.values["overall"],
            )
        )
        answers = m.values["answers"]
        counts = ", ".join(f"{answers.count(a)} {a}" for a in sorted(set(answers)))
        words.append(f"{s['optimiser']}, η = {s['rate']:g}, λ = {s['decay']:g}: {counts}")
    adamw = [
        e for e, m in zip(estimates, cells, strict=True) if m.cell.settings["optimiser"] == "adamw"
    ]
    return Finding(
        "Under AdamW the imbalance of a linear pair falls at the rate 2λ.",
        Prediction(
            "rate 1 in decay time within 2 %: broken, since AdamW's steps are not gradients; SGD "
            "is the control, and does not count in the verdict",
            1.0,
            "theory, section 4",
        ),
        tuple(estimates),
        band_verdict(adamw, *LAW_BAND),
        f"From end to end. What the fit of a rate answers, by seed: {'; '.join(words)}.",
    )


def _label(m: Measured) -> str:
    s = m.cell.settings
    task = f", {s['task']}" if s["kind"] == "gpt" and s["task"] != "real" else ""
    return f"η = {s['rate']:g}, λ = {s['decay']:g}, β1 = {s['beta1']:g}{task}"


def _lag(whole: bool) -> str:
    return "1/(ηλ) steps" if whole else "one step"


def _plain_angle(m: Measured) -> float:
    s = m.cell.settings
    return math.sqrt(2 * s["rate"] * s["decay"])


def _ratios(cells: Sequence[Measured], name: str, lag: str, whole: bool) -> Iterator[Estimate]:
    for m in cells:
        yield mean_interval(f"{lag}, {_label(m)}", _by_seed(m, lambda row: row[name], whole=whole))


def _by_seed(
    m: Measured, value: Callable[[dict[str, Any]], float], *, whole: bool, scale: float = 1.0
) -> list[float]:
    """Mean over the tensors of each seed, at lag 1 or 1/(ηλ)."""
    rows = [row for row in m.values["turns"] if (row["whole"] if whole else row["lag"] == 1)]
    return [
        fmean(value(row) / scale for row in rows if row["seed"] == seed)
        for seed in m.cell.settings["seeds"]
    ]


def _range(estimates: Sequence[Estimate]) -> str:
    values = [e.value for e in estimates]
    return f"The {len(values)} means lie between {min(values):.3g} and {max(values):.3g}."
