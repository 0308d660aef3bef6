"""Predictions of the experiment on alignment without ridge, and the rules of its verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from flagscope.lab.experiment import (
    Estimate,
    Finding,
    Measured,
    Prediction,
    Verdict,
    beyond_the_paper,
)
from flagscope.lab.experiments.alignment_without_ridge.quantities import (
    at_one_norm,
    exponents,
    kept,
    sorted_by_depth,
)
from flagscope.lab.intervals import SHARE, band_verdict, mean_interval

# Round-off of thousands of steps in float64, relative to ‖A - B‖.
ROUND_OFF = 1e-9
# A relative imbalance counts as constant if at least this share of its start is left.
STAYS = 0.5
# A direction has grown with the norm if its squared singular value is this share of the first.
_GROWN = 0.05
_JI = "Ji and Telgarsky, arXiv 1810.02032"
_CONSERVED = "A - B is conserved: Arora, Cohen and Hazan, arXiv 1802.06509"
_DERIVED = "derived in the module"


@dataclass(frozen=True)
class Rule:
    """Estimates, and their predicted range."""

    estimates: tuple[Estimate, ...]
    low: float
    high: float


def verdict_of(rules: Sequence[Rule]) -> Verdict:
    """Confirmed if each range holds, refuted if one is excluded at their joint level.

    Examples
    --------
    >>> one, two = mean_interval("a", [1.0, 1.1, 0.9]), mean_interval("b", [5.0, 5.1, 4.9])
    >>> verdict_of([Rule((one,), 0, 2), Rule((two,), 4, 6)])
    'confirmed'
    >>> verdict_of([Rule((one,), 0, 2), Rule((two,), 0, 2)])
    'refuted'
    """
    together = sum(len(rule.estimates) for rule in rules)
    verdicts = {band_verdict(r.estimates, r.low, r.high, together=together) for r in rules}
    if "refuted" in verdicts:
        return "refuted"
    return "confirmed" if verdicts == {"confirmed"} else "open"


def findings(measured: Sequence[Measured]) -> tuple[Finding, ...]:
    """One finding for each prediction that the measured cells can test.

    None is the paper's: its claim that ridge aligns does not exclude that something else does.
    """
    rules = (
        _exclusive, _conserved, _rate, _rank_one, _same_curve, _at_rest, _small, _classes, _nine
    )  # fmt: skip
    return beyond_the_paper(*(finding for rule in rules for finding in rule(measured)))


def _exclusive(measured: Sequence[Measured]) -> Iterator[Finding]:
    cells = sorted_by_depth(measured, "margin")
    if cells:
        estimates = tuple(
            _estimate(m, "relative imbalance, end over start", kept(m)) for m in cells
        )
        right = min(np.min(m.values["right"][-1]) for m in cells)
        loss = max(np.max(m.values["loss"][-1]) for m in cells)
        yield Finding(
            "Without ridge adjacent layers do not align.",
            Prediction(
                "under the logistic loss of separable classes they do: the relative imbalance "
                "falls as 1 / (‖A‖ + ‖B‖), which grows without bound",
                0.0,
                f"{_CONSERVED}; {_JI}",
            ),
            estimates,
            band_verdict(estimates, STAYS, math.inf),
            f"Judged as the claim has it, at least {STAYS:g} of the start. No weight decay at all; "
            f"{right:.0%} of the examples are classified rightly in every seed, and the loss is "
            f"below e^{loss:.0f}.",
        )


def _conserved(measured: Sequence[Measured]) -> Iterator[Finding]:
    words = {
        "margin": "logistic, steps of one length",
        "plain": "logistic, plain steps",
        "bounded": "squared",
        "small": "squared, small weights",
        "classes": "ten classes",
    }
    estimates: list[Estimate] = []
    moved: list[float] = []
    for kind, label in words.items():
        cells = sorted_by_depth(measured, kind)
        if cells:
            worst = np.max([np.max(m.values["miss"], axis=0) for m in cells], axis=0)
            estimates.append(mean_interval(f"largest relative difference, {label}", worst.tolist()))
            moved += [float(x) for m in cells for x in np.ravel(m.values["conserved"][-1])]
    if estimates:
        yield Finding(
            "A - B less its driven part, Σ η² (G1 G1ᵀ - G2ᵀ G2), stays what it was, for every loss "
            "and step.",
            Prediction(
                f"to round-off, {ROUND_OFF:g} of ‖A - B‖",
                0.0,
                f"{_CONSERVED}; one step of gradient descent, written out in ridge-rate",
            ),
            tuple(estimates),
            band_verdict(estimates, -math.inf, ROUND_OFF),
            f"With the driven part of finite steps ‖A - B‖ itself ends at {min(moved):.3f} to "
            f"{max(moved):.3f} of its start: it does not say that anything has aligned.",
        )


def _rate(measured: Sequence[Measured]) -> Iterator[Finding]:
    cells = sorted_by_depth(measured, "margin")
    if cells:
        estimates = tuple(
            _estimate(m, f"exponent of the {word} in σ_1²", exponents(m, name).mean(axis=0))
            for name, word in (("relative", "relative imbalance"), ("sine", "sine"))
            for m in cells
        )
        yield Finding(
            "Relative imbalance and angle fall as the inverse of the squared norm.",
            Prediction(
                "exponent -1 within 5 % over the last factor of four of σ_1²", -1.0, _DERIVED
            ),
            estimates,
            band_verdict(estimates, -1.05, -0.95),
            "The angle is that between the leading left singular vector of a layer and the leading "
            "right one of the next.",
        )


def _rank_one(measured: Sequence[Measured]) -> Iterator[Finding]:
    cells = sorted_by_depth(measured, "margin")
    if cells:
        ratios = [
            _estimate(m, f"worst {word} over its bound", np.max(m.values[name], axis=0))
            for name, word in (("rank_ratio", "‖W‖² - σ_1²"), ("angle_ratio", "squared sine"))
            for m in cells
        ]
        ranks = [
            _estimate(m, "‖W‖² / σ_1² at the end", np.mean(m.values["stable_rank"][-1], axis=0))
            for m in cells
        ]
        sines = [
            _estimate(m, "sine at the end", np.mean(m.values["sine"][-1], axis=0), bounds=SHARE)
            for m in cells
        ]
        rules = [
            Rule(tuple(ratios), -math.inf, 1),
            Rule(tuple(ranks), -math.inf, 1.15),
            Rule(tuple(sines), -math.inf, 0.05),
        ]
        yield Finding(
            "Every layer tends to rank one, and its leading vector to that of its neighbour.",
            Prediction(
                "‖W_k‖² - σ_k² ≤ ε_k and sin² ≤ (2‖D_k‖₂ + ε_k) / σ_k² at every moment, with ε_k "
                "from the first weights alone; at the end ‖W‖² / σ_1² below 1.15 and the sine "
                "below 0.05",
                None,
                f"{_JI}; {_DERIVED}",
            ),
            tuple(e for rule in rules for e in rule.estimates),
            verdict_of(rules),
            "The bounds hold for the worst pair and moment of every seed where their ratio is "
            "below 1. At the start the layers have ‖W‖² / σ_1² of "
            f"{np.mean([np.mean(np.array(m.values['stable_rank'][0])[:-1]) for m in cells]):.1f}.",
        )


def _same_curve(measured: Sequence[Measured]) -> Iterator[Finding]:
    by_depth = {m.cell.settings["depth"]: m for m in sorted_by_depth(measured, "margin")}
    pairs = [
        (m, by_depth[m.cell.settings["depth"]])
        for m in sorted_by_depth(measured, "plain")
        if m.cell.settings["depth"] in by_depth
    ]
    if pairs:
        estimates = tuple(
            _estimate(m, "sine, plain over normalised steps, at one norm", at_one_norm(m, other))
            for m, other in pairs
        )
        plain = [m for m, _ in pairs]
        left = ", ".join(f"{kept(m).mean():.2f}" for m in plain)
        yield Finding(
            "Plain gradient descent goes the same way, only slowly.",
            Prediction(
                "at equal σ_1² the sine is that of steps of one length, within 5 %",
                1.0,
                "gradient flow of a loss and of its logarithm follow one curve",
            ),
            estimates,
            band_verdict(estimates, 0.95, 1.05),
            f"After {plain[0].cell.settings['steps']} plain steps the relative imbalance is at "
            f"{left} of its start: norms grow as powers of log t.",
        )


def _at_rest(measured: Sequence[Measured]) -> Iterator[Finding]:
    cells = sorted_by_depth(measured, "bounded")
    if cells:
        left = tuple(_estimate(m, "relative imbalance, end over start", kept(m)) for m in cells)
        slopes = tuple(
            _estimate(m, "norm of the gradient at the end", np.array(m.values["gradient"][-1]))
            for m in cells
        )
        rules = [Rule(left, STAYS, math.inf), Rule(slopes, -math.inf, 1e-8)]
        yield Finding(
            "Control: under a squared loss norms stay bounded, and the layers do not align.",
            Prediction(
                f"the loss comes to rest, gradient below 1e-8, with at least {STAYS:g} of the "
                "relative imbalance left",
                1.0,
                _CONSERVED,
            ),
            left + slopes,
            verdict_of(rules),
            "The same data, classes, networks and seeds, also without weight decay: here the "
            "exclusive claim holds. What aligned the layers above is the growth of their norms.",
        )


def _small(measured: Sequence[Measured]) -> Iterator[Finding]:
    by_depth: dict[int, list[Measured]] = {}
    for m in sorted_by_depth(measured, "small"):
        by_depth.setdefault(m.cell.settings["depth"], []).append(m)
    estimates: list[Estimate] = []
    for cells in by_depth.values():
        scales = np.log([m.cell.settings["scale"] for m in cells])
        ends = np.log([np.mean(m.values["relative"][-1], axis=0) for m in cells])
        if len(cells) > 1:
            slopes = np.polyfit(scales, ends, 1)[0]
            name = "exponent of the relative imbalance in the scale of the first weights"
            estimates.append(_estimate(cells[0], name, slopes))
    if estimates:
        smallest = min(sorted_by_depth(measured, "small"), key=lambda m: m.cell.settings["scale"])
        yield Finding(
            "Small first weights align layers too, under any loss.",
            Prediction(
                "A - B keeps its size s² while the Grams grow to that of what is learnt: exponent "
                "2 within 5 %",
                2.0,
                _CONSERVED,
            ),
            tuple(estimates),
            band_verdict(estimates, 1.9, 2.1),
            f"At scale {smallest.cell.settings['scale']:g} the relative imbalance ends at "
            f"{np.mean(smallest.values['relative'][-1]):.4f} under the squared loss, without any "
            "ridge.",
        )


def _classes(measured: Sequence[Measured]) -> Iterator[Finding]:
    cells = sorted_by_depth(measured, "classes")
    if cells:
        left = tuple(_estimate(m, "relative imbalance, end over start", kept(m)) for m in cells)
        ranks = tuple(
            _estimate(m, "‖W‖² / σ_1² at the end", np.mean(m.values["stable_rank"][-1], axis=0))
            for m in cells
        )
        yield Finding(
            "With ten classes the relative imbalance falls as well, and layers do not become rank "
            "one.",
            Prediction(
                "relative imbalance below 0.2 of its start, ‖W‖² / σ_1² above 1.5",
                None,
                f"{_DERIVED}; beyond {_JI}, which has one output",
            ),
            left + ranks,
            verdict_of([Rule(left, -math.inf, 0.2), Rule(ranks, 1.5, math.inf)]),
            "The conserved A - B knows nothing of the number of outputs; rank one is special to "
            "one.",
        )


def _nine(measured: Sequence[Measured]) -> Iterator[Finding]:
    cells = sorted_by_depth(measured, "classes")
    if cells:
        sines = tuple(
            _estimate(
                m,
                "largest sine of nine directions, end",
                np.mean(m.values["sine"][-1], axis=0),
                bounds=SHARE,
            )
            for m in cells
        )
        yield Finding(
            "With ten classes all nine directions that tell them apart align.",
            Prediction("largest sine of the nine leading directions below 0.3", None, _DERIVED),
            sines,
            band_verdict(sines, -math.inf, 0.3),
            f"{' '.join(_grown(m) for m in cells)} A direction aligns as its own squared singular "
            "value outgrows A - B, not as the norm does.",
        )


def _grown(m: Measured) -> str:
    """Sines of the seeds whose ninth direction has grown, and of the other seeds."""
    share = np.min(np.array(m.values["least"][-1]) / np.array(m.values["leading"][-1]), axis=0)
    sines = np.mean(m.values["sine"][-1], axis=0)
    grown = share >= _GROWN
    parts = [
        f"{word} {_GROWN:g} of the first in {int(chosen.sum())} seeds, mean sine "
        f"{sines[chosen].mean():.2g}"
        for word, chosen in (("at least", grown), ("less than", ~grown))
        if chosen.any()
    ]
    return (
        f"At depth {m.cell.settings['depth']} the ninth squared singular value is in "
        f"the end {'; '.join(parts)}."
    )


def _estimate(
    m: Measured,
    name: str,
    values: Float[np.ndarray, " seeds"],
    *,
    bounds: tuple[float, float] | None = None,
) -> Estimate:
    label = f"{name}, depth {m.cell.settings['depth']}"
    return mean_interval(label, np.asarray(values).tolist(), bounds=bounds)
