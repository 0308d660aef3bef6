"""Claims on the prediction of merges: predictions and rules, fixed before measuring.

The paper does not treat merges: all claims go beyond it. Two predictions exclude each other, and
both stand here: that numbers from weights foretell what a merge costs (each claim of a predictor),
and that they do not while the gradient does (the claims that begin with "From weights alone" and
"The gradient says more").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from flagscope.lab.claim import Claim
from flagscope.lab.experiment import Estimate, Measured
from flagscope.lab.experiments.merge_prediction.merges import MERGES
from flagscope.lab.experiments.merge_prediction.predictors import (
    BY_NAME,
    FROM_WEIGHTS,
    PREDICTORS,
    TUNINGS,
    Predictor,
)
from flagscope.lab.experiments.merge_prediction.task_interval import (
    Table,
    difference_interval,
    mean_correlation_interval,
    task_interval,
)
from flagscope.lab.experiments.merge_prediction.tasks import PAIRS

Cells = Sequence[Measured]
# Rank correlations within this band say too little about a single pair to warn of it.
WEAK = 0.3


def estimate_name(method: str, tuning: str) -> str:
    """Name of the estimate of a predictor's ρ for a merge."""
    return f"ρ, {method}, {tuning}"


def measure(cells: Cells, tuning: str, name: str) -> Table:
    """A measure's numbers, one row a seed."""
    return [c.values["measures"][name] for c in cells if c.cell.settings["tuning"] == tuning]


def drops(cells: Cells, tuning: str, method: str, kind: str = "drops") -> Table:
    """What each pair loses by a merge, one row a seed."""
    return [c.values[kind][method] for c in cells if c.cell.settings["tuning"] == tuning]


def correlations(
    predictor: Predictor, *, specific: bool = False
) -> Callable[[Cells], list[Estimate]]:
    """ρ of a predictor with what is lost, for every merge and kind of fine-tuning."""

    def estimates(cells: Cells) -> list[Estimate]:
        found = [
            task_interval(
                estimate_name(method, tuning),
                measure(cells, tuning, predictor.name),
                drops(cells, tuning, method),
                PAIRS,
                specific=specific,
            )
            for tuning in predictor.tunings
            for method in MERGES
        ]
        return [e for e in found if e is not None]

    return estimates


def _over_merges(cells: Cells) -> list[Estimate]:
    """ρ of each number from weights, averaged over merges."""
    found = [
        mean_correlation_interval(
            f"ρ, {predictor.label}, {tuning}",
            measure(cells, tuning, predictor.name),
            [drops(cells, tuning, method) for method in MERGES],
            PAIRS,
        )
        for tuning in TUNINGS
        for predictor in _defined(tuning)
    ]
    return [e for e in found if e is not None]


def _gain_of(better: str, others: Sequence[tuple[str, str]]) -> Callable[[Cells], list[Estimate]]:
    """ρ of one predictor less that of others, each in its expected direction, over all merges."""

    def estimates(cells: Cells) -> list[Estimate]:
        found = []
        for name, tuning in others:
            signs = BY_NAME[better].sign, BY_NAME[name].sign
            found.append(
                difference_interval(
                    f"more ρ than {BY_NAME[name].label}, {tuning}",
                    (measure(cells, tuning, better), signs[0]),
                    (measure(cells, tuning, name), signs[1]),
                    [drops(cells, tuning, method) for method in MERGES],
                    PAIRS,
                )
            )
        return [e for e in found if e is not None]

    return estimates


def _repeats(cells: Cells) -> list[Estimate]:
    """ρ of what is lost from one base with the mean of what is lost from the others."""
    found = []
    for tuning in TUNINGS:
        for method in MERGES:
            table = np.array(drops(cells, tuning, method))
            if len(table) < 2:
                continue
            others = (table.sum(0) - table) / (len(table) - 1)
            name = estimate_name(method, tuning)
            found.append(task_interval(name, table.tolist(), others.tolist(), PAIRS))
    return [e for e in found if e is not None]


def _same_as_loss(cells: Cells) -> list[Estimate]:
    """ρ of lost accuracy with the rise of the loss."""
    found = [
        task_interval(
            estimate_name(method, tuning),
            drops(cells, tuning, method, "loss_rises"),
            drops(cells, tuning, method),
            PAIRS,
        )
        for tuning in TUNINGS
        for method in MERGES
    ]
    return [e for e in found if e is not None]


def _predicts(predictor: Predictor) -> Claim[Cells]:
    word = "positive" if predictor.sign > 0 else "negative"
    low, high = (0.0, 1.0) if predictor.sign > 0 else (-1.0, 0.0)
    return Claim(
        predictor.claim,
        f"Spearman's ρ of {predictor.label} and what the pair loses is {word} for each merge",
        predictor.source,
        correlations(predictor),
        low,
        high,
        beyond=True,
    )


def _specific(name: str) -> Claim[Cells]:
    predictor = BY_NAME[name]
    return Claim(
        f"Beyond its two tasks, the {predictor.label} says something of the pair.",
        "ρ is negative when the mean of each task is taken off both ranks",
        "what a verdict on a pair means",
        correlations(predictor, specific=True),
        -1.0,
        0.0,
        beyond=True,
    )


def _defined(tuning: str) -> Iterator[Predictor]:
    return (p for p in FROM_WEIGHTS if tuning in p.tunings)


_WEIGHTS = [(p.name, tuning) for tuning in TUNINGS for p in _defined(tuning)]
_CORRECTED = {
    name: _gain_of(f"{name}_corrected", [(name, "lora")])
    for name in ("energy_cosine", "read_overlap")
}

CLAIMS: tuple[Claim[Cells], ...] = (
    *(_predicts(predictor) for predictor in PREDICTORS),
    Claim(
        "From weights alone no conflict can be foretold.",
        f"ρ of every number from weights, averaged over merges, lies within ±{WEAK}",
        "Demystifying mergeability, arXiv 2601.22285 v6; Zhang et al., ACL 2025 (OSRM)",
        _over_merges,
        -WEAK,
        WEAK,
        beyond=True,
    ),
    Claim(
        "The gradient says more than each number from weights.",
        "its ρ, in the expected direction and averaged over merges, is larger than theirs",
        "Demystifying mergeability, arXiv 2601.22285 v6",
        _gain_of("gradient_cosine", _WEIGHTS),
        beyond=True,
    ),
    Claim(
        "What adapters have in common by their start hides what they learnt.",
        "ρ in the expected direction is larger once the common start is taken out",
        "two strangers' adapters overlap by their default seed",
        lambda cells: [e for gain in _CORRECTED.values() for e in gain(cells)],
        beyond=True,
    ),
    _specific("energy_cosine"),
    _specific("gradient_cosine"),
    Claim(
        "What a pair loses repeats with another base.",
        "ρ of the losses from one base with their mean over the other bases is positive",
        "a control: else there is nothing to predict",
        _repeats,
        0.0,
        1.0,
        beyond=True,
    ),
    Claim(
        "Accuracy and loss agree on which pairs lose.",
        "ρ of lost accuracy and the rise of the loss is positive",
        "a control of the choice of the outcome",
        _same_as_loss,
        0.0,
        1.0,
        beyond=True,
    ),
)
