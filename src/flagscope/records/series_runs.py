"""Records of several trainings side by side."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from flagscope.records.literals import CurvePart
from flagscope.records.record import Record

StartAnswer = Literal["own", "another-run", "unknown", "not-compared"]
"""Where the steps of a run come from, in words that do not change from release to release."""
START_ANSWERS: tuple[StartAnswer, ...] = get_args(StartAnswer)
RunRelationAnswer = Literal[
    "same", "parted", "common-origin", "no-common-origin", "unknown", "not-compared"
]
"""What two runs share, in words that do not change from release to release."""
RUN_RELATION_ANSWERS: tuple[RunRelationAnswer, ...] = get_args(RunRelationAnswer)


class RunRecord(Record):
    """One training of several."""

    name: str = Field(description="Its folder or repository, as far as that tells runs apart.")
    steps: int
    faults: int
    path_length: float | None = Field(
        description="Sum of the distances of neighbours, in units of the run's own median steps."
    )
    displacement: float | None = Field(description="Distance of its first and last step.")
    start: str | None = Field(description="Its first step that can be compared.")
    start_answer: StartAnswer = Field(
        description="Whether its later steps descend from its own start, as far as samples show."
    )
    start_of: str | None = Field(
        default=None, description="The run from whose start they descend, where it is another."
    )
    correlation_own: float | None = Field(
        default=None, description="Of its second step with its own start."
    )
    correlation_other: float | None = Field(
        default=None, description="The largest with the start of another run."
    )
    distance_ratio: float | None = Field(
        default=None,
        description="Distance of its second step from its own start, over that from the nearest "
        "start of another run: above 1 if that is nearer.",
    )


class RunRelation(Record):
    """What two runs share, at the steps that both have."""

    first: str
    second: str
    answer: RunRelationAnswer = Field(
        description="`same`: equal at all common steps; `parted`: equal up to a step; "
        "`common-origin`: equal nowhere at first, and more alike there than by chance."
    )
    steps: int = Field(description="Steps that both have and that were compared.")
    equal_until: int | None = Field(
        default=None, description="Number of the last step up to which all are equal."
    )
    differ_from: int | None = Field(
        default=None, description="Number of the first common step at which they differ."
    )
    equal_later: list[int] = Field(
        default_factory=list, description="Numbers of later steps that are equal again."
    )
    correlation: float | None = Field(
        default=None, description="Of their samples at the first common step."
    )
    chance: float | None = Field(
        default=None, description="What independent weights do not exceed there."
    )


class RunBand(Record):
    """One number of a curve over several runs, at the steps that at least two of them have."""

    part: CurvePart = Field(default="pairs", description="As in the curve.")
    pair: str = Field(description="As in the curve.")
    kind: str
    layer: int | None
    observable: str
    numbers: list[int] = Field(description="Of the steps.")
    runs: list[int] = Field(
        description="How many runs have the number there; runs of equal weights count once."
    )
    mean: list[float | None] = Field(description="Null where no run has the number.")
    low: list[float | None] = Field(description="The least of the runs.")
    high: list[float | None] = Field(description="The largest of the runs.")
    mean_low: list[float | None] = Field(
        description="Lower end of the 95 % interval of the mean over seeds (Student's t), from "
        "five runs on; null with fewer."
    )
    mean_high: list[float | None]


class RunsRecord(Record):
    """Several trainings, and what they share."""

    runs: list[RunRecord]
    relations: list[RunRelation] = Field(description="Of each two runs.")
    unit: Literal["step", "epoch"] | None = Field(description="Of the numbers of steps.")
    common: list[int] = Field(description="Numbers of the steps that all runs have.")
    bands: list[RunBand]
