"""What a series follows of the heads of a layer and of health, next to the numbers of pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flagscope.observables.heads import HEAD_EXPLANATIONS
from flagscope.observables.nulls import central
from flagscope.observables.observable import Band, Explanation
from flagscope.records import HeadRecord


@dataclass(frozen=True)
class HeadNumber:
    """One number of the heads of a layer in one space of the stream.

    Parameters
    ----------
    field
        Its name in a series.
    words
        What it says.
    value
        Read from the scan's record of the heads; None where they were not measured.
    null
        Where chance puts it; None where the scan has no random model for it.
    counts
        Whether it is a count.
    """

    field: str
    words: Explanation
    value: Callable[[HeadRecord], float | None]
    null: Callable[[HeadRecord], Band | None] | None = None
    counts: bool = False


def _overlap_null(heads: HeadRecord) -> Band | None:
    """Mean 1; ±1.96 standard deviations, not below 0."""
    return central(1.0, heads.overlap_ratio_sd, floor=0.0)


def _distinct(heads: HeadRecord) -> float | None:
    """Heads, those of a group of near-copies beyond chance counted once."""
    if heads.clusters is None:
        return None
    return heads.count - sum(len(group) - 1 for group in heads.clusters)


def _all_heads(heads: HeadRecord) -> Band:
    return Band(heads.count, heads.count, heads.count)


HEAD_NUMBERS = (
    HeadNumber(
        "head_overlap_ratio",
        HEAD_EXPLANATIONS["head_overlap_ratio"],
        lambda heads: heads.overlap_ratio,
        _overlap_null,
    ),
    HeadNumber(
        "max_pair_ratio",
        Explanation(
            "Closest two heads",
            "max R",
            "How near are the two heads of the layer that share most?",
            "The largest ‖Q_iᵀ Q_j‖² / (r_i r_j / d) of two heads of the layer.",
            "Two random heads have 1 on average, the closest of several more. The scan has no "
            "range of chance for it. A copy has d/r.",
            "Rising towards d/r, two heads become copies. Near-copies begin half of the way from "
            "chance to a copy.",
            "It can pass from one two heads to another between steps; the scan of a step names "
            "them.",
        ),
        lambda heads: heads.max_pair_ratio,
    ),
    HeadNumber(
        "distinct_heads",
        Explanation(
            "Distinct heads",
            "heads",
            "How many different heads does the layer have?",
            "The number of heads, where a group of near-copies counts as one. In a group, heads "
            "are on average at least half of the way from chance to a copy (average linkage), "
            "and beyond chance at 1 %.",
            "All heads of the layer.",
            "Fewer: some heads of the layer span nearly one space.",
            "Equal spaces do not mean equal behaviour. Heads that draw near without reaching half "
            "of the way count as different.",
        ),
        _distinct,
        _all_heads,
        counts=True,
    ),
    HeadNumber(
        "shared_directions",
        HEAD_EXPLANATIONS["shared_directions"],
        lambda heads: heads.shared_directions,
        lambda _: Band(0.0, 0.0, 0.0),
        counts=True,
    ),
)
"""In the order of a report. All are functional: they depend on the spaces of the heads alone."""

_NOTHING_RANDOM = "No random model applies; weights that were drawn at random are not zero."
HEALTH_EXPLANATIONS: dict[str, Explanation] = {
    "dead_neurons": Explanation(
        "Dead neurons",
        "dead",
        "How many neurons are without effect by their weights?",
        "Neurons that carry nothing from the input of their block to its output, since weights "
        "are exactly zero. Where it is not known what lies between the two maps: those whose "
        "outgoing weights are all zero.",
        _NOTHING_RANDOM,
        "Each adds nothing to the output of its block, or at most a constant.",
        "A neuron whose activation never fires has weights like any other, and is not counted. "
        "Pruning sets neurons to zero on purpose.",
    ),
    "dead_heads": Explanation(
        "Dead heads",
        "dead",
        "How many heads are without effect by their weights?",
        "Heads whose output weights, or value weights, are all exactly zero.",
        _NOTHING_RANDOM,
        "Each writes nothing, or at most one fixed vector where values have a bias.",
        "Pruning sets heads to zero on purpose.",
    ),
    "not_finite": Explanation(
        "Tensors that are not finite",
        "NaN, ∞",
        "Do tensors hold NaN or infinity?",
        "The number of tensors with an entry that is NaN or infinite.",
        "0.",
        "Pairs and heads of such a tensor have no number.",
        "A cast to float16 makes infinities of numbers above 65,504.",
    ),
}
"""Counts of a series that are known exactly from the weights."""

HEAD_NUMBER: dict[str, HeadNumber] = {number.field: number for number in HEAD_NUMBERS}
"""Each number of heads by its field."""
