"""Records of the rates of a series of checkpoints."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.record import Record

RateAnswer = Literal[
    "rate", "no-decay", "unresolved", "not-exponential", "unknown-schedule", "mixed-decay"
]
"""What a fit of a rate comes to, in words that do not change from release to release."""
RATE_ANSWERS: tuple[RateAnswer, ...] = get_args(RateAnswer)


class PairRate(Record):
    """The rate of one pair's diagnostic in decay time, or why there is none."""

    pair: str = Field(description="Name of the pair.")
    group: str | None = Field(description="Group of parameters whose schedule was used.")
    answer: RateAnswer = Field(description="`rate`, or why there is none.")
    reason: str = Field(default="", description="The reason in words, empty with a rate.")
    rate: float | None = Field(default=None, description="-d log y / dτ, τ = 2 Σ ηλ.")
    low: float | None = Field(default=None, description="Lower end of its 95 % interval.")
    high: float | None = Field(default=None, description="Upper end of its 95 % interval.")
    predicted: float | None = Field(
        default=None,
        description="What theory predicts: 1 under SGD with L2; null where it predicts none.",
    )
    points: int = Field(default=0, description="Checkpoints that were used.")
    span: float = Field(default=0.0, description="Decay time from the first to the last of them.")
    correlation: float | None = Field(
        default=None, description="Mean correlation of the scatter of neighbours."
    )
    rate_first: float | None = Field(default=None, description="Local rate at the first point.")
    rate_last: float | None = Field(default=None, description="Local rate at the last point.")


class SeriesRotation(Record):
    """How far matrices turn between two checkpoints under AdamW: medians over their samples."""

    start: int = Field(description="Updates done at the first of the two checkpoints.")
    stop: int
    tensors: int = Field(description="Decayed matrices whose samples were used.")
    angle: float | None = Field(description="Measured angle between the two, in radians.")
    equilibrium_angle: float | None = Field(
        description="What rotational equilibrium predicts of updates that are noise."
    )
    angle_ratio: float | None = Field(description="Measured over predicted, by matrix.")
    kept: float | None = Field(description="⟨w_stop, w_start⟩ / ‖w_start‖².")
    decay_leaves: float | None = Field(description="What decay alone leaves of it, e^(-τ/2).")
    settled: bool | None = Field(
        description="Whether Σ ηλ before is at least 2; before that, no equilibrium is expected."
    )


class SeriesRates(Record):
    """Rates of the pairs of a series."""

    run: str | None = Field(default=None, description="Its name, of several trainings.")
    optimiser: Literal["sgd", "adamw"] | None = Field(description="As far as it is known.")
    source: str = Field(description="Where the schedule comes from.")
    diagnostic: str = Field(description="What was measured.")
    rates: list[PairRate] = Field(description="One for each pair.")
    rotations: list[SeriesRotation] = Field(
        default_factory=list, description="One for each two neighbours, under AdamW."
    )
    notes: list[str] = Field(description="What was assumed, and what was not looked at.")
